//! Memory for what comes in large pieces: each connection may hold one, and
//! there are hundreds.

use pyro_protocol::FrameKind;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What calls may take together that are longer than [`SMALL`].
const CALLS_MAX: usize = 8 * 1024 * 1024;

/// What output on its way to the host may take together, in pieces larger than
/// one frame.
const OUTPUT_MAX: usize = 8 * 1024 * 1024;

/// What is not counted: as much for every connection is 4 MiB.
const SMALL: usize = 16 * 1024;

/// Room is given by so many bytes.
const STEP: usize = 1024;

// One call alone always has room.
const _: () = assert!(FrameKind::Call.limit() <= CALLS_MAX && SMALL <= CALLS_MAX);

/// For calls; who finds none waits.
pub(crate) static CALLS: Room = Room::new(CALLS_MAX);

/// For output; who finds none takes a frame at a time.
pub(crate) static OUTPUT: Room = Room::new(OUTPUT_MAX);

/// So many bytes for all.
pub(crate) struct Room(Semaphore);

/// Some of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    _steps: Option<SemaphorePermit<'static>>,
}

impl Room {
    const fn new(bytes: usize) -> Self {
        Self(Semaphore::const_new(bytes / STEP))
    }

    /// Waits until there are so many bytes, which are not more than there can be.
    pub(crate) async fn take(&'static self, bytes: usize) -> Share {
        if bytes <= SMALL {
            return Share { _steps: None };
        }
        // Nobody closes it; were it so, there would be no room to wait for.
        Share { _steps: self.0.acquire_many(steps(bytes)).await.ok() }
    }

    /// So many bytes, if there are.
    pub(crate) fn try_take(&'static self, bytes: usize) -> Option<Share> {
        self.0.try_acquire_many(steps(bytes)).ok().map(|steps| Share { _steps: Some(steps) })
    }
}

fn steps(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(STEP)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    #[test]
    fn s4_what_does_not_fit_waits_for_what_is_there() {
        static TWO: Room = Room::new(2 * SMALL * STEP);
        let half = SMALL * STEP;
        let mut cx = Context::from_waker(Waker::noop());
        let (first, second) = (TWO.try_take(half), TWO.try_take(half));
        assert!(first.is_some() && second.is_some() && TWO.try_take(1).is_none());
        let mut large = pin!(TWO.take(half));
        assert!(large.as_mut().poll(&mut cx).is_pending());
        let small = pin!(TWO.take(SMALL));
        assert!(matches!(small.poll(&mut cx), Poll::Ready(_)), "it takes next to nothing");
        drop(first);
        assert!(matches!(large.poll(&mut cx), Poll::Ready(_)));
    }
}
