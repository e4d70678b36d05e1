//! Builds environments: a tree of packages, then an image with the agent in it,
//! then a kernel; each stage is skipped when its result is there and whole.
//!
//! Everything is made in a staging directory and put in place by one rename; the
//! record that says which image is current is written last. A crash at any
//! instruction leaves the old environment, and garbage for the next to sweep.

use super::known::Known;
use super::manifest::{BakedAgent, Current, Manifest, TreeRecord, parse_packages};
use super::recipe::{Name, Recipe};
use super::script::{ROOT, Run};
use super::{Environment, Environments, IMAGE, MANIFEST, failure, kernel};
use crate::blocking::blocking;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::store::lock::{Lock, Mode};
use crate::store::private_dir;
use crate::store::record::{self, RecordError};
use crate::store::shelf::{self, Existing, Held};
use crate::store::staging::Staging;
use crate::store::verify;
use crate::vmm::KernelFlavor;
use jiff::Timestamp;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const TREE: &str = "root.tar";
const PACKAGES: &str = "root.packages";
const TREE_RECORD: &str = "tree.json";

const TREE_DEADLINE: Duration = Duration::from_secs(60 * 60);
const IMAGE_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// How long to wait for another builder of the same thing: as long as the
/// slowest stage may take, and some.
const BUILDER_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// The unpacked packages, their archives and the tar, of the largest built-in
/// environment.
const TREE_ROOM: u64 = 3 << 30;
/// What an image needs besides twice its tree.
const IMAGE_ROOM: u64 = 128 << 20;

const TREE_PROGRAMS: &[(&str, &str)] =
    &[("bash", "bash"), ("mmdebstrap", "mmdebstrap"), ("tar", "tar"), ("awk", "mawk")];
const IMAGE_PROGRAMS: &[(&str, &str)] =
    &[("bash", "bash"), ("mkfs.erofs", "erofs-utils"), ("tar", "tar")];
/// What stands in for root.
const ROOTLESS_PROGRAMS: &[(&str, &str)] = &[("newuidmap", "uidmap"), ("unshare", "util-linux")];

/// How to build.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Trusts nothing that is there and makes it again: the packages and the
    /// image of an environment, or a kernel.
    pub force: bool,
}

impl Environments {
    /// Makes an environment bootable: what is missing, damaged or made from
    /// other inputs is made again.
    ///
    /// # Errors
    /// When the environment is unknown, the host lacks a program or room, a
    /// script fails, or it is cancelled. Then everything is as before.
    pub async fn build(
        &self,
        name: &str,
        options: BuildOptions,
        events: &Events,
        cancellation: &CancellationToken,
    ) -> Result<Environment> {
        let recipe = self.recipe(name)?;
        let mut task = Task::new(self, options, events, cancellation)?;
        let _lock = task.lock_environment(&recipe.name).await?;
        ensure_image(&task, recipe).await?;
        task.ensure_kernel().await?;
        self.inspect(name)
    }

    /// Makes sure that the kernel of a flavor is there.
    ///
    /// # Errors
    /// As [`Environments::build`].
    pub async fn build_kernel(
        &self,
        flavor: KernelFlavor,
        options: BuildOptions,
        events: &Events,
        cancellation: &CancellationToken,
    ) -> Result<()> {
        let task = Task::new(self, options, events, cancellation)?;
        kernel::ensure(&task, flavor).await
    }

    /// What the tree of a recipe is made from.
    pub(super) fn tree_key(&self, recipe: &Recipe) -> Digest {
        let script = self.scripts.digest(&[ROOT]);
        let packages = recipe.packages.join(",");
        let epoch = recipe.source_date_epoch.to_string();
        Digest::of_parts([&recipe.suite, &packages, &epoch, &script.to_string()])
    }
}

/// One build under way.
pub(super) struct Task<'a> {
    pub(super) environments: &'a Environments,
    pub(super) staging: Staging,
    options: BuildOptions,
    events: &'a Events,
    cancellation: &'a CancellationToken,
}

/// The agent that this build bakes in.
pub(super) struct Agent {
    pub(super) path: PathBuf,
    pub(super) digest: Digest,
}

impl<'a> Task<'a> {
    pub(super) fn new(
        environments: &'a Environments,
        options: BuildOptions,
        events: &'a Events,
        cancellation: &'a CancellationToken,
    ) -> Result<Self> {
        private_dir(&environments.config.cache_dir)?;
        private_dir(&environments.environment_dir())?;
        private_dir(environments.kernels.dir())?;
        environments.sweep();
        let staging = Staging::new(&environments.staging_dir())?;
        Ok(Self { environments, staging, options, events, cancellation })
    }

    /// Takes the lock of whoever makes an environment's image.
    pub(super) async fn lock_environment(&self, name: &Name) -> Result<Lock> {
        let dir = self.environments.environment_dir();
        self.lock(&dir.join(format!("{}.lock", name.file_stem())), name.as_str()).await
    }

    /// Makes sure that there is something to boot an image with. All environments
    /// share it: one that is whole is not made again.
    pub(super) async fn ensure_kernel(&mut self) -> Result<()> {
        self.options.force = false;
        kernel::ensure_any(self).await
    }

    /// Who changes their mind by it.
    pub(super) fn cancellation(&self) -> &CancellationToken {
        self.cancellation
    }

    /// Who is told.
    pub(super) fn events(&self) -> &'a Events {
        self.events
    }

    /// Takes a builder's lock, saying so when it has to wait.
    pub(super) async fn lock(&self, path: &Path, subject: &str) -> Result<Lock> {
        if let Some(lock) = Lock::try_take(path, Mode::Exclusive)? {
            return Ok(lock);
        }
        self.stage("waiting for another build", subject).await;
        tokio::select! {
            lock = Lock::take(path, Mode::Exclusive, BUILDER_MAX) => lock,
            () = self.cancellation.cancelled() => {
                Err(Error::new(ErrorKind::Cancelled, format!("building {subject} was cancelled")))
            }
        }
    }

    pub(super) async fn stage(&self, name: &'static str, subject: &str) {
        self.events.emit(Event::Stage { name, subject: subject.to_owned() }).await;
    }

    /// Tells what is wrong with something that will be made again.
    pub(super) async fn warn(&self, problem: &(dyn std::error::Error + Sync)) {
        self.events.emit(Event::Warning(format!("{problem}; it is made again"))).await;
    }

    /// Refuses to start what could not end.
    pub(super) fn require(&self, doing: &str, programs: &[(&str, &str)], room: u64) -> Result<()> {
        let config = &self.environments.config;
        let missing: Vec<_> = programs
            .iter()
            .copied()
            .filter(|(program, _)| self.environments.find_program(program).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(failure::programs(doing, &missing));
        }
        let free = (self.environments.free_bytes)(&config.cache_dir)?;
        if free < room {
            return Err(failure::no_room(doing, &config.cache_dir, room, free));
        }
        Ok(())
    }

    /// A directory for the temporary files of scripts.
    pub(super) fn temporary(&self) -> PathBuf {
        self.staging.path().join("tmp")
    }

    pub(super) async fn run(
        &self,
        script: &'static str,
        arguments: Vec<OsString>,
        temporary: Option<PathBuf>,
        doing: String,
        deadline: Duration,
    ) -> Result<()> {
        let run = Run {
            scripts: &self.environments.scripts,
            script,
            arguments,
            staging: &self.staging,
            path: self.environments.program_path(),
            temporary,
            doing,
            deadline,
        };
        run.run(self.events, self.cancellation).await
    }

    /// A copy of the agent: what is hashed is then what is baked in, even if it
    /// is compiled again meanwhile.
    pub(super) async fn agent(&self) -> Result<Agent> {
        let from = self.environments.config.agent.clone();
        let path = self.staging.path().join("pyro-agent");
        let to = path.clone();
        let digest = blocking(move || {
            from.copy_to(&to).and_then(|()| Digest::of_file(&to)).map_err(|error| {
                let message = format!("there is no usable pyro-agent at {from}");
                Error::new(ErrorKind::HostRequirement, message)
                    .hint("install it beside pyro, or set PYRO_AGENT to where it is")
                    .because(error)
            })
        })
        .await?;
        Ok(Agent { path, digest })
    }

    /// Holds a finished directory if the file in it is whole and may be used.
    pub(super) async fn intact(
        &self,
        dir: &Path,
        file: &str,
        digest: Digest,
        size: u64,
    ) -> Result<Option<Held>> {
        if self.options.force {
            return Ok(None);
        }
        let Some(held) = shelf::hold(dir)? else { return Ok(None) };
        let path = dir.join(file);
        match blocking(move || Ok(verify::verify(&path, digest, size))).await? {
            Ok(()) => Ok(Some(held)),
            Err(fault) => {
                let problem = failure::corrupt(&dir.join(file), fault, "");
                self.warn(&problem).await;
                Ok(None)
            }
        }
    }

    /// Whether an image is whole.
    pub(super) async fn intact_image(&self, manifest: &Manifest) -> Result<bool> {
        let dir = self.environments.image_dir(manifest.root_digest);
        let intact = self.intact(&dir, IMAGE, manifest.root_digest, manifest.root_size);
        Ok(intact.await?.is_some())
    }

    /// Puts a finished directory on a shelf by its content. What lies there
    /// already stays if it is whole: guests may have it open.
    pub(super) async fn shelve(
        &self,
        finished: &Path,
        to: &Path,
        file: &str,
        digest: Digest,
        size: u64,
    ) -> Result<Held> {
        let (finished, to, file) = (finished.to_owned(), to.to_owned(), to.join(file));
        blocking(move || {
            let existing = match verify::verify(&file, digest, size) {
                Ok(()) => Existing::Keep,
                Err(_) => Existing::Replace,
            };
            shelf::publish(&finished, &to, existing)
        })
        .await
    }
}

/// Makes a finished file read-only and hashes it.
pub(super) async fn settle(file: PathBuf) -> Result<(Digest, u64)> {
    blocking(move || {
        fs::set_permissions(&file, Permissions::from_mode(0o444))
            .and_then(|()| Ok((verify::measure(&file)?, file.metadata()?.len())))
            .map_err(|error| Error::io(format!("a build left no {}", file.display()), error))
    })
    .await
}

/// Makes sure that the current image of a recipe is there and up to date.
async fn ensure_image(task: &Task<'_>, recipe: &Recipe) -> Result<()> {
    let environments = task.environments;
    let agent = task.agent().await?;
    match environments.read_current(&recipe.name) {
        Ok(manifest)
            if environments
                .outdated(&Known::Recipe(recipe), &manifest, Some(agent.digest))
                .is_empty() =>
        {
            let dir = environments.image_dir(manifest.root_digest);
            let intact = task.intact(&dir, IMAGE, manifest.root_digest, manifest.root_size).await?;
            if intact.is_some() {
                return Ok(());
            }
        }
        Ok(_) | Err(RecordError::Missing { .. }) => {}
        Err(error) => task.warn(&error).await,
    }
    let (tree, held) = ensure_tree(task, recipe).await?;
    build_image(task, recipe, &agent, &tree, &held).await
}

async fn ensure_tree(task: &Task<'_>, recipe: &Recipe) -> Result<(TreeRecord, Held)> {
    let key = task.environments.tree_key(recipe);
    let dir = task.environments.tree_dir(key);
    match record::read::<TreeRecord>(&dir.join(TREE_RECORD)) {
        Ok(tree) => {
            if let Some(held) = task.intact(&dir, TREE, tree.digest, tree.size).await? {
                return Ok((tree, held));
            }
        }
        Err(RecordError::Missing { .. }) => {}
        Err(error) => task.warn(&error).await,
    }

    let name = recipe.name.as_str();
    let doing = format!("bootstrapping {name}");
    let is_root = rustix::process::geteuid().is_root();
    task.require(&doing, &with_rootless(TREE_PROGRAMS, is_root), TREE_ROOM)?;
    task.stage("bootstrapping", name).await;
    let made = task.staging.path().join("tree");
    private_dir(&made)?;
    let arguments = vec![
        "tree".into(),
        recipe.suite.clone().into(),
        recipe.packages.join(",").into(),
        recipe.source_date_epoch.to_string().into(),
        made.join(TREE).into(),
    ];
    // Without root, mmdebstrap works as a subordinate user, who cannot enter
    // our directories.
    let temporary = is_root.then(|| task.temporary());
    task.run(ROOT, arguments, temporary, doing, TREE_DEADLINE).await?;

    let (digest, size) = settle(made.join(TREE)).await?;
    let packages = fs::read_to_string(made.join(PACKAGES))
        .map_err(|error| Error::io("root.sh left no list of packages", error))?;
    let tree = TreeRecord {
        environment: recipe.name.clone(),
        digest,
        size,
        built_at: Timestamp::now(),
        packages: parse_packages(&packages),
    };
    record::write(&made.join(TREE_RECORD), &tree)?;
    let held = blocking(move || shelf::publish(&made, &dir, Existing::Replace)).await?;
    Ok((tree, held))
}

async fn build_image(
    task: &Task<'_>,
    recipe: &Recipe,
    agent: &Agent,
    tree: &TreeRecord,
    tree_dir: &Held,
) -> Result<()> {
    let environments = task.environments;
    let name = recipe.name.as_str();
    let doing = format!("making the image of {name}");
    let is_root = rustix::process::geteuid().is_root();
    let room = tree.size.saturating_mul(2).saturating_add(IMAGE_ROOM);
    task.require(&doing, &with_rootless(IMAGE_PROGRAMS, is_root), room)?;
    task.stage("making the image", name).await;
    let made = task.staging.path().join("image");
    private_dir(&made)?;
    let arguments = vec![
        "image".into(),
        tree_dir.path().join(TREE).into(),
        agent.path.clone().into(),
        recipe.source_date_epoch.to_string().into(),
        made.join(IMAGE).into(),
    ];
    task.run(ROOT, arguments, Some(task.temporary()), doing, IMAGE_DEADLINE).await?;

    let (digest, size) = settle(made.join(IMAGE)).await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest {
        environment: recipe.name.clone(),
        root_digest: digest,
        root_size: size,
        tree_key: environments.tree_key(recipe),
        tree_digest: tree.digest,
        agent: BakedAgent { digest: agent.digest, version: version.clone() },
        builder: environments.scripts.digest(&[ROOT]),
        built_by: version,
        built_at: Timestamp::now(),
        packages: tree.packages.clone(),
        origin: None,
        defaults: None,
    };
    record::write(&made.join(MANIFEST), &manifest)?;
    let dir = environments.image_dir(digest);
    let held = task.shelve(&made, &dir, IMAGE, digest, size).await?;
    // The same bytes may have lain there, made from other inputs.
    if made.exists() {
        record::write(&held.path().join(MANIFEST), &manifest)?;
    }
    let environment = recipe.name.clone();
    let current = Current { environment, root_digest: digest, origin: None, blobs: Vec::new() };
    record::write(&environments.current_path(&recipe.name), &current)
}

fn with_rootless<'a>(programs: &[(&'a str, &'a str)], is_root: bool) -> Vec<(&'a str, &'a str)> {
    let rootless = if is_root { &[] } else { ROOTLESS_PROGRAMS };
    programs.iter().chain(rootless).copied().collect()
}
