use crate::secret::Redactor;
use std::sync::{Arc, OnceLock};

/// What must not be told of a request: the secrets of the workspace that it is
/// about, which whoever opens that learns for all who tell.
#[derive(Debug, Clone, Default)]
pub struct Discretion(Arc<OnceLock<Redactor>>);

impl Discretion {
    /// From here on these are left out.
    pub fn learn(&self, redactor: &Redactor) {
        // A request is about one workspace.
        self.0.get_or_init(|| redactor.clone());
    }

    /// What leaves them out, if they are known.
    #[must_use]
    pub fn redactor(&self) -> Option<Redactor> {
        self.0.get().cloned()
    }
}
