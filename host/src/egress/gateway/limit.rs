//! What a guest may have at the same time, and how fast it may ask for more.

use super::rate::{Bandwidth, Rate};
use crate::egress::NetworkLimits;
use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Connections that the host has not made yet.
const CONNECTING_MAX: usize = 128;

/// New flows at once, and a second: beyond what a parallel build or a crawler
/// asks for.
const NEW_BURST: u32 = 512;
const NEW_PER_SECOND: u32 = 256;

/// Names at once, and a second. An installer asks for a few; who carries data in
/// names asks for thousands.
const NAMES_BURST: u32 = 200;
const NAMES_PER_SECOND: u32 = 20;

/// Names that the host's servers are asked for at the same time.
const LOOKUPS_MAX: usize = 64;

/// The buffer of a flow, each way, while there is room.
const BUFFER_MAX: usize = 256 * 1024;

/// And when there is none.
const BUFFER_MIN: usize = 16 * 1024;

/// Room that flows share before they get the least.
const ROOM: usize = 8 << 20;

/// A flow gets this part of what room is left, each way.
const SHARE: usize = 32;

const _: () = assert!(ROOM / SHARE == BUFFER_MAX);

/// What waits for a guest that takes nothing: enough to keep the channel busy.
const UNSENT_MAX: usize = 1 << 20;

/// The least of it: two of the longest packets, so that answers have room beside a
/// download.
const UNSENT_MIN: usize = 128 << 10;

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Flows at the same time.
    Flows,
    /// Connections that are being made.
    Connecting,
    /// New ones a second.
    Rate,
}

/// Which way bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the guest.
    Up,
    /// To it.
    Down,
}

impl NetworkLimits {
    /// How much may wait for the guest: with a limit on what passes a second,
    /// answers would wait behind a queue for long.
    pub(super) fn unsent_max(self) -> usize {
        let quarter = |kib: NonZeroU32| usize::try_from(kib.get()).unwrap_or(usize::MAX) << 8;
        self.down_kib_per_second.map_or(UNSENT_MAX, quarter).clamp(UNSENT_MIN, UNSENT_MAX)
    }
}

/// What is in use.
pub(super) struct Limits {
    pub connecting: usize,
    pub lookups: usize,
    room: usize,
    new: Rate,
    names: Rate,
    up: Option<Bandwidth>,
    down: Option<Bandwidth>,
    wanted: NetworkLimits,
}

impl Limits {
    pub fn new(wanted: NetworkLimits, now: Instant) -> Self {
        let bandwidth = |limit: Option<NonZeroU32>| {
            limit.map(|kib| Bandwidth::new(kib, tokio::time::Instant::now()))
        };
        Self {
            up: bandwidth(wanted.up_kib_per_second),
            down: bandwidth(wanted.down_kib_per_second),
            wanted,
            connecting: 0,
            lookups: 0,
            room: ROOM,
            new: Rate::new(NEW_BURST, NEW_PER_SECOND, now),
            names: Rate::new(NAMES_BURST, NAMES_PER_SECOND, now),
        }
    }

    /// Lets bytes pass; gives how long the next are to wait.
    pub fn pass(&mut self, way: Way, bytes: usize) -> Duration {
        let bandwidth = match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        };
        match bandwidth {
            Some(bandwidth) => bandwidth.pass(bytes, tokio::time::Instant::now()),
            None => Duration::ZERO,
        }
    }

    /// See [`NetworkLimits::unsent_max`].
    pub fn unsent_max(&self) -> usize {
        self.wanted.unsent_max()
    }

    /// Everything has ended at once. What was asked for is not forgotten.
    pub fn none_in_use(&mut self) {
        (self.connecting, self.lookups, self.room) = (0, 0, ROOM);
    }

    /// Whether there may be one flow more than so many.
    pub fn admit(&mut self, flows: usize, now: Instant) -> Result<(), Limit> {
        if flows >= self.wanted.flows_max() as usize {
            return Err(Limit::Flows);
        }
        if self.connecting >= CONNECTING_MAX {
            return Err(Limit::Connecting);
        }
        if self.new.take(now) { Ok(()) } else { Err(Limit::Rate) }
    }

    /// Whether one name more may be asked for.
    pub fn admit_name(&mut self, now: Instant) -> bool {
        self.lookups < LOOKUPS_MAX && self.names.take(now)
    }

    /// Takes the buffers of a flow: what they hold, each way. The first flows get
    /// large ones, many get small ones, so that all together stay small.
    pub fn take_room(&mut self) -> usize {
        let buffer = (self.room / SHARE).clamp(BUFFER_MIN, BUFFER_MAX);
        self.room = self.room.saturating_sub(2 * buffer);
        buffer
    }

    /// Gives them back.
    pub fn give_room(&mut self, buffer: usize) {
        self.room = (self.room + 2 * buffer).min(ROOM);
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flows => "flows",
            Self::Connecting => "connecting",
            Self::Rate => "rate",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::FLOWS_MAX;

    #[test]
    fn however_many_flows_there_are_their_buffers_stay_small() {
        let mut limits = Limits::new(NetworkLimits::default(), Instant::now());
        let buffers: Vec<_> = (0..FLOWS_MAX as usize).map(|_| limits.take_room()).collect();
        assert_eq!(buffers[0], BUFFER_MAX);
        let of = |count: usize| buffers[..count].iter().map(|buffer| 2 * buffer).sum::<usize>();
        assert!(of(200) < 14 << 20, "{}", of(200));
        assert!(of(FLOWS_MAX as usize) < 24 << 20, "{}", of(FLOWS_MAX as usize));
    }
}
