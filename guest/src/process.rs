//! `StartProcess`: a program, its streams and its end on one connection.
//!
//! ```text
//! connection ──frames──▶ input ──(at most STDIN_WINDOW)──▶ feed ──▶ stdin
//!     │                    └──Signal──▶ process group
//!     │ closed: kill
//! connection ◀─frames── output ◀── stdout, stderr        lifetime ◀── pidfd
//!                          └── drained after ◀──────────────┘  timeout: kill
//! ```
//!
//! Four futures of one task. None waits for another: a host that does not take
//! output delays neither the time-out nor the cancellation, and a program that
//! does not read its input delays neither signals nor the closing.

pub(crate) mod collect;
pub(crate) mod command;
pub mod environment;
pub(crate) mod fork;
mod input;
pub(crate) mod kept;
pub(crate) mod leash;
mod lifetime;
mod output;
pub mod user;

use crate::guest::Guest;
use crate::server::Connection;
use leash::Leash;
use output::Output;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::process::{Exit, ProcessStarted, StartProcess};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, Lost};
use std::io;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long a program's start waits for a commit: less than the host waits for
/// the start.
const SETTLING: Duration = Duration::from_secs(10);

/// Answers `StartProcess`: from the reply to the `Exit` frame. Whatever makes
/// the connection fail before the end kills all that the program started.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: StartProcess,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let timeout = call.timeout_ms.map(Duration::from_millis);
    let process = match spawn(guest, call).await {
        Ok(process) => process,
        Err(error) => return connection.reply::<ProcessStarted>(Err(error)).await,
    };
    let Process { mut leash, stdin, stdout, stderr } = process;
    let output = Output::new(stdout, stderr);
    let streamed = stream(&leash, stdin, output, timeout, connection).await;
    match streamed {
        Ok(exit) => {
            leash.release();
            connection.writer.send(FrameKind::Exit, &exit).await
        }
        Err(lost) => {
            leash.end().await;
            Err(lost)
        }
    }
}

/// Starts a program. An error means that it never ran.
pub(crate) async fn spawn(guest: &Guest, call: StartProcess) -> Result<Process<'_>, AgentError> {
    settled(guest).await;
    guest.require_activated()?;
    fork::spawn(guest, command::prepare(guest, call)?).await
}

/// Waits until nothing is being changed in many files at once, for as long as
/// a caller would: a program that starts sees all of it or nothing.
pub(crate) async fn settled(guest: &Guest) {
    if let Ok(commits) = guest.commits() {
        // One that takes longer is seen in the making.
        drop(timeout(SETTLING, commits.settled()).await);
    }
}

/// What the system refused, and for want of what.
pub(crate) fn failed(what: &str, error: &io::Error) -> AgentError {
    let kind = match is_exhaustion(error) {
        true => AgentErrorKind::OutOfResources,
        false => AgentErrorKind::System,
    };
    AgentError::new(kind, format!("{what}: {error}"))
}

/// Whether there was not enough of something.
fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ENOSPC | libc::EDQUOT
        )
    )
}

/// A program that runs, and our ends of its streams.
pub(crate) struct Process<'guest> {
    pub(crate) leash: Leash<'guest>,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

async fn stream<R: Fetch, W: Carry>(
    leash: &Leash<'_>,
    stdin: Option<pipe::Sender>,
    mut output: Output,
    timeout: Option<Duration>,
    connection: &mut Connection<R, W>,
) -> Result<Exit, Lost> {
    let started = ProcessStarted { pid: leash.pid() };
    connection.reply(Ok(started)).await?;
    let (mut intake, feed) = input::channel(stdin);
    let taken = feed.taken();
    let (ended, end) = oneshot::channel();
    let conversation = async {
        let lifetime = async {
            let life = lifetime::wait(leash, timeout).await.map_err(Lost::Io)?;
            // The receiver is a part of this very future.
            let _ = ended.send(());
            Ok(life)
        };
        let output = output.forward(&mut connection.writer, &taken, end);
        let (life, ()) = tokio::try_join!(lifetime, output)?;
        life.exit(leash).map_err(Lost::Io)
    };
    tokio::select! {
        // The conversation first: a host that closes once it has the last of
        // the output cancels nothing.
        biased;
        exit = conversation => exit,
        lost = intake.forward(&mut connection.reader, leash) => Err(lost),
        never = feed.run() => match never {},
    }
}
