//! What a guest's programs have written, on its disk.

use super::AgentClient;
use crate::error::Result;
use pyro_protocol::power::SyncDisk;
use std::time::Duration;

/// How long a guest may take to write out what its programs have written.
const SYNC_MAX: Duration = Duration::from_secs(120);

impl AgentClient {
    /// Has everything written out that programs have written by now.
    ///
    /// # Errors
    /// `TimedOut` when the guest is not done in time; when its disk fails.
    pub async fn sync_disk(&self) -> Result<()> {
        self.call(SyncDisk, SYNC_MAX).await.map(drop)
    }
}
