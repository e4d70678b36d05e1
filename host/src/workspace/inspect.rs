//! A workspace's disk, looked at in a throw-away guest: the host neither mounts
//! nor parses what a guest has written. The guest has the disk read-only; what
//! its file system must put right after a crash is kept in the guest's memory.

use super::admission;
use super::directory::Directory;
use super::find::find;
use super::machine::{self, Attempt, Caller, Form, Plan};
use super::place::{Place, SEED_NAME, State};
use super::power::{GOING_DOWN, resolve};
use super::record::Record;
use super::shape::Shape;
use super::template::Start;
use crate::agent::AgentClient;
use crate::context::Context;
use crate::disk;
use crate::egress::Network;
use crate::environment::Bootable;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use crate::pyro::Pyro;
use crate::secret::Redactor;
use crate::store::lock::Lock;
use crate::supervisor::launch::Lease;
use crate::supervisor::{Lifetime, without_vmm};
use crate::vmm::RateLimit;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// The memory of a guest that looks at a disk: what it has to hold are 64 MiB of
/// what would be written, and names.
const MEM_MIB: u32 = 256;

const SHAPE: Shape = Shape {
    vcpu_count: 1,
    mem_mib: MEM_MIB,
    disk_mib: disk::DEFAULT_MIB,
    disk_limit: RateLimit::NONE,
};

/// The file that a guest copies to, in its own directory.
const COPY_NAME: &str = "copy.img";

/// A workspace that does not run, and will not while this is held.
#[derive(Debug)]
pub struct AtRest {
    place: Place,
    record: Record,
    redactor: Redactor,
    _life: Lock,
    _vmm: Lock,
}

impl AtRest {
    /// Finds a workspace that was stopped, or whose guest went away. Others may
    /// look at it, too, meanwhile; whoever wants to start it waits.
    ///
    /// # Errors
    /// `NotFound`, and `Conflict` when it runs or is paused; and when its secrets
    /// cannot be unsealed, for then nobody knows what must not be told.
    pub async fn open(pyro: &Pyro, reference: &str, context: &Context) -> Result<Self> {
        let place = find(&pyro.config, reference)?;
        let redactor = place.redactor()?;
        context.discretion.learn(&redactor);
        let life = place.share_life(context).await?;
        if place.state() == State::Changing {
            // Nobody starts it now: it goes down, and whoever stopped it has left.
            drop(place.take_run(GOING_DOWN).await?);
        }
        match place.state() {
            State::Stopped | State::Crashed | State::Damaged => {}
            state @ (State::Running | State::Paused | State::Changing) => {
                return Err(in_use(&place, state));
            }
        }
        let record = place.record()?;
        let vmm = without_vmm(place.path()).await?;
        Ok(Self { place, record, redactor, _life: life, _vmm: vmm })
    }

    /// Boots a guest that looks at its disk.
    ///
    /// # Errors
    /// Those of [`Inspection::open`].
    pub async fn inspect(&self, pyro: &Pyro, context: &Context) -> Result<Inspection> {
        Inspection::open(pyro, &self.place, &self.record, self.disk(), context).await
    }

    /// The same with a disk that all which is there can be copied to.
    ///
    /// # Errors
    /// Those of [`Inspection::open`].
    pub async fn inspect_to_copy(&self, pyro: &Pyro, context: &Context) -> Result<Inspection> {
        let disk = self.disk();
        Inspection::boot(pyro, &self.place, &self.record, disk, true, context).await
    }

    /// Whose disk it is.
    #[must_use]
    pub fn id(&self) -> WorkspaceId {
        self.place.id()
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What leaves its secrets out of what is told.
    #[must_use]
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    fn disk(&self) -> PathBuf {
        self.place.path().join(&self.record.disk)
    }
}

fn in_use(place: &Place, state: State) -> Error {
    let id = place.id();
    let message = format!(
        "workspace {id} is {}, and its disk is looked at only while it is stopped",
        state.as_str()
    );
    Error::new(ErrorKind::Conflict, message).hint(format!(
        "stop it: `pyro workspace stop {id}`; or look at the running one: \
         `pyro workspace file list {id}`"
    ))
}

/// A guest that looks at a disk of a workspace's. It ends when this is dropped.
pub struct Inspection {
    agent: AgentClient,
    copy: Option<PathBuf>,
    lease: Lease,
    /// What it boots from; kept in the cache meanwhile.
    _bootable: Bootable,
}

impl Inspection {
    /// Boots a guest that looks at a disk of a workspace's: the one that it
    /// has, or a copy of it that is kept. Whoever calls sees to it that nobody
    /// writes that disk meanwhile. The environment need not be in the catalogue any
    /// more, as long as the image that the workspace began with is there.
    ///
    /// # Errors
    /// When the image is gone, the host's memory is promised to others, or no guest
    /// comes up that can read the disk.
    pub async fn open(
        pyro: &Pyro,
        place: &Place,
        record: &Record,
        disk: PathBuf,
        context: &Context,
    ) -> Result<Self> {
        Self::boot(pyro, place, record, disk, false, context).await
    }

    async fn boot(
        pyro: &Pyro,
        place: &Place,
        record: &Record,
        disk: PathBuf,
        copies: bool,
        context: &Context,
    ) -> Result<Self> {
        let caller = Caller::from(context);
        admission::look(&pyro.config, SHAPE.mem_mib)?;
        let attempt = Attempt::first(pyro, record.vmm).await?;
        caller.stage("inspecting", place.id().to_string()).await;
        let bootable = caller.unless_cancelled(resolve(pyro, record)).await?;
        let directory = Directory::create(&pyro.config)?;
        let path = directory.path().to_owned();
        let copy = copies.then(|| path.join(COPY_NAME));
        if let Some(copy) = &copy {
            disk::create_empty(copy, disk::COPY_BYTES)?;
        }
        let plan = Plan {
            id: directory.id(),
            directory: path.clone(),
            lock: directory.lock(),
            bootable: &bootable,
            shape: SHAPE,
            disk,
            seed: Some(place.path().join(SEED_NAME)),
            lifetime: Lifetime::Lease,
            network: Network::default(),
            form: Form::Inspection { copy: copy.clone() },
            start: Start::Quick,
        };
        let lease = machine::boot_best(pyro, &plan, attempt, &caller).await?;
        // From here on the directory is the supervisor's to remove.
        directory.hand_over();
        let agent = AgentClient::new(&path, pyro.deadlines)?;
        Ok(Self { agent, copy, lease, _bootable: bootable })
    }

    /// Its agent: it lists, reads, searches and exports.
    #[must_use]
    pub fn agent(&self) -> &AgentClient {
        &self.agent
    }

    /// The file that it copies to.
    #[must_use]
    pub fn copy(&self) -> Option<&Path> {
        self.copy.as_deref()
    }

    /// What a call came to, once the guest is gone.
    ///
    /// # Errors
    /// The call's; and when the guest does not end.
    pub async fn close<T>(mut self, called: Result<T>, last_words: Duration) -> Result<T> {
        let called = match called {
            // The supervisor knows more than the broken connection tells.
            Err(error) if error.kind() == ErrorKind::GuestLost => {
                Err(timeout(last_words, self.lease.lost()).await.unwrap_or(error))
            }
            called => called,
        };
        let released = self.lease.release().await;
        let done = called?;
        released.map(|()| done)
    }
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspection").field("copy", &self.copy).finish_non_exhaustive()
    }
}
