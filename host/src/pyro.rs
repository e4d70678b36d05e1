//! The library's handle.

use crate::Config;

/// Everything the library needs to know of this host.
#[derive(Debug, Clone)]
pub struct Pyro {
    /// Where things are.
    pub config: Config,
}

impl Pyro {
    /// Touches nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }
}
