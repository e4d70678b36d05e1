//! One stream: see [`super::table`].

use super::header::{HEADER_LEN, Header};
use super::table::Breach;
use super::{QUEUE_MAX, WINDOW, WINDOW_STEP};
use crate::VsockPort;
use crate::carry::Pieces;
use bytes::Bytes;
use std::collections::VecDeque;
use std::task::Waker;
use tokio::sync::OwnedSemaphorePermit;

/// Whether we may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// Not before the stream is accepted, by either side.
    Waiting,
    Open,
    /// What is queued goes, and then the end.
    Ending,
    Ended,
    /// The other side refused the stream or gave it up, or the channel failed.
    Broken,
}

/// Whether there is more to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Theirs {
    Open,
    Ended,
    Reset,
}

/// Whether somebody still holds the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handle {
    Held,
    Dropped,
}

/// What a stream does when its turn comes.
pub(super) enum Step {
    Nothing,
    Say(Header),
    Send(Vec<u8>),
    /// It is over, after this last word.
    Gone(Option<Header>),
}

pub(super) struct Entry {
    pub(super) ours: Ours,
    pub(super) theirs: Theirs,
    pub(super) handle: Handle,
    /// Waits for its turn.
    pub(super) in_turn: bool,
    /// What must be said before all else.
    pub(super) first: Option<Header>,
    /// Received and not yet read.
    inbox: Pieces,
    /// How much the peer may still send.
    room: usize,
    /// Read, and not yet given back as credit.
    taken: usize,
    pub(super) reader: Option<Waker>,
    /// To be sent, each with room for its header.
    pub(super) outbox: VecDeque<Vec<u8>>,
    pub(super) outbox_len: usize,
    /// How much we may still send.
    credit: usize,
    pub(super) writer: Option<Waker>,
    /// Counts the streams that we opened.
    place: Option<OwnedSemaphorePermit>,
}

impl Entry {
    pub(super) fn asked(port: VsockPort, place: OwnedSemaphorePermit) -> Self {
        Self { first: Some(Header::Open(port)), place: Some(place), ..Self::offered() }
    }

    pub(super) fn offered() -> Self {
        Self {
            ours: Ours::Waiting,
            theirs: Theirs::Open,
            handle: Handle::Held,
            in_turn: false,
            first: None,
            inbox: Pieces::default(),
            room: WINDOW,
            taken: 0,
            reader: None,
            outbox: VecDeque::new(),
            outbox_len: 0,
            credit: WINDOW,
            writer: None,
            place: None,
        }
    }

    /// The next bytes, if there are any.
    pub(super) fn take(&mut self, limit: usize) -> Option<Bytes> {
        let piece = self.inbox.take(limit)?;
        self.taken += piece.len();
        Some(piece)
    }

    /// Whether the peer is to hear how much it may send again.
    pub(super) fn owes_credit(&self) -> bool {
        self.taken >= WINDOW_STEP && self.theirs == Theirs::Open
    }

    /// Whether what is first in the queue may go.
    pub(super) fn may_send(&self) -> bool {
        self.outbox.front().is_some_and(|next| next.len() - HEADER_LEN <= self.credit)
    }

    pub(super) fn accepted(&mut self) -> Result<(), Breach> {
        // What the other side wanted itself it cannot accept, nor what it has
        // not heard of.
        if self.ours != Ours::Waiting || self.place.is_none() || self.first.is_some() {
            return Err(Breach("an acceptance of what was not asked for"));
        }
        self.ours = Ours::Open;
        wake(&mut self.writer);
        Ok(())
    }

    pub(super) fn receive(&mut self, data: Vec<u8>) -> Result<(), Breach> {
        if self.theirs != Theirs::Open {
            return Err(Breach("data after the end of a stream"));
        }
        self.room =
            self.room.checked_sub(data.len()).ok_or(Breach("more data than a window holds"))?;
        match self.handle {
            Handle::Held => self.inbox.push(data.into()),
            // Nobody will read it, and the peer hears so in a moment.
            Handle::Dropped => {}
        }
        wake(&mut self.reader);
        Ok(())
    }

    pub(super) fn ended(&mut self) -> Result<(), Breach> {
        if self.theirs != Theirs::Open {
            return Err(Breach("a second end of a stream"));
        }
        self.theirs = Theirs::Ended;
        wake(&mut self.reader);
        Ok(())
    }

    pub(super) fn credited(&mut self, bytes: usize) -> Result<(), Breach> {
        self.credit += bytes;
        if self.credit > WINDOW {
            return Err(Breach("more credit than a window"));
        }
        Ok(())
    }

    /// The peer, or the channel, gave the stream up. What has arrived may still
    /// be read.
    pub(super) fn break_off(&mut self) {
        self.ours = Ours::Broken;
        if self.theirs == Theirs::Open {
            self.theirs = Theirs::Reset;
        }
        self.drop_outbox();
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// The last handle is gone. Only what was finished is still sent.
    pub(super) fn release(&mut self) {
        self.handle = Handle::Dropped;
        self.inbox = Pieces::default();
        if self.ours != Ours::Ending {
            self.drop_outbox();
        }
    }

    fn drop_outbox(&mut self) {
        self.outbox = VecDeque::new();
        self.outbox_len = 0;
    }

    pub(super) fn step(&mut self) -> Step {
        let over = match (self.ours, self.handle) {
            (Ours::Broken, Handle::Dropped) => return Step::Gone(None),
            (Ours::Broken, Handle::Held) => return Step::Nothing,
            (Ours::Waiting | Ours::Open | Ours::Ended, Handle::Dropped) => true,
            (Ours::Ending, Handle::Dropped) | (_, Handle::Held) => false,
        };
        if let Some(first) = self.first.take() {
            // Also when it is over already: a stream that the peer never heard
            // of cannot be reset.
            return Step::Say(first);
        }
        if over {
            let both_ended = self.ours == Ours::Ended && self.theirs == Theirs::Ended;
            return Step::Gone((!both_ended).then_some(Header::Reset));
        }
        if self.owes_credit() && self.handle == Handle::Held {
            let taken = std::mem::take(&mut self.taken);
            self.room += taken;
            return Step::Say(Header::Credit(taken));
        }
        if self.may_send()
            && let Some(buffer) = self.outbox.pop_front()
        {
            let length = buffer.len() - HEADER_LEN;
            self.credit -= length;
            self.outbox_len -= length;
            if self.outbox_len < QUEUE_MAX {
                wake(&mut self.writer);
            }
            return Step::Send(buffer);
        }
        if self.ours == Ours::Ending && self.outbox.is_empty() {
            self.ours = Ours::Ended;
            return Step::Say(Header::End);
        }
        Step::Nothing
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
