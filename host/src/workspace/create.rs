//! Making a workspace.

use super::GUEST_PATH;
use super::admission;
use super::directory::Directory;
use super::fork::Fork;
use super::label;
use super::machine::{self, Attempt, Caller, Form, Plan};
use super::place::{Place, SEED_NAME};
use super::power;
use super::record::{self, Record, Seed, SeedMode, Ttl, TtlAction};
use super::shape::Shape;
use super::template::Start;
use crate::blocking::blocking;
use crate::context::Context;
use crate::disk;
use crate::egress::Network;
use crate::environment::{Bootable, Environments};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::event_log::{EventLog, Happening};
use crate::pyro::Pyro;
use crate::secret::{SecretStore, Secrets};
use crate::seed::{self, Source};
use crate::store::private_dir;
use crate::store::record as records;
use crate::supervisor::Lifetime;
use crate::vmm::{Durability, Rung};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

/// The name of a workspace's first disk.
const FIRST_DISK: &str = "disk-0.ext4";

/// A workspace that is wanted.
#[derive(Debug)]
pub struct NewWorkspace {
    /// What it begins with.
    pub origin: Origin,
    /// How large.
    pub shape: Shape,
    /// How to run it, always; the best way of the moment if not said.
    pub vmm: Option<Rung>,
    /// What it is called.
    pub name: Option<String>,
    /// How it is marked.
    pub labels: BTreeMap<String, String>,
    /// Its network.
    pub network: Network,
    /// How it comes up, this time.
    pub start: Start,
    /// What it keeps to itself.
    pub secrets: Secrets,
    /// When it is to end by itself: seconds from its start, and how.
    pub ttl: Option<(u32, TtlAction)>,
}

/// What a workspace begins with.
#[derive(Debug)]
pub enum Origin {
    /// An environment and a seed.
    Environment {
        /// The environment's name.
        name: String,
        /// The seed.
        seed: Source,
    },
    /// Another workspace.
    Workspace(Box<Fork>),
}

/// Makes a workspace and starts it. It is there, running, by one rename; if
/// anything fails or the caller dies before, nothing of it is left.
pub async fn create(pyro: &Pyro, wanted: NewWorkspace, context: &Context) -> Result<Place> {
    let caller = Caller::from(context);
    wanted.check()?;
    admission::look(&pyro.config, wanted.shape.mem_mib)?;
    refuse_taken_name(pyro, wanted.name.as_deref())?;
    let attempt = Attempt::first(pyro, wanted.vmm).await?;
    let about = wanted.origin.about();
    caller.stage("preparing", &about).await;
    let bootable = caller.unless_cancelled(wanted.origin.resolve(pyro)).await?;
    let mut directory = Directory::stage(&pyro.config)?;
    let path = directory.path().to_owned();
    SecretStore::within(&pyro.config, &path, directory.id()).set(&wanted.secrets)?;
    let disk = path.join(FIRST_DISK);
    let seed = match &wanted.origin {
        Origin::Environment { seed, .. } => {
            if *seed != Source::Empty {
                caller.stage("seeding", &about).await;
            }
            let seeding = build_seed(seed.clone(), path.join(SEED_NAME), context.cancel.clone());
            let (seed, warnings) = caller.unless_cancelled(seeding).await?;
            for warning in warnings {
                context.events.emit(Event::Warning(warning)).await;
            }
            disk::create(&pyro.config, &disk, wanted.shape.disk_mib, Durability::Kept).await?;
            seed
        }
        Origin::Workspace(fork) => {
            fork.take_disk(pyro, disk.clone(), context).await?;
            fork.take_seed(&path)?
        }
    };
    let record = Record {
        workspace_id: directory.id(),
        name: wanted.name.clone(),
        labels: wanted.labels.clone(),
        environment: bootable.environment.clone(),
        root_digest: bootable.root_digest,
        vcpu_count: wanted.shape.vcpu_count,
        mem_mib: wanted.shape.mem_mib,
        disk_mib: wanted.shape.disk_mib,
        disk_limit: wanted.shape.disk_limit,
        vmm: wanted.vmm,
        network_policy: wanted.network.policy,
        network_rules: wanted.network.rules.clone(),
        network_limits: wanted.network.limits,
        forked_from: wanted.origin.fork().map(Fork::told),
        created_at: Timestamp::now(),
        ttl: wanted.ttl.map(|(seconds, action)| Ttl::from_now(seconds, action)),
        seed,
        disk: FIRST_DISK.into(),
        reset_count: 0,
        last_reset_at: None,
    };
    records::write(&path.join(record::NAME), &record)?;
    EventLog::within(&path).append(Happening::Created)?;
    caller.stage("booting", &about).await;
    let lock =
        directory.lock().try_clone().map_err(|error| Error::io("cannot share a lock", error))?;
    let plan = Plan {
        id: record.workspace_id,
        directory: path.clone(),
        lock: &lock,
        bootable: &bootable,
        shape: wanted.shape,
        disk,
        seed: Some(path.join(SEED_NAME)),
        lifetime: Lifetime::Made,
        network: wanted.network.clone(),
        form: Form::Work,
        start: wanted.start,
    };
    // What the record names is to be on the host's disk before it is official.
    let (lease, written) = tokio::join!(
        machine::boot_best(pyro, &plan, attempt, &caller),
        sync(vec![path.join(SEED_NAME), path.join(FIRST_DISK)])
    );
    let lease = lease?;
    written?;
    let place = Place::of(&pyro.config, record.workspace_id);
    // Whoever finds it before it is kept waits until it is.
    let life = directory.life().await?;
    directory.settle(&pyro.config)?;
    // From here on it is there, whatever becomes of its maker.
    directory.hand_over();
    match power::keep(&place, lease).await {
        Ok(()) => {
            if let Some(fork) = wanted.origin.fork() {
                fork.note(place.id()).await;
            }
            Ok(place)
        }
        Err(error) => {
            // That it could not be kept matters more than that it is left.
            drop(power::delete_with(&place, &life, context).await);
            Err(error)
        }
    }
}

impl Origin {
    /// As it is told.
    fn about(&self) -> String {
        match self {
            Self::Environment { name, .. } => name.clone(),
            Self::Workspace(fork) => fork.record().environment.clone(),
        }
    }

    fn fork(&self) -> Option<&Fork> {
        match self {
            Self::Environment { .. } => None,
            Self::Workspace(fork) => Some(fork),
        }
    }

    async fn resolve(&self, pyro: &Pyro) -> Result<Bootable> {
        match self {
            Self::Environment { name, .. } => resolve(pyro, name).await,
            Self::Workspace(fork) => fork.resolve(pyro).await,
        }
    }
}

impl NewWorkspace {
    fn check(&self) -> Result<()> {
        if let Some(name) = &self.name {
            label::check_name(name)?;
        }
        label::check_labels(&self.labels)?;
        self.shape.check()
    }
}

/// Two workspaces of one name could not be told apart by it. Whoever makes two
/// at the same moment can still get them; then both answer to their ids only.
pub(super) fn refuse_taken_name(pyro: &Pyro, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    for place in Place::all(&pyro.config)? {
        if place.record().is_ok_and(|record| record.name.as_deref() == Some(name)) {
            let message = format!("workspace {} is already called {name:?}", place.id());
            return Err(Error::new(ErrorKind::Conflict, message).hint(format!(
                "choose another name, or delete it first: `pyro workspace delete {}`",
                place.id()
            )));
        }
    }
    Ok(())
}

/// Finds what to boot, on a thread of its own: it reads whole images when they
/// are new.
pub(super) async fn resolve(pyro: &Pyro, environment: &str) -> Result<Bootable> {
    let (config, name) = (pyro.config.clone(), environment.to_owned());
    blocking(move || {
        private_dir(&config.cache_dir)?;
        private_dir(&config.state_dir)?;
        Environments::new(&config).resolve(&name)
    })
    .await
}

/// Makes files survive a power failure.
pub(super) async fn sync(files: Vec<PathBuf>) -> Result<()> {
    blocking(move || {
        for file in files {
            File::open(&file)
                .and_then(|open| open.sync_all())
                .map_err(|error| Error::io(format!("cannot write {}", file.display()), error))?;
        }
        Ok(())
    })
    .await
}

/// Builds the seed's image; gives what is written down of it, and warnings.
async fn build_seed(
    source: Source,
    target: PathBuf,
    cancel: CancellationToken,
) -> Result<(Seed, Vec<String>)> {
    blocking(move || {
        let built = seed::build(&source, &target, &cancel)?;
        let (mode, from) = match &source {
            Source::Empty => (SeedMode::Empty, None),
            Source::Directory(path) => (SeedMode::Directory, Some(path)),
            Source::Archive(path) => (SeedMode::TarArchive, Some(path)),
            Source::Git { path, .. } => (SeedMode::Git, Some(path)),
        };
        let seed = Seed {
            mode,
            seed_path: from.map(|from| from.path().display().to_string()),
            destination: GUEST_PATH.into(),
            entry_count: built.entry_count,
            bytes_written: built.bytes_written,
            digest: built.digest,
        };
        Ok((seed, built.warnings))
    })
    .await
}
