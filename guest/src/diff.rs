//! What has changed in a workspace, against its seed; or in the system around
//! it, against its environment.

mod alias;
mod binary;
mod compare;
mod content;
mod hunks;
pub(crate) mod layers;
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
use crate::server::{Connection, while_awaited};
use crate::work::{self, Caller};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::diff::{Diff, DiffStarted, DiffSummary};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, Lost};
use scope::Scope;
use std::io;
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
    let turn = while_awaited(&mut connection.reader, work::BULK.take()).await?;
    connection.reply(Ok(DiffStarted)).await?;
    let (frames, mut payloads) = mpsc::channel::<Vec<u8>>(BACKLOG);
    let caller = Caller::default();
    let cancel = caller.cancel();
    let walking = tokio::task::spawn_blocking(move || {
        let mut send = |payload| {
            let gone = |_| io::ErrorKind::ConnectionAborted.into();
            frames.blocking_send(payload).map_err(gone)
        };
        let told = report::run(&scope, call.detail, &cancel, &mut send);
        drop(turn);
        told
    });
    let Connection { reader, writer, .. } = connection;
    let telling = async {
        while let Some(payload) = payloads.recv().await {
            work::BULK.patiently(writer.send_raw(FrameKind::Data, &payload)).await?;
        }
        match walking.await.map_err(io::Error::other).flatten() {
            Ok(summary) => writer.send::<DiffSummary>(FrameKind::DataEnd, &summary).await,
            Err(error) => writer.send(FrameKind::Error, &failed(&error)).await,
        }
    };
    while_awaited(reader, telling).await?
}

fn failed(error: &io::Error) -> AgentError {
    let kind = match content::is_full(error) || error.kind() == io::ErrorKind::OutOfMemory {
        true => AgentErrorKind::OutOfResources,
        false => AgentErrorKind::System,
    };
    AgentError::new(kind, format!("comparing: {}", log::Chain(error)))
}
