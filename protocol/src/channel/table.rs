//! What is known of every stream: its queues, its credit, its ends. No I/O.
//!
//! ```text
//! ours    Waiting ──accept──▶ Open ──finish──▶ Ending ──all sent──▶ Ended
//!             └──────────┴───Reset from the peer──┴────▶ Broken
//! theirs  Open ──End──▶ Ended         Open ──Reset──▶ Reset
//! ```
//!
//! A stream goes once its handle is gone and nothing is left to say about it.
//! What the peer still sends for it then is skipped.

use super::entry::{Entry, Ours, Step, Theirs};
use super::header::{HEADER_LEN, Header, StreamId};
use super::{LINGERING_MAX, OPENED_BY_GUEST_MAX, QUEUE_MAX, REFUSALS_MAX};
use crate::VsockPort;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};
use tokio::sync::OwnedSemaphorePermit;

/// What a peer did that no peer of ours does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Breach(pub(super) &'static str);

/// Every stream of a channel.
pub(super) struct Table {
    /// Few at most times, and no hash to compute for each frame.
    entries: BTreeMap<StreamId, Entry>,
    /// Streams that may have something to say, in turn.
    turns: VecDeque<StreamId>,
    /// Streams of the peer's that there was no place for.
    refused: VecDeque<StreamId>,
    next_own: StreamId,
    last_theirs: StreamId,
    theirs: usize,
    theirs_max: usize,
    driver: Option<Waker>,
    over: bool,
}

/// A stream that the peer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) id: StreamId,
    pub(super) port: VsockPort,
}

/// What is to be sent next: a header alone, or with the data it heads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    Header([u8; HEADER_LEN]),
    Data(Vec<u8>),
}

impl Table {
    pub(super) fn new(is_host: bool) -> Self {
        Self {
            entries: BTreeMap::new(),
            turns: VecDeque::new(),
            refused: VecDeque::new(),
            next_own: if is_host { 1 } else { 2 },
            last_theirs: 0,
            theirs: 0,
            theirs_max: if is_host { OPENED_BY_GUEST_MAX } else { LINGERING_MAX },
            driver: None,
            over: false,
        }
    }

    /// Whom to wake when there is something to send.
    pub(super) fn register(&mut self, driver: &Waker) {
        match &mut self.driver {
            Some(known) => known.clone_from(driver),
            none @ None => *none = Some(driver.clone()),
        }
    }

    /// Nothing will move any more: everybody who waits hears of it.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.entries.values_mut().for_each(Entry::break_off);
    }

    /// Asks for a stream; `None` when the channel is over or out of numbers.
    pub(super) fn open(
        &mut self,
        port: VsockPort,
        place: OwnedSemaphorePermit,
    ) -> Option<StreamId> {
        if self.over {
            return None;
        }
        let id = self.next_own;
        self.next_own = id.checked_add(2)?;
        self.entries.insert(id, Entry::asked(port, place));
        self.turn(id);
        Some(id)
    }

    /// Waits until the other side has taken the stream.
    pub(super) fn poll_opened(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let entry = self.entry(id)?;
        match entry.ours {
            Ours::Waiting => {
                entry.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Ours::Broken => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Ours::Open | Ours::Ending | Ours::Ended => Poll::Ready(Ok(())),
        }
    }

    /// Takes an offered stream.
    pub(super) fn accept(&mut self, id: StreamId) {
        if let Ok(entry) = self.entry(id)
            && entry.ours == Ours::Waiting
        {
            entry.ours = Ours::Open;
            entry.first = Some(Header::Accept);
            self.turn(id);
        }
    }

    /// The next bytes of a stream, at most `limit`; none at its end.
    pub(super) fn poll_take(
        &mut self,
        id: StreamId,
        cx: &Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<Bytes>> {
        let entry = self.entry(id)?;
        if let Some(piece) = entry.take(limit) {
            if entry.owes_credit() {
                self.turn(id);
            }
            return Poll::Ready(Ok(piece));
        }
        match entry.theirs {
            Theirs::Ended => Poll::Ready(Ok(Bytes::new())),
            Theirs::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Theirs::Open => {
                entry.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits until a stream's queue has room.
    pub(super) fn poll_room(&mut self, id: StreamId, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let entry = self.entry(id)?;
        match entry.ours {
            Ours::Open if entry.outbox_len >= QUEUE_MAX => {
                entry.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Ours::Open => Poll::Ready(Ok(())),
            Ours::Waiting | Ours::Ending | Ours::Ended | Ours::Broken => {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        }
    }

    /// Queues what [`Table::poll_room`] let through: [`HEADER_LEN`] bytes of
    /// room, then at least one byte and at most a unit.
    pub(super) fn queue(&mut self, id: StreamId, buffer: Vec<u8>) {
        if let Ok(entry) = self.entry(id) {
            entry.outbox_len += buffer.len() - HEADER_LEN;
            entry.outbox.push_back(buffer);
            if entry.may_send() {
                self.turn(id);
            }
        }
    }

    /// Nothing more will be written to the stream.
    pub(super) fn finish(&mut self, id: StreamId) {
        if let Ok(entry) = self.entry(id)
            && entry.ours == Ours::Open
        {
            entry.ours = Ours::Ending;
            self.turn(id);
        }
    }

    /// The stream's last handle is gone: what was not finished is given up.
    pub(super) fn release(&mut self, id: StreamId) {
        if let Ok(entry) = self.entry(id) {
            entry.release();
            self.turn(id);
            if self.over {
                self.entries.remove(&id);
            }
        }
    }

    /// What the peer sent. `data` is as long as a [`Header::Data`] says, and
    /// empty with every other header.
    pub(super) fn receive(
        &mut self,
        id: StreamId,
        header: Header,
        data: Vec<u8>,
    ) -> Result<Option<Offer>, Breach> {
        if let Header::Open(port) = header {
            return self.offered(id, port);
        }
        // Of a stream that we have let go.
        let Some(entry) = self.entries.get_mut(&id) else { return Ok(None) };
        match header {
            Header::Open(_) => {}
            Header::Accept => entry.accepted()?,
            Header::Data(_) => entry.receive(data)?,
            Header::End => entry.ended()?,
            Header::Reset => {
                entry.break_off();
                self.turn(id);
            }
            Header::Credit(bytes) => {
                entry.credited(bytes)?;
                if entry.may_send() {
                    self.turn(id);
                }
            }
        }
        Ok(None)
    }

    fn offered(&mut self, id: StreamId, port: VsockPort) -> Result<Option<Offer>, Breach> {
        if id % 2 == self.next_own % 2 || id <= self.last_theirs {
            return Err(Breach("a stream with a number that is not its turn"));
        }
        self.last_theirs = id;
        if self.theirs < self.theirs_max {
            self.theirs += 1;
            self.entries.insert(id, Entry::offered());
            return Ok(Some(Offer { id, port }));
        }
        if self.refused.len() >= REFUSALS_MAX {
            return Err(Breach("streams without end, and no refusal is read"));
        }
        self.refused.push_back(id);
        Ok(None)
    }

    /// What is to be sent next, one stream after the other.
    pub(super) fn next(&mut self) -> Option<Outgoing> {
        if let Some(id) = self.refused.pop_front() {
            return Some(Outgoing::Header(Header::Reset.to_bytes(id)));
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.in_turn = false;
            let said = match entry.step() {
                Step::Say(header) => Outgoing::Header(header.to_bytes(id)),
                Step::Send(mut buffer) => {
                    let header = Header::Data(buffer.len() - HEADER_LEN).to_bytes(id);
                    buffer[..HEADER_LEN].copy_from_slice(&header);
                    Outgoing::Data(buffer)
                }
                Step::Nothing => continue,
                Step::Gone(last) => {
                    self.forget(id);
                    match last {
                        Some(header) => return Some(Outgoing::Header(header.to_bytes(id))),
                        None => continue,
                    }
                }
            };
            self.turn(id);
            return Some(said);
        }
        None
    }

    fn forget(&mut self, id: StreamId) {
        self.entries.remove(&id);
        if id % 2 != self.next_own % 2 {
            self.theirs -= 1;
        }
    }

    fn entry(&mut self, id: StreamId) -> io::Result<&mut Entry> {
        self.entries.get_mut(&id).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Lets a stream speak when its turn comes.
    fn turn(&mut self, id: StreamId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && !std::mem::replace(&mut entry.in_turn, true)
        {
            self.turns.push_back(id);
            if let Some(driver) = &self.driver {
                driver.wake_by_ref();
            }
        }
    }
}
