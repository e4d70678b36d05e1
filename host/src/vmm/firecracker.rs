//! Firecracker, on KVM.

use super::{Machine, Place, Started, Vmm};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The program's name on `PATH`.
const PROGRAM: &str = "firecracker";

/// Its companion, which confines it as root; it lies beside it.
const JAILER: &str = "jailer";

/// Firecracker, as it is installed on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firecracker {
    /// The program.
    pub program: PathBuf,
    /// The jailer that came with it.
    pub jailer: Option<PathBuf>,
}

impl Vmm for Firecracker {
    fn start<'a>(
        &'a self,
        _machine: &'a Machine,
        _place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        Box::pin(async { Err(super::unsupported("be started yet")) })
    }
}

/// Finds Firecracker on this host: the one that the user named, else the one on
/// `PATH`.
pub(super) fn find(config: &Config) -> Result<Firecracker> {
    let missing = |what: String| {
        Error::new(ErrorKind::HostRequirement, what)
            .hint("`pyro setup` fetches it; or set PYRO_FIRECRACKER to where it is")
    };
    let program = match &config.firecracker {
        Some(path) if path.is_file() => path.clone(),
        Some(path) => {
            let message = format!("PYRO_FIRECRACKER names {}, which is not a file", path.display());
            return Err(missing(message));
        }
        None => config
            .find_program(PROGRAM)
            .ok_or_else(|| missing("Firecracker is not installed".into()))?,
    };
    let jailer = Some(program.with_file_name(JAILER)).filter(|jailer| jailer.is_file());
    Ok(Firecracker { program, jailer })
}
