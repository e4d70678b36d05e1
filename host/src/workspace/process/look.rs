//! What a process has written, as far as it may be told.

use super::poll;
use crate::context::Context;
use crate::error::Result;
use crate::secret::redact::Told;
use crate::workspace::Live;
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

/// Consecutive bytes of a stream, without secrets. Where they begin and end is
/// told in bytes as the program wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSlice {
    /// The cursor of the first byte.
    pub start: u64,
    /// What there is to tell.
    pub told: Told,
    /// How many bytes the stream has had so far.
    pub end: u64,
}

/// Polls a process for what may be told. What may be the beginning of a secret is
/// waited for like all that has not come yet.
///
/// # Errors
/// As [`poll`].
pub async fn look(live: &Live, call: PollProcess, context: &Context) -> Result<Seen> {
    let reach = u32::try_from(live.redactor().reach()).unwrap_or(u32::MAX);
    let deadline = Instant::now() + Duration::from_millis(call.wait_ms.into());
    let wanted = call.max_bytes as usize;
    // More than is told, to see secrets that go on.
    let max_bytes = call.max_bytes.saturating_add(reach).min(SLICE_MAX);
    let call = PollProcess { max_bytes, ..call };
    let mut polled = poll(live, call, context).await?;
    loop {
        let is_running = matches!(polled.state, ProcessState::Running { .. });
        let ends = (end(&polled.stdout), end(&polled.stderr));
        let (before_stdout, before_stderr) = before(live, call.id, &polled, context).await?;
        let see = |slice: Slice, before: Vec<u8>| {
            let more = is_running || end(&slice) < slice.end;
            let from = before.len();
            let bytes = [before, slice.data.0].concat();
            let part = from..from.saturating_add(wanted);
            let told = live.redactor().window(&bytes, part, more);
            SeenSlice { start: slice.start, told, end: slice.end }
        };
        let has_news = ends != (polled.stdout.start, polled.stderr.start);
        let state = polled.state;
        let (stdout, stderr) =
            (see(polled.stdout, before_stdout), see(polled.stderr, before_stderr));
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

/// The cursor after a slice.
fn end(slice: &Slice) -> u64 {
    slice.start.saturating_add(slice.data.0.len() as u64)
}

/// What comes before two slices, as far as it says something about them.
async fn before(
    live: &Live,
    id: ProcessId,
    polled: &ProcessPolled,
    context: &Context,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let reach = u32::try_from(live.redactor().reach()).unwrap_or(u32::MAX);
    let is_needed = |slice: &Slice| slice.start > 0 && !slice.data.0.is_empty();
    if reach == 0 || !(is_needed(&polled.stdout) || is_needed(&polled.stderr)) {
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
    // What is gone by now says nothing any more.
    let up_to = |earlier: Slice, slice: &Slice| {
        let length = slice.start.saturating_sub(earlier.start);
        let mut bytes = earlier.data.0;
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        if earlier.start.saturating_add(bytes.len() as u64) == slice.start {
            bytes
        } else {
            Vec::new()
        }
    };
    Ok((up_to(earlier.stdout, &polled.stdout), up_to(earlier.stderr, &polled.stderr)))
}
