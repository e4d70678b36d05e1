//! What the agent knows of the machine it serves.
//!
//! ```text
//! Waiting ──Activate──▶ Activating ──▶ Activated ──PowerOff──▶ PoweringOff
//!    ▲    ──Inspect──▶      │   └─────▶ Inspecting ──PowerOff──▶
//!    │                      │ failed       (PowerOff is taken in any state)
//!    └──────────────────────┘
//! ```

use crate::activate::{Disk, ROOT};
use crate::cgroup::Cgroups;
use crate::commit::Commits;
use crate::log;
use crate::process::kept::Kept;
use crate::process::leash::Registry;
use crate::scratch::Scratch;
use crate::service::Services;
use crate::shell::Shells;
use pyro_protocol::{AgentError, AgentErrorKind, GuestPath};
use rustix::fs::Mode;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Where a workspace is, inside a guest.
pub(crate) const WORKSPACE: &str = "/workspace";

/// Why a guest that only looks does nothing else.
const INSPECTED: &str = "the guest only looks at a disk: nothing is run or changed in it";

/// Where on the workspace's disk the journals of commits are.
const COMMITS: &str = "commits";

/// One machine, or what stands for it in a test.
#[derive(Debug)]
pub struct Guest {
    pub(crate) machine: Machine,
    /// The processes that the agent waits for.
    pub(crate) running: Registry,
    /// Those of them that outlive their connections, and their successors.
    pub(crate) kept: Kept,
    /// What is kept going under a name.
    pub(crate) services: Services,
    /// Terminals that outlive their connections.
    pub(crate) shells: Shells,
    state: Mutex<State>,
    off: watch::Sender<bool>,
    /// Once there is a workspace, and what was interrupted in it was looked at.
    commits: Mutex<Option<Arc<Commits>>>,
}

/// Where a new [`Guest`] begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of a workspace is known; only `Ping`, `Activate` and `PowerOff`
    /// are answered.
    Waiting,
    /// Every call is answered.
    Activated,
}

/// What a guest is given its workspace for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Programs run in it, and it changes.
    Work,
    /// Its disk is looked at.
    Inspection,
}

/// What is beneath the agent.
#[derive(Debug)]
pub(crate) enum Machine {
    /// A machine of its own, with everything in it the agent's to arrange.
    Virtual {
        /// One for each process.
        cgroups: Cgroups,
    },
    /// The caller's own machine, of which nothing may be changed.
    InProcess {
        /// What stands for `/workspace`.
        workspace: PathBuf,
        /// What stands for the workspace's disk.
        disk: Arc<Scratch>,
        /// What the workspace is made of, if it is an overlay.
        layers: Option<LayerPaths>,
        /// What stands for the kernel's network.
        wire: Option<Wire>,
    },
}

/// What stands for the network interface of a guest without a machine: a socket
/// that keeps packets apart, a new one each time that a network is opened.
#[derive(Clone)]
pub struct Wire(Arc<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>);

impl Wire {
    /// The agent's ends of sockets come from here.
    pub fn new(open: impl Fn() -> io::Result<OwnedFd> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        (self.0)()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

/// Where the layers of an overlay are.
#[derive(Debug, Clone)]
pub struct LayerPaths {
    /// The lower layer: what there was before.
    pub lower: PathBuf,
    /// The upper layer.
    pub upper: PathBuf,
    /// The overlay's work directory.
    pub work: PathBuf,
    /// The table of hard links, as it lies in a seed's image.
    pub hard_links: Option<PathBuf>,
}

#[derive(Debug)]
enum State {
    Waiting,
    Activating,
    Activated(Option<Arc<Disk>>),
    Inspecting(Option<Arc<Disk>>),
    PoweringOff,
}

impl Guest {
    /// A guest without a machine: its processes are the caller's children, each
    /// in its own process group; `workspace` stands for `/workspace`; `Activate`
    /// only checks its arguments, and so does `Inspect`, for which the directory
    /// around it stands for the whole tree; power-off is [`Guest::powered_off`].
    pub fn in_process(workspace: impl Into<PathBuf>, phase: Phase) -> Arc<Self> {
        Self::in_process_on(workspace, None, None, phase)
    }

    /// [`Guest::in_process`] that can have a network.
    pub fn in_process_with_wire(
        workspace: impl Into<PathBuf>,
        wire: Wire,
        phase: Phase,
    ) -> Arc<Self> {
        Self::in_process_on(workspace, None, Some(wire), phase)
    }

    /// [`Guest::in_process`] of a workspace that is an overlay, so that it has
    /// something to be compared with.
    pub fn in_process_on_layers(
        workspace: impl Into<PathBuf>,
        layers: LayerPaths,
        phase: Phase,
    ) -> Arc<Self> {
        Self::in_process_on(workspace, Some(layers), None, phase)
    }

    fn in_process_on(
        workspace: impl Into<PathBuf>,
        layers: Option<LayerPaths>,
        wire: Option<Wire>,
        phase: Phase,
    ) -> Arc<Self> {
        let (workspace, disk) = (workspace.into(), Arc::default());
        let machine = Machine::InProcess { workspace, disk, layers, wire };
        let state = match phase {
            Phase::Waiting => State::Waiting,
            Phase::Activated => State::Activated(None),
        };
        Arc::new(Self::new(machine, state))
    }

    /// The same workspace in a machine that was started again: what was running
    /// is unknown to it, what is on disk is there. Of guests that are in process.
    pub fn restarted(&self) -> Option<Arc<Self>> {
        match &self.machine {
            Machine::Virtual { .. } => None,
            Machine::InProcess { workspace, disk, layers, wire } => {
                let (workspace, disk) = (workspace.clone(), disk.clone());
                let (layers, wire) = (layers.clone(), wire.clone());
                let machine = Machine::InProcess { workspace, disk, layers, wire };
                Some(Arc::new(Self::new(machine, State::Activated(None))))
            }
        }
    }

    /// The machine that this process is the agent of. One whose root already is
    /// a workspace's was activated by an agent that died.
    pub fn of_this_machine() -> io::Result<Arc<Self>> {
        let machine = Machine::Virtual { cgroups: Cgroups::open()? };
        let state = match Disk::of_activated_root() {
            Some(disk) => State::Activated(Some(Arc::new(disk?))),
            None => State::Waiting,
        };
        let guest = Self::new(machine, state);
        guest.recover();
        Ok(Arc::new(guest))
    }

    fn new(machine: Machine, state: State) -> Self {
        let off = watch::Sender::new(false);
        Self {
            machine,
            running: Registry::default(),
            kept: Kept::default(),
            services: Services::default(),
            shells: Shells::default(),
            state: Mutex::new(state),
            off,
            commits: Mutex::default(),
        }
    }

    /// Returns when a `PowerOff` call has been answered.
    pub async fn powered_off(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        drop(self.off.subscribe().wait_for(|off| *off).await);
    }

    /// The end, after the reply to `PowerOff` is out.
    pub(crate) fn halt(&self) {
        self.off.send_replace(true);
    }

    /// Whether it has its workspace.
    pub(crate) fn activated(&self) -> bool {
        matches!(*self.state(), State::Activated(_) | State::Inspecting(_))
    }

    /// The top of the whole tree, if that is only looked at.
    pub(crate) fn inspected(&self) -> Option<PathBuf> {
        match *self.state() {
            State::Inspecting(_) => {}
            State::Waiting | State::Activating | State::Activated(_) | State::PoweringOff => {
                return None;
            }
        }
        match &self.machine {
            Machine::Virtual { .. } => Some(ROOT.into()),
            Machine::InProcess { workspace, .. } => workspace.parent().map(Path::to_owned),
        }
    }

    /// The layers of the workspace's trees; `None` without a machine of its own,
    /// or a workspace.
    pub(crate) fn disk(&self) -> Option<Arc<Disk>> {
        match &*self.state() {
            State::Activated(disk) | State::Inspecting(disk) => disk.clone(),
            State::Waiting | State::Activating | State::PoweringOff => None,
        }
    }

    /// Refuses a call that needs a workspace when there is none.
    pub(crate) fn require_activated(&self) -> Result<(), AgentError> {
        match *self.state() {
            State::Activated(_) => Ok(()),
            State::Waiting | State::Activating => {
                Err(wrong_state("the guest has no workspace yet"))
            }
            State::Inspecting(_) => Err(wrong_state(INSPECTED)),
            State::PoweringOff => Err(wrong_state("the guest is powering off")),
        }
    }

    /// Claims the one activation.
    pub(crate) fn begin_activation(&self) -> Result<(), AgentError> {
        let mut state = self.state();
        match *state {
            State::Waiting => {
                *state = State::Activating;
                Ok(())
            }
            State::Activating => Err(wrong_state("the guest is being activated")),
            State::Activated(_) | State::Inspecting(_) => {
                Err(wrong_state("the guest already has its workspace"))
            }
            State::PoweringOff => Err(wrong_state("the guest is powering off")),
        }
    }

    /// Calls are answered from here on, unless it is powering off already.
    pub(crate) fn activation_succeeded(&self, purpose: Purpose, disk: Option<Disk>) {
        let is_fresh = disk.as_ref().is_some_and(Disk::is_fresh);
        let disk = disk.map(Arc::new);
        self.end_activation(match purpose {
            Purpose::Work => State::Activated(disk),
            Purpose::Inspection => State::Inspecting(disk),
        });
        if !is_fresh {
            self.recover();
        }
    }

    /// It can be tried again.
    pub(crate) fn activation_failed(&self) {
        self.end_activation(State::Waiting);
    }

    fn end_activation(&self, next: State) {
        let mut state = self.state();
        match *state {
            State::Activating => *state = next,
            State::PoweringOff | State::Waiting | State::Activated(_) | State::Inspecting(_) => {}
        }
    }

    /// Refuses everything from here on; gives the disk that is to be made
    /// consistent.
    pub(crate) fn begin_power_off(&self) -> Result<Option<Arc<Disk>>, AgentError> {
        match std::mem::replace(&mut *self.state(), State::PoweringOff) {
            // What was only looked at is as it was.
            State::Waiting | State::Activating | State::Inspecting(_) => Ok(None),
            State::Activated(disk) => Ok(disk),
            State::PoweringOff => Err(wrong_state("the guest is powering off")),
        }
    }

    /// A directory on the workspace's disk for the agent alone: no path in the
    /// guest's tree leads there.
    pub(crate) fn private(&self) -> io::Result<OwnedFd> {
        match (&self.machine, &*self.state()) {
            (Machine::InProcess { disk, .. }, _) => disk.open(),
            (
                Machine::Virtual { .. },
                State::Activated(Some(disk)) | State::Inspecting(Some(disk)),
            ) => disk.private(),
            (
                Machine::Virtual { .. },
                State::Activated(None)
                | State::Inspecting(None)
                | State::Waiting
                | State::Activating
                | State::PoweringOff,
            ) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// A directory as this process can reach it; `None` is the workspace.
    pub(crate) fn directory(&self, path: Option<&GuestPath>) -> PathBuf {
        let workspace = match &self.machine {
            Machine::Virtual { .. } => Path::new(WORKSPACE),
            Machine::InProcess { workspace, .. } => workspace,
        };
        let Some(path) = path else {
            return workspace.to_owned();
        };
        let path = Path::new(OsStr::from_bytes(path.as_bytes()));
        // An absolute path replaces; what lies under /workspace goes along.
        workspace.join(path.strip_prefix(WORKSPACE).unwrap_or(path))
    }

    /// What changes many files of the workspace at once. The first time completes
    /// what an agent that died was about to do; if that cannot even be looked
    /// for, nothing is to be changed, and the next call tries again.
    pub(crate) fn commits(&self) -> Result<Arc<Commits>, AgentError> {
        if !self.activated() {
            self.require_activated()?;
        }
        // It is empty or whole, whatever happened to who held it.
        let mut commits = self.commits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commits) = &*commits {
            return Ok(commits.clone());
        }
        let opened = self.open_commits().map_err(|error| {
            let text = format!("opening the workspace: {error}");
            AgentError::new(AgentErrorKind::System, text)
        })?;
        Ok(commits.insert(opened).clone())
    }

    fn open_commits(&self) -> io::Result<Arc<Commits>> {
        let tree = match (&self.machine, self.inspected()) {
            (Machine::Virtual { .. }, Some(top)) => top.join(&WORKSPACE[1..]),
            (Machine::Virtual { .. }, None) | (Machine::InProcess { .. }, _) => {
                self.directory(None)
            }
        };
        let tree = File::open(tree)?.into();
        let private = self.private()?;
        match rustix::fs::mkdirat(&private, COMMITS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let private = crate::beneath::directory(&private, COMMITS.as_bytes())?;
        let commits = Commits::new(tree, private);
        commits.recover()?;
        Ok(commits)
    }

    /// Completes what an agent that died was about to do to the workspace, before
    /// any program is started.
    fn recover(&self) {
        if !self.activated() {
            return;
        }
        if let Err(error) = self.commits() {
            log::warn(format_args!("completing what was interrupted: {error}"));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; were it so, the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wrong_state(message: &str) -> AgentError {
    AgentError::new(AgentErrorKind::WrongState, message)
}
