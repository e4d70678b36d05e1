//! What has changed in a workspace, against its seed; or in the system around
//! it, against its environment.

mod alias;
mod binary;
mod compare;
mod content;
mod hunks;
pub(crate) mod layers;
mod names;
mod pair;
mod render;
mod report;
mod scope;
mod similar;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod walk;
mod xattr;

use crate::guest::Guest;
use crate::log;
use crate::server::Connection;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::diff::{Diff, DiffStarted, DiffSummary};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, Lost};
use scope::Scope;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// Frames that wait for a slow host.
const BACKLOG: usize = 2;

/// Answers `Diff`.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: Diff,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let scope = match Scope::new(guest, call.scope, &call.paths) {
        Ok(scope) => scope,
        Err(error) => return connection.reply::<DiffStarted>(Err(error)).await,
    };
    // The semaphore is never closed.
    let _permit = guest.bulk.acquire().await;
    connection.reply(Ok(DiffStarted)).await?;
    let (frames, mut payloads) = mpsc::channel::<Vec<u8>>(BACKLOG);
    let cancel = Cancel::default();
    let cancelled = cancel.0.clone();
    let walking = tokio::task::spawn_blocking(move || {
        let mut send = |payload| {
            let gone = |_| io::ErrorKind::ConnectionAborted.into();
            frames.blocking_send(payload).map_err(gone)
        };
        report::run(&scope, call.detail, &cancelled, &mut send)
    });
    let Connection { reader, writer } = connection;
    let telling = async {
        while let Some(payload) = payloads.recv().await {
            writer.send_raw(FrameKind::Data, &payload).await?;
        }
        match walking.await.map_err(io::Error::other).flatten() {
            Ok(summary) => writer.send::<DiffSummary>(FrameKind::DataEnd, &summary).await,
            Err(error) => writer.send(FrameKind::Error, &failed(&error)).await,
        }
    };
    tokio::select! {
        told = telling => told,
        // The host has nothing to say here; its closing ends the walk.
        next = reader.next() => match next {
            Ok(frame) => Err(Lost::OutOfPlace { got: frame.kind, wanted: "nothing" }),
            Err(lost) => Err(lost),
        },
    }
}

/// Ends the walk when nobody waits for it any more.
#[derive(Default)]
struct Cancel(Arc<AtomicBool>);

impl Drop for Cancel {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn failed(error: &io::Error) -> AgentError {
    let full =
        [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::OutOfMemory];
    let kind = match full.contains(&error.kind()) {
        true => AgentErrorKind::OutOfResources,
        false => AgentErrorKind::System,
    };
    AgentError::new(kind, format!("comparing: {}", log::Chain(error)))
}
