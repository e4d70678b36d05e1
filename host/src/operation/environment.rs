//! Operations on environments.

mod build;
mod inspect;
mod list;
mod prune;

pub use build::EnvBuild;
pub use inspect::EnvInspect;
pub use list::{EnvList, EnvListAnswer};
pub use prune::EnvPrune;
