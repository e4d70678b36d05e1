//! Processes of a workspace that outlive their callers, seen from the host.

use super::exec::{unknown_end, unwritten};
use super::history::{Ending, History, Recorder};
use super::live::Live;
use super::machine::Caller;
use crate::agent::kept::Heard;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Stream};
use crate::secret::Redactor;
use crate::secret::redact::{Redacting, Told};
use pyro_protocol::kept::{
    PollProcess, PollUntil, ProcessId, ProcessPolled, ProcessState, SLICE_MAX, Slice,
};
use pyro_protocol::process::Exit;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long one call waits in the guest; a longer wait is made of several, so
/// that a host that is gone is noticed.
const WAIT_STEP: Duration = Duration::from_secs(60);

/// The least time between two of them, should the guest not wait at all. Shorter
/// than what a supervisor takes for the end of all calls.
const WAIT_PACE: Duration = Duration::from_millis(100);

/// How long it may take to fetch the rest of what an ended process wrote: some
/// 16 MiB through a crowded host's channel.
const COMPLETION_DEADLINE: Duration = Duration::from_secs(60);

/// Polls a process; when it has ended, completes its entry in the history.
///
/// # Errors
/// `NotFound` when the guest has no such process.
pub async fn poll(live: &Live, call: PollProcess, context: &Context) -> Result<ProcessPolled> {
    let caller = Caller::from(context);
    let polled = caller.unless_cancelled(live.agent().poll(call)).await;
    let polled = forgotten(live, call.id, polled)?;
    complete(live, call.id, polled.state, context).await;
    Ok(polled)
}

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

/// Waits for a process's end, at most so long; `None` if it has not come by then.
///
/// # Errors
/// `NotFound` when the guest has no such process; `GuestLost` when nobody knows
/// how it ended.
pub async fn wait(
    live: &Live,
    id: ProcessId,
    patience: Option<Duration>,
    context: &Context,
) -> Result<Option<Exit>> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let step = left.unwrap_or(WAIT_STEP).min(WAIT_STEP);
        let call = PollProcess {
            id,
            stdout_cursor: 0,
            stderr_cursor: 0,
            max_bytes: 0,
            wait_ms: u32::try_from(step.as_millis()).unwrap_or(u32::MAX),
            until: PollUntil::End,
        };
        // A guest that answers at once is not asked again at once.
        let pace = Instant::now() + left.map_or(WAIT_PACE, |left| left.min(WAIT_PACE));
        match poll(live, call, context).await?.state {
            ProcessState::Ended { exit } => return Ok(Some(exit)),
            ProcessState::Lost => return Err(unknown_end(id)),
            ProcessState::Running { .. } if left.is_some_and(|left| left.is_zero()) => {
                return Ok(None);
            }
            ProcessState::Running { .. } => sleep_until(pace).await,
        }
    }
}

/// Tells all that a process wrote and writes, as events, until its end; `None`
/// if that does not come in time. Leaving ends nothing.
///
/// # Errors
/// As [`wait`].
pub async fn follow(
    live: &Live,
    id: ProcessId,
    patience: Option<Duration>,
    context: &Context,
) -> Result<Option<Exit>> {
    let events = context.events.clone().without(live.redactor());
    let following = async {
        let following = live.agent().follow(id, (0, 0)).await;
        let hear = |heard| {
            let events = events.clone();
            async move {
                let event = match heard {
                    Heard::Output(stream, bytes) => Event::Output { stream, bytes },
                    Heard::Skipped(stream, bytes) => {
                        events.skip(stream, bytes).await;
                        Event::Warning(format!("{bytes} bytes of {stream} are gone"))
                    }
                };
                events.emit(event).await;
            }
        };
        let state = forgotten(live, id, following)?.finish(hear).await;
        events.settle().await;
        state
    };
    let in_time = async {
        match patience {
            Some(patience) => timeout(patience, following).await.ok().transpose(),
            None => following.await.map(Some),
        }
    };
    let Some(state) = Caller::from(context).unless_cancelled(in_time).await? else {
        return Ok(None);
    };
    complete(live, id, state, context).await;
    match state {
        ProcessState::Ended { exit } => Ok(Some(exit)),
        ProcessState::Running { .. } | ProcessState::Lost => Err(unknown_end(id)),
    }
}

/// Writes down in the history how a process ended and what it wrote since
/// anybody last listened.
async fn complete(live: &Live, id: ProcessId, state: ProcessState, context: &Context) {
    let ending = match state {
        ProcessState::Running { .. } => return,
        ProcessState::Ended { exit } => Ending::of(exit),
        ProcessState::Lost => Ending::lost(&unknown_end(id)),
    };
    let history = History::within(live.path());
    let Some(sequence) = history.of_process(id) else { return };
    let completed = async {
        // Somebody else completes it, or has.
        let Some(mut recorder) = history.resume(sequence)? else { return Ok(()) };
        let mut rest = Rest::after(&recorder, live.redactor());
        let following = async {
            let following = live.agent().follow(id, rest.from).await?;
            let hear = |heard| {
                rest.hear(&mut recorder, heard);
                std::future::ready(())
            };
            following.finish(hear).await
        };
        let overdue = |_| {
            let message = format!("the output of process {id} does not come to an end");
            Err(Error::new(ErrorKind::TimedOut, message))
        };
        // Without all of its output the entry stays open: the next poll tries again.
        timeout(COMPLETION_DEADLINE, following).await.unwrap_or_else(overdue)?;
        rest.finish(&mut recorder);
        recorder.finish(ending)
    };
    if let Err(error) = completed.await {
        context.events.emit(unwritten(&error)).await;
    }
}

/// What is still to be recorded of both streams, without secrets.
struct Rest {
    /// From where on to listen: a little before what is recorded, lest the end of a
    /// secret be taken for something else.
    from: (u64, u64),
    stdout: Redacting,
    stderr: Redacting,
}

impl Rest {
    fn after(recorder: &Recorder, redactor: &Redactor) -> Self {
        let reach = redactor.reach() as u64;
        let begin = |stream| {
            let heard = recorder.heard(stream);
            let from = heard.saturating_sub(reach);
            (from, redactor.stream_after(heard - from))
        };
        let (stdout_from, stdout) = begin(Stream::Stdout);
        let (stderr_from, stderr) = begin(Stream::Stderr);
        Self { from: (stdout_from, stderr_from), stdout, stderr }
    }

    fn of(&mut self, stream: Stream) -> &mut Redacting {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn hear(&mut self, recorder: &mut Recorder, heard: Heard) {
        match heard {
            Heard::Output(stream, bytes) => recorder.push(stream, &self.of(stream).push(bytes)),
            Heard::Skipped(stream, bytes) => {
                let (told, missing) = self.of(stream).skip(bytes);
                recorder.push(stream, &told);
                if missing > 0 {
                    recorder.skip(stream, missing);
                }
            }
        }
    }

    fn finish(mut self, recorder: &mut Recorder) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            recorder.push(stream, &self.of(stream).finish());
        }
    }
}

/// A process that the guest does not know any more has ended somehow: that is
/// written down, and the error says which there are.
///
/// # Errors
/// Those of what was asked.
pub fn forgotten<T>(live: &Live, id: ProcessId, asked: Result<T>) -> Result<T> {
    let error = match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        asked => return asked,
    };
    let history = History::within(live.path());
    let entry = history.of_process(id).and_then(|sequence| history.resume(sequence).ok()?);
    if let Some(recorder) = entry {
        // Should it not be written now, the next who asks writes it.
        drop(recorder.finish(Ending::lost(&error)));
    }
    Err(error.hint(format!("`pyro workspace process list {}` shows those there are", live.id())))
}
