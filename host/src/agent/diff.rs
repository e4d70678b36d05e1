//! What has changed in the guest, and changing it by a patch.

use super::AgentClient;
use crate::error::{Error, ErrorKind, Result};
use pyro_protocol::FrameKind;
use pyro_protocol::diff::{
    ApplyPatch, Diff, DiffRecord, DiffStarted, DiffSummary, PATCHED_MAX, PatchApplied,
};
use tokio::io::AsyncRead;

impl AgentClient {
    /// Compares, and hands each entry and each piece of the patch to `hear` as
    /// it comes. While `hear` waits, so does the guest. Dropping the future ends
    /// the comparison.
    pub async fn diff<H: Future<Output = ()>>(
        &self,
        request: Diff,
        mut hear: impl FnMut(DiffRecord) -> H,
    ) -> Result<DiffSummary> {
        let mut connection = self.connect().await?;
        connection.send_call(request).await?;
        // How long others' diffs take comes before the first word.
        super::reply(connection.next().await?, FrameKind::Reply).map(|_: DiffStarted| ())?;
        loop {
            let frame = connection.next().await?;
            if frame.kind != FrameKind::Data {
                return super::reply(frame, FrameKind::DataEnd);
            }
            let records: Vec<DiffRecord> = frame.decode(FrameKind::Data).map_err(super::lost)?;
            for record in records {
                hear(record).await;
            }
        }
    }

    /// Applies a patch, all of it or nothing.
    pub async fn apply_patch(
        &self,
        request: ApplyPatch,
        patch: impl AsyncRead + Unpin,
    ) -> Result<PatchApplied> {
        let applied = self.connect().await?.call_with_content(request, patch).await?;
        if applied.entries.len() > PATCHED_MAX {
            let message = "the guest told of more files than it may";
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        Ok(applied)
    }
}
