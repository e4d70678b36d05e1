//! The proof that a restored guest is there.
//!
//! As Firecracker saves a guest it leaves word in it that all its connections are
//! lost. The guest finds that when it goes on, and closes once whatever it has:
//! also what was opened meanwhile, of which the other end then hears nothing. So
//! no call is sent to it before one has been answered that may be lost.
//!
//! An answered ping is proof: its greeting and the ping itself reach the guest
//! after its connection was answered, each by an interrupt of its own. The word is
//! found with the first interrupt at the latest, and heeded in its turn, which is
//! before that of whatever arrives later. (In Linux both are work in one queue.)

use super::way::Way;
use crate::error::{Error, ErrorKind, Result};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use pyro_protocol::power::Ping;
use std::time::Duration;
use tokio::time::timeout;

/// How long the first try is waited for before another joins it: a guest that is
/// there has answered by then.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long the later ones are at most: each is given twice as long as the one
/// before, since the guest may just be slow.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// Tries that fail at once are that many at most.
const TRIES_MAX: usize = 128;

/// Returns when the guest has answered. Needs a deadline around it.
///
/// # Errors
/// When it refuses again and again.
pub(super) async fn prove(way: &Way) -> Result<()> {
    let mut tries = FuturesUnordered::new();
    let mut patience = PATIENCE;
    let mut last = Error::new(ErrorKind::GuestLost, "the restored guest does not answer");
    for _ in 0..TRIES_MAX {
        tries.push(ping(way));
        match timeout(patience, tries.next()).await {
            Ok(Some(Ok(()))) => return Ok(()),
            // The guest has closed it, and with it whatever it had then.
            Ok(Some(Err(error))) => last = error,
            // It is lost, or slow: then it may still be the first to answer.
            Ok(None) | Err(_) => patience = (2 * patience).min(PATIENCE_MAX),
        }
    }
    Err(last)
}

async fn ping(way: &Way) -> Result<()> {
    way.greet().await?.call(Ping, Duration::MAX).await.map(drop)
}
