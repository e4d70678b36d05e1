//! One kept process, as those who ask about it see it.

use super::shelf::Shelf;
use super::spool::{Extent, Spool, Unreadable};
use pyro_protocol::kept::{KeptProcess, OutputStream, ProcessId, ProcessState, RETAINED, Slice};
use pyro_protocol::{ByteString, process::Exit};
use std::io;
use std::sync::Arc;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

/// Orders on their way to a process; they are carried out at once.
const ORDERS_MAX: usize = 8;

/// One kept process.
pub(super) struct Entry {
    pub(super) id: ProcessId,
    argv: Vec<ByteString>,
    started_at_ns: i64,
    stdout: Spool,
    stderr: Spool,
    status: watch::Sender<Status>,
    orders: mpsc::Sender<Order>,
    /// The input, unless it is closed.
    pub(super) stdin: tokio::sync::Mutex<Option<pipe::Sender>>,
}

/// What changes while it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Status {
    pub(super) state: ProcessState,
    pub(super) stdout_end: u64,
    pub(super) stderr_end: u64,
}

/// What the one that waits for a process does to it for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Send its group this signal.
    Signal(u8),
    /// Kill it, and all it started.
    Kill,
}

impl Status {
    pub(super) fn is_running(&self) -> bool {
        match self.state {
            ProcessState::Running { .. } => true,
            ProcessState::Ended { .. } | ProcessState::Lost => false,
        }
    }
}

impl Entry {
    /// A process that runs, and the orders it is to get.
    pub(super) fn running(
        shelf: &Arc<Shelf>,
        process: KeptProcess,
        stdin: Option<pipe::Sender>,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (orders, receiver) = mpsc::channel(ORDERS_MAX);
        let streams = shelf.streams(process.id, RETAINED);
        (Self::new(process, streams, stdin, orders), receiver)
    }

    /// A process that an agent before this one has kept.
    pub(super) fn old(shelf: &Arc<Shelf>, process: KeptProcess) -> io::Result<Self> {
        let streams = shelf.old_streams(process.id, RETAINED)?;
        let (orders, _) = mpsc::channel(1);
        Ok(Self::new(process, streams, None, orders))
    }

    fn new(
        process: KeptProcess,
        (stdout, stderr): (Spool, Spool),
        stdin: Option<pipe::Sender>,
        orders: mpsc::Sender<Order>,
    ) -> Self {
        let KeptProcess { id, argv, started_at_ns, state, .. } = process;
        let (stdout_end, stderr_end) = (stdout.extent().end, stderr.extent().end);
        let status = watch::Sender::new(Status { state, stdout_end, stderr_end });
        let stdin = tokio::sync::Mutex::new(stdin);
        Self { id, argv, started_at_ns, stdout, stderr, status, orders, stdin }
    }

    /// As lists show it.
    pub(super) fn describe(&self) -> KeptProcess {
        let Status { state, stdout_end, stderr_end } = *self.status.borrow();
        KeptProcess {
            id: self.id,
            argv: self.argv.clone(),
            started_at_ns: self.started_at_ns,
            state,
            stdout_bytes: stdout_end,
            stderr_bytes: stderr_end,
        }
    }

    pub(super) fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// To wait for a change of it.
    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Passes an order on; false when it runs no more.
    pub(super) async fn order(&self, order: Order) -> bool {
        self.status().is_running() && self.orders.send(order).await.is_ok()
    }

    /// It has ended.
    pub(super) fn end(&self, exit: Option<Exit>) {
        let state = exit.map_or(ProcessState::Lost, |exit| ProcessState::Ended { exit });
        self.status.send_modify(|status| status.state = state);
        if let Ok(mut stdin) = self.stdin.try_lock() {
            *stdin = None;
        }
        // Whoever holds the lock does the same when letting go of it.
    }

    /// Blocks; lets everybody know how far the stream has come.
    pub(super) fn drain<T>(
        &self,
        stream: OutputStream,
        drain: impl FnOnce(&Spool) -> (Extent, T),
    ) -> T {
        let (extent, drained) = drain(self.spool(stream));
        self.publish(stream, extent.end);
        drained
    }

    /// Blocks. A cursor that it gives out is known to everybody.
    pub(super) fn read(
        &self,
        stream: OutputStream,
        cursor: u64,
        most: usize,
    ) -> Result<Slice, Unreadable> {
        let slice = self.spool(stream).read(cursor, most)?;
        self.publish(stream, slice.end);
        Ok(slice)
    }

    fn spool(&self, stream: OutputStream) -> &Spool {
        match stream {
            OutputStream::Stdout => &self.stdout,
            OutputStream::Stderr => &self.stderr,
        }
    }

    fn publish(&self, stream: OutputStream, end: u64) {
        self.status.send_if_modified(|status| {
            let known = match stream {
                OutputStream::Stdout => &mut status.stdout_end,
                OutputStream::Stderr => &mut status.stderr_end,
            };
            let is_news = *known < end;
            *known = end.max(*known);
            is_news
        });
    }
}
