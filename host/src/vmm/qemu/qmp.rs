//! QEMU's monitor, spoken over a socket that QEMU inherited.
//!
//! Nothing is said on it before something is wanted, so that a boot waits for
//! nothing. QEMU may be its guest's by then: lines and time are bounded, and what
//! it says is believed only of the guest itself.

use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use crate::vmm::Metrics;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The longest line: what is told of three disks takes a fifth of it.
const LINE_MAX: usize = 64 * 1024;

/// How long QEMU may take for what it only has to look up.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long it may take to stop or go on: it waits for what its disks are doing,
/// and writes out what it has not written.
const CHANGE_MAX: Duration = Duration::from_secs(30);

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
        Self { stream: BufReader::new(stream), line: Vec::new(), count: 0 }
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
        timeout(deadline, self.converse(command)).await.unwrap_or_else(|_| {
            let message =
                format!("QEMU did not answer {command:?} within {} s", deadline.as_secs());
            Err(Error::new(ErrorKind::TimedOut, message))
        })
    }

    async fn converse<T: DeserializeOwned>(&mut self, command: &str) -> Result<T> {
        let lost = |error: io::Error| {
            Error::new(ErrorKind::GuestLost, "QEMU's monitor is lost").because(error)
        };
        let malformed = |error: serde_json::Error| {
            let message = format!("what QEMU answers to {command:?} makes no sense");
            Error::new(ErrorKind::Protocol, message).because(error)
        };
        let id = self.send(command).await.map_err(lost)?;
        loop {
            self.next_line().await.map_err(lost)?;
            let head: Head = serde_json::from_slice(&self.line).map_err(malformed)?;
            if head.id == Some(id) {
                break;
            }
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
    async fn send(&mut self, command: &str) -> io::Result<u64> {
        let id = self.count + 1;
        // The first command only ends QEMU's greeting, which nobody waits for.
        let greeting = if id == 1 { "{\"execute\":\"qmp_capabilities\"}\n" } else { "" };
        let line = format!("{greeting}{{\"execute\":\"{command}\",\"id\":{id}}}\n");
        let stream = self.stream.get_ref();
        loop {
            stream.writable().await?;
            // At once or not at all: half a command would spoil the next.
            match stream.try_write(line.as_bytes()) {
                Ok(written) if written == line.len() => {
                    self.count = id;
                    return Ok(id);
                }
                Ok(_) => return Err(io::Error::other("it takes no more commands")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
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

#[cfg(test)]
mod tests;
