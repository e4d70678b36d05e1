//! QEMU's monitor, spoken over a socket that QEMU inherited.
//!
//! Nothing is said on it before something is wanted, so that a boot waits for
//! nothing. QEMU may be its guest's by then: lines and time are bounded, and what
//! it says is believed only of the guest itself.

use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use crate::vmm::Metrics;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::future::pending;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The longest line: what is told of three disks takes a fifth of it.
const LINE_MAX: usize = 64 * 1024;

/// How long QEMU may take for what it only has to look up.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long it may take to stop or go on: it waits for what its disks are doing,
/// and writes out what it has not written.
const CHANGE_MAX: Duration = Duration::from_secs(30);

/// What QEMU calls the file that it saves a machine's state to.
const STATE: &str = "state";

/// The most of QEMU's own words that an error shows.
const WORDS_MAX: usize = 200;

/// A monitor. Every call can be dropped midway; what QEMU answers to it later is
/// skipped.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    /// A line, or the beginning of one whose end has not come yet.
    line: Vec<u8>,
    /// How many commands were given.
    count: u64,
    /// How many lines came before an answer that were none.
    skipped: u64,
}

/// The part of a line that says what it answers. Events and the greeting answer
/// nothing.
#[derive(Deserialize)]
struct Head {
    id: Option<u64>,
}

/// An answer: one of the two.
#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    value: Option<T>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

/// An answer of which nothing is of interest.
#[derive(Deserialize)]
struct Done {}

#[derive(Deserialize)]
struct Status {
    running: bool,
}

/// How far saving or restoring a machine is.
#[derive(Deserialize)]
struct Migration {
    #[serde(default)]
    status: Option<String>,
    #[serde(rename = "error-desc", default)]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Disk {
    stats: DiskCounts,
}

#[derive(Deserialize)]
struct DiskCounts {
    rd_bytes: u64,
    rd_operations: u64,
    wr_bytes: u64,
    wr_operations: u64,
}

impl Monitor {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream), line: Vec::new(), count: 0, skipped: 0 }
    }

    /// Makes the guest stand still.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let Done {} = self.ask("stop", CHANGE_MAX).await?;
        self.expect_running(false).await
    }

    /// Lets it go on.
    pub(super) async fn cont(&mut self) -> Result<()> {
        let Done {} = self.ask("cont", CHANGE_MAX).await?;
        self.expect_running(true).await
    }

    /// Saves what processors and devices are to a file, while the guest stands
    /// still for good. Its memory is in a file of its own.
    pub(super) async fn save(&mut self, state: BorrowedFd<'_>) -> Result<()> {
        self.share_memory().await?;
        let named = json!({ "fdname": STATE });
        let Done {} = self.ask_with("getfd", &named, Some(state), ANSWER_MAX).await?;
        let to = json!({ "uri": format!("fd:{STATE}") });
        let Done {} = self.ask_with("migrate", &to, None, ANSWER_MAX).await?;
        self.migrated().await
    }

    /// Restores a machine that waits for that, from a descriptor that QEMU
    /// inherited. It goes on by itself.
    pub(super) async fn restore(&mut self, state: RawFd) -> Result<()> {
        self.share_memory().await?;
        let from = json!({ "uri": format!("fd:{state}") });
        let Done {} = self.ask_with("migrate-incoming", &from, None, ANSWER_MAX).await?;
        self.migrated().await
    }

    /// Leaves memory out of what is saved and restored, and tells about either.
    async fn share_memory(&mut self) -> Result<()> {
        let on = |capability| json!({ "capability": capability, "state": true });
        let wanted = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
        let Done {} = self.ask_with("migrate-set-capabilities", &wanted, None, ANSWER_MAX).await?;
        Ok(())
    }

    async fn migrated(&mut self) -> Result<()> {
        let waiting = async {
            loop {
                let skipped = self.skipped;
                let Migration { status, error } = self.ask("query-migrate", ANSWER_MAX).await?;
                match status.as_deref() {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => {
                        let why = error.as_deref().map_or(String::new(), |error| {
                            format!(": {}", guest_text::escaped(error, WORDS_MAX))
                        });
                        let message = format!("QEMU could not move the machine's state{why}");
                        return Err(Error::new(ErrorKind::Internal, message));
                    }
                    // What it told before it answered may be newer than the answer.
                    Some(_) | None if self.skipped != skipped => {}
                    // It tells when that changes.
                    Some(_) | None => self.next_line().await.map_err(lost)?,
                }
            }
        };
        timeout(CHANGE_MAX, waiting).await.unwrap_or_else(|_| {
            let seconds = CHANGE_MAX.as_secs();
            let message = format!("QEMU did not move the machine's state within {seconds} s");
            Err(Error::new(ErrorKind::TimedOut, message))
        })
    }

    async fn expect_running(&mut self, wanted: bool) -> Result<()> {
        let Status { running } = self.ask("query-status", ANSWER_MAX).await?;
        if running == wanted {
            return Ok(());
        }
        let still = if running { "goes on" } else { "stands still" };
        Err(Error::new(ErrorKind::Internal, format!("QEMU obeyed, and the guest still {still}")))
    }

    /// What QEMU counted.
    pub(super) async fn metrics(&mut self) -> Result<Metrics> {
        let disks: Vec<Disk> = self.ask("query-blockstats", ANSWER_MAX).await?;
        let sum = |count: fn(&DiskCounts) -> u64| {
            disks.iter().fold(0_u64, |sum, disk| sum.saturating_add(count(&disk.stats)))
        };
        Ok(Metrics {
            disk_read_bytes: sum(|disk| disk.rd_bytes),
            disk_read_count: sum(|disk| disk.rd_operations),
            disk_write_bytes: sum(|disk| disk.wr_bytes),
            disk_write_count: sum(|disk| disk.wr_operations),
            vsock_received_bytes: None,
            vsock_sent_bytes: None,
        })
    }

    /// Takes in what QEMU tells unasked, lest it pile up there: a guest can cause
    /// events. Can be dropped at any time.
    pub(super) async fn heed_nothing(&mut self) -> Infallible {
        while self.next_line().await.is_ok() {}
        pending().await
    }

    async fn ask<T: DeserializeOwned>(&mut self, command: &str, deadline: Duration) -> Result<T> {
        self.ask_with(command, &Value::Null, None, deadline).await
    }

    /// With arguments, and a descriptor that they are about.
    async fn ask_with<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &Value,
        passed: Option<BorrowedFd<'_>>,
        deadline: Duration,
    ) -> Result<T> {
        timeout(deadline, self.converse(command, arguments, passed)).await.unwrap_or_else(|_| {
            let message =
                format!("QEMU did not answer {command:?} within {} s", deadline.as_secs());
            Err(Error::new(ErrorKind::TimedOut, message))
        })
    }

    async fn converse<T: DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: &Value,
        passed: Option<BorrowedFd<'_>>,
    ) -> Result<T> {
        let malformed = |error: serde_json::Error| {
            let message = format!("what QEMU answers to {command:?} makes no sense");
            Error::new(ErrorKind::Protocol, message).because(error)
        };
        let id = self.send(command, arguments, passed).await.map_err(lost)?;
        loop {
            self.next_line().await.map_err(lost)?;
            let head: Head = serde_json::from_slice(&self.line).map_err(malformed)?;
            if head.id == Some(id) {
                break;
            }
            self.skipped += 1;
        }
        let Answer { value, error } = serde_json::from_slice(&self.line).map_err(malformed)?;
        if let Some(Refusal { desc }) = error {
            let desc = guest_text::escaped(&desc, WORDS_MAX);
            let message = format!("QEMU refused {command:?}: {desc}");
            return Err(Error::new(ErrorKind::Internal, message));
        }
        value.ok_or_else(|| malformed(serde::de::Error::missing_field("return")))
    }

    /// Gives a command, and its number.
    async fn send(
        &mut self,
        command: &str,
        arguments: &Value,
        passed: Option<BorrowedFd<'_>>,
    ) -> io::Result<u64> {
        let id = self.count + 1;
        // The first command only ends QEMU's greeting, which nobody waits for.
        let greeting = if id == 1 { "{\"execute\":\"qmp_capabilities\"}\n" } else { "" };
        let arguments =
            if arguments.is_null() { String::new() } else { format!("\"arguments\":{arguments},") };
        let line = format!("{greeting}{{\"execute\":\"{command}\",{arguments}\"id\":{id}}}\n");
        let stream = self.stream.get_ref();
        let write = || write_with(stream.as_fd(), line.as_bytes(), passed);
        // At once or not at all: half a command would spoil the next.
        match stream.async_io(Interest::WRITABLE, write).await? {
            written if written == line.len() => {
                self.count = id;
                Ok(id)
            }
            _ => Err(io::Error::other("it takes no more commands")),
        }
    }

    /// Reads the next line, or on where a future that was dropped left off.
    async fn next_line(&mut self) -> io::Result<()> {
        if self.line.ends_with(b"\n") {
            self.line.clear();
        }
        let room = LINE_MAX.saturating_sub(self.line.len());
        (&mut self.stream).take(room as u64).read_until(b'\n', &mut self.line).await?;
        if self.line.ends_with(b"\n") {
            Ok(())
        } else if self.line.len() < LINE_MAX {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a line without end"))
        }
    }
}

fn lost(error: io::Error) -> Error {
    Error::new(ErrorKind::GuestLost, "QEMU's monitor is lost").because(error)
}

/// Writes, with a descriptor that comes along.
fn write_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    passed: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let passed = passed.as_slice();
    if !passed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(passed)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests;
