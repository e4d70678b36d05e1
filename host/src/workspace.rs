//! Stub: the noun behind `run`.

use crate::{Context, Error, ErrorKind, Pyro, Result};
use pyro_protocol::{GuestPath, process::Outcome};
use std::time::Duration;

/// A program to run in a fresh machine.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// What to boot.
    pub environment: String,
    /// Virtual CPUs.
    pub vcpu_count: u32,
    /// Memory.
    pub mem_mib: u32,
    /// The writable disk, when not the default.
    pub disk_mib: Option<u64>,
    /// What to run.
    pub program: Program,
}

/// What to run in a guest.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<Vec<u8>>,
    /// Where.
    pub cwd: Option<GuestPath>,
    /// Variables on top of the guest's own.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// As whom.
    pub user: Option<String>,
    /// For how long.
    pub timeout: Option<Duration>,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The machine's id.
    pub id: String,
    /// How the program ended.
    pub outcome: Outcome,
    /// From the request to the agent's announcement.
    pub boot: Duration,
    /// How long the program ran.
    pub took: Duration,
}

/// Runs a program in a fresh machine and removes the machine.
///
/// # Errors
/// Always, in this stub.
pub async fn run(_pyro: &Pyro, request: RunRequest, _context: Context) -> Result<Ran> {
    Err(Error::new(
        ErrorKind::EnvironmentMissing,
        format!("environment `{}` is not built", request.environment),
    )
    .hint(format!("`pyro env build {}` builds it", request.environment)))
}
