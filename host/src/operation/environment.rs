//! Operations on environments.

mod build;
mod import;
mod inspect;
mod list;
mod prune;
mod pull;

pub use build::EnvBuild;
pub use import::EnvImport;
pub use inspect::EnvInspect;
pub use list::{EnvList, EnvListAnswer};
pub use prune::EnvPrune;
pub use pull::EnvPull;
