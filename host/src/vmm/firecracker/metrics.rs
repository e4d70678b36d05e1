//! What Firecracker counts: a line of JSON into a FIFO, once a minute and when it
//! is asked to. Most of its numbers are what came on top since the line before, so
//! none may be missed.

use super::super::Metrics;
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::DIRECTORY;
use rustix::fs::{FileType, Mode, OFlags, mknodat, openat};
use serde::Deserialize;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// The FIFO's name in the VMM's directory.
pub(super) const NAME: &str = "metrics";

/// The longest line: Firecracker's have 8 KiB. What is longer is left out.
const LINE_MAX: usize = 64 * 1024;

/// One line, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    block: Block,
    vsock: Vsock,
}

/// All disks together.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    read_bytes: u64,
    read_count: u64,
    write_bytes: u64,
    write_count: u64,
}

/// Seen from the device: what it received, the guest has sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vsock {
    rx_bytes_count: u64,
    tx_bytes_count: u64,
}

/// How many lines there were, and what they come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    lines: u64,
    metrics: Metrics,
}

/// What one Firecracker has counted; nobody reads on when this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    sum: watch::Receiver<Sum>,
    reading: AbortHandle,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Counted {
    /// Makes the FIFO in a workspace's directory, and reads what comes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let (sender, sum) = watch::channel(Sum::default());
        let fifo = make(&directory.join(DIRECTORY))
            .map_err(|error| Error::io("cannot make a FIFO for the VMM's metrics", error))?;
        let reading = tokio::spawn(read_all(fifo, sender)).abort_handle();
        Ok(Self { sum, reading })
    }

    /// All that was counted, once `flush` has made Firecracker write it down. Needs
    /// a deadline around it.
    ///
    /// # Errors
    /// Those of `flush`.
    pub(super) async fn after(
        &mut self,
        flush: impl Future<Output = Result<()>>,
    ) -> Result<Metrics> {
        let before = self.sum.borrow_and_update().lines;
        flush.await?;
        let sum = self.sum.wait_for(|sum| sum.lines > before).await;
        sum.map(|sum| sum.metrics).map_err(|error| {
            Error::new(ErrorKind::Internal, "nobody reads the VMM's metrics").because(error)
        })
    }
}

fn make(place: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let place = File::open(place)?;
    mknodat(&place, NAME, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = openat(place.as_fd(), NAME, flags, Mode::empty())?;
    // SAFETY: the descriptor is owned and stays the same.
    unsafe { AsyncFd::register(fifo) }.map_err(io::Error::from)
}

async fn read_all(fifo: AsyncFd<OwnedFd>, sum: watch::Sender<Sum>) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; 8192];
    while let Ok(mut ready) = fifo.readable().await {
        match rustix::io::read(fifo.get_ref(), &mut buffer) {
            // Firecracker has gone, or has not come yet; both end us otherwise.
            Ok(0) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Ok(count) => lines.push(&buffer[..count], |line| {
                sum.send_modify(|sum| sum.add(line));
            }),
            Err(_) => return,
        }
    }
}

/// Bytes put together to lines of at most [`LINE_MAX`].
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (end, text) = match piece.split_last() {
                Some((b'\n', text)) => (true, text),
                _ => (false, piece),
            };
            if self.begun.len() + text.len() > LINE_MAX {
                self.too_long = true;
                self.begun.clear();
            } else if !self.too_long {
                self.begun.extend_from_slice(text);
            }
            if end {
                if !std::mem::take(&mut self.too_long) {
                    each(&self.begun);
                }
                self.begun.clear();
            }
        }
    }
}

impl Sum {
    fn add(&mut self, line: &[u8]) {
        let Ok(Line { block, vsock }) = serde_json::from_slice(line) else { return };
        self.lines = self.lines.saturating_add(1);
        let metrics = &mut self.metrics;
        for (sum, more) in [
            (&mut metrics.disk_read_bytes, block.read_bytes),
            (&mut metrics.disk_read_count, block.read_count),
            (&mut metrics.disk_write_bytes, block.write_bytes),
            (&mut metrics.disk_write_count, block.write_count),
            (metrics.vsock_received_bytes.get_or_insert(0), vsock.rx_bytes_count),
            (metrics.vsock_sent_bytes.get_or_insert(0), vsock.tx_bytes_count),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn what_comes_on_top_is_added() {
        let mut sum = Sum::default();
        sum.add(br#"{"block":{"read_bytes":4096,"read_count":1,"queue_event_count":7},"vsock":{"rx_bytes_count":3}}"#);
        sum.add(
            br#"{"block":{"read_bytes":512,"write_bytes":1,"write_count":18446744073709551615}}"#,
        );
        sum.add(br#"{"block":{"write_count":2},"utc_timestamp_ms":1}"#);
        for bad in ["", "{", "7", r#"{"block":{"read_bytes":-1}}"#, r#"{"block":"no"}"#] {
            sum.add(bad.as_bytes());
        }
        let metrics = Metrics {
            disk_read_bytes: 4608,
            disk_read_count: 1,
            disk_write_bytes: 1,
            disk_write_count: u64::MAX,
            vsock_received_bytes: Some(3),
            vsock_sent_bytes: Some(0),
        };
        assert_eq!(sum, Sum { lines: 3, metrics });
    }

    #[tokio::test]
    async fn who_asks_hears_of_what_is_written_then() {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join(DIRECTORY)).expect("made");
        let mut counted = Counted::open(home.path()).expect("a FIFO");
        let fifo = home.path().join(DIRECTORY).join(NAME);
        let mut firecracker = File::options().read(true).write(true).open(fifo).expect("open");
        let write = |line: &str| writeln!(&mut firecracker, "{line}").expect("written");
        let mut write = write;
        write(r#"{"block":{"read_count":1}}"#);
        for expected in [3, 5] {
            let flush = async {
                write(r#"{"block":{"read_count":2}}"#);
            };
            let asked = tokio::time::timeout(std::time::Duration::from_secs(20), async {
                loop {
                    let metrics = counted.after(async { Ok(()) }).await.expect("counted");
                    if metrics.disk_read_count >= expected {
                        return metrics;
                    }
                }
            });
            let ((), metrics) = tokio::join!(flush, asked);
            assert_eq!(metrics.expect("in time").disk_read_count, expected);
        }
    }

    proptest! {
        #[test]
        fn lines_are_lines_however_they_come(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0..200_usize, 0..10),
        ) {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            let mut rest = &text[..];
            for cut in cuts {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                lines.push(now, |line| seen.push(line.to_vec()));
                rest = later;
            }
            lines.push(rest, |line| seen.push(line.to_vec()));
            let mut expected: Vec<_> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            expected.pop();
            prop_assert_eq!(seen, expected);
        }
    }

    #[test]
    fn s4_a_line_without_end_takes_no_memory() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for _ in 0..100 {
            lines.push(&[b'x'; 8192], |line| seen.push(line.to_vec()));
            assert!(lines.begun.capacity() <= 2 * LINE_MAX);
        }
        lines.push(b"\nnext\n", |line| seen.push(line.to_vec()));
        assert_eq!(seen, [b"next".to_vec()]);
    }
}
