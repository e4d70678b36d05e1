//! What a process has written, as far as it may be told.

use super::poll;
use crate::context::Context;
use crate::error::Result;
use crate::workspace::Live;
use crate::workspace::seen::{SeenSlice, before, is_preceded, reach};
use pyro_protocol::kept::{
    PollProcess, PollUntil, ProcessId, ProcessPolled, ProcessState, SLICE_MAX, Slice,
};
use std::time::Duration;
use tokio::time::Instant;

/// How a process is, and what it wrote, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whether it runs.
    pub state: ProcessState,
    /// Of its standard output.
    pub stdout: SeenSlice,
    /// Of its standard error.
    pub stderr: SeenSlice,
}

/// Polls a process for what may be told. What may be the beginning of a secret is
/// waited for like all that has not come yet.
///
/// # Errors
/// As [`poll`].
pub async fn look(live: &Live, call: PollProcess, context: &Context) -> Result<Seen> {
    let deadline = Instant::now() + Duration::from_millis(call.wait_ms.into());
    let wanted = call.max_bytes as usize;
    // More than is told, to see secrets that go on.
    let max_bytes = call.max_bytes.saturating_add(reach(live)).min(SLICE_MAX);
    let call = PollProcess { max_bytes, ..call };
    let mut polled = poll(live, call, context).await?;
    loop {
        let is_running = matches!(polled.state, ProcessState::Running { .. });
        let ends = (polled.stdout.next_cursor(), polled.stderr.next_cursor());
        let (before_stdout, before_stderr) = surroundings(live, call.id, &polled, context).await?;
        let has_news = ends != (polled.stdout.start, polled.stderr.start);
        let state = polled.state;
        let stdout = SeenSlice::of(live, polled.stdout, before_stdout, wanted, is_running);
        let stderr = SeenSlice::of(live, polled.stderr, before_stderr, wanted, is_running);
        let is_held = has_news && stdout.told.taken + stderr.told.taken == 0;
        let left = deadline.saturating_duration_since(Instant::now());
        if !is_held || !is_running || left.is_zero() {
            return Ok(Seen { state, stdout, stderr });
        }
        let wait_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        let (stdout_cursor, stderr_cursor) = ends;
        poll(live, PollProcess { stdout_cursor, stderr_cursor, wait_ms, ..call }, context).await?;
        polled = poll(live, PollProcess { wait_ms: 0, ..call }, context).await?;
    }
}

/// What comes before two slices, as far as it says something about them.
async fn surroundings(
    live: &Live,
    id: ProcessId,
    polled: &ProcessPolled,
    context: &Context,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let reach = reach(live);
    if reach == 0 || !(is_preceded(&polled.stdout) || is_preceded(&polled.stderr)) {
        return Ok((Vec::new(), Vec::new()));
    }
    let cursor = |slice: &Slice| slice.start.saturating_sub(reach.into());
    let call = PollProcess {
        id,
        stdout_cursor: cursor(&polled.stdout),
        stderr_cursor: cursor(&polled.stderr),
        max_bytes: reach,
        wait_ms: 0,
        until: PollUntil::Output,
    };
    let earlier = poll(live, call, context).await?;
    Ok((before(earlier.stdout, &polled.stdout), before(earlier.stderr, &polled.stderr)))
}
