//! The library's front door.

use crate::config::Config;
use crate::confine;
use crate::deadlines::Deadlines;
use crate::supervisor::launch::Launcher;
use crate::workspace::{directory, expired};

/// Everything pyro can do on this host; cheap to clone.
#[derive(Debug, Clone)]
pub struct Pyro {
    /// Where things are.
    pub config: Config,
    /// How supervisors come to be.
    pub launcher: Launcher,
    /// How long guests may take.
    pub deadlines: Deadlines,
}

impl Pyro {
    /// Works on this host as configured. First removes what was left of
    /// one-shot runs whose owner was killed, workspaces that were to be deleted
    /// by now, and the cgroups of VMMs whose supervisors were killed.
    #[must_use]
    pub fn new(config: Config) -> Self {
        directory::sweep(&config);
        expired::sweep(&config);
        confine::sweep();
        Self { config, launcher: Launcher::Process, deadlines: Deadlines::default() }
    }
}
