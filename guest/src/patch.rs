//! Changing a workspace by a patch: all of it or nothing.

mod binary;
mod content;
mod hunk;
mod names;
mod parse;
mod plan;
mod spool;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

use crate::commit::Commits;
use crate::guest::Guest;
use crate::server::Connection;
use plan::Plan;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::diff::{ApplyPatch, PATCH_MAX, PatchApplied};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, Lost};
use spool::Spool;
use std::sync::Arc;

/// Answers `ApplyPatch`. Once the patch has arrived it is worked out to the end,
/// also when nobody waits for it any more: it could be too late to stop.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: ApplyPatch,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let begun = guest.commits().and_then(|commits| {
        let spool = Spool::new(&commits).map_err(|error| tree::fault(b"the patch", &error))?;
        Ok((commits, spool))
    });
    let (commits, mut spool) = match begun {
        Ok(begun) => begun,
        Err(error) => return connection.reply::<PatchApplied>(Err(error)).await,
    };
    loop {
        let frame = connection.reader.next().await?;
        if frame.kind == FrameKind::DataEnd && frame.payload.is_empty() {
            break;
        }
        if frame.kind != FrameKind::Data {
            return Err(Lost::OutOfPlace { got: frame.kind, wanted: "Data or an empty DataEnd" });
        }
        let taken = spool.take(&frame.payload);
        if let Err(error) = taken {
            return connection.reply::<PatchApplied>(Err(error)).await;
        }
    }
    // The semaphore is never closed.
    let _permit = guest.bulk.acquire().await;
    let applying = tokio::task::spawn_blocking(move || apply(&commits, spool, call));
    let applied = applying.await.unwrap_or_else(|error| {
        Err(AgentError::new(AgentErrorKind::System, format!("applying the patch: {error}")))
    });
    connection.reply(applied).await
}

fn apply(
    commits: &Arc<Commits>,
    spool: Spool,
    call: ApplyPatch,
) -> Result<PatchApplied, AgentError> {
    let patch = spool.map().map_err(|error| tree::fault(b"the patch", &error))?;
    let files = parse::parse(patch.bytes())
        .map_err(|error| AgentError::new(AgentErrorKind::InvalidArgument, error.to_string()))?;
    if files.is_empty() {
        let text = match patch.bytes().trim_ascii().is_empty() {
            true => "the patch is empty",
            false => {
                "there is no patch in the text: neither `diff --git` nor `---`, `+++` and `@@ -`"
            }
        };
        return Err(AgentError::new(AgentErrorKind::InvalidArgument, text));
    }
    let _pending = commits.pend();
    let _turn = commits.turn();
    let commit = commits.begin().map_err(|error| tree::fault(b"beginning", &error))?;
    let ApplyPatch { strip, dry_run, reverse } = call;
    Plan::make(commits, commit, patch.bytes(), &files, strip, reverse)?.finish(dry_run)
}

const _: () = assert!(PATCH_MAX >= binary::CONTENT_MAX);

/// Takes any bytes for a patch and applies it to any others, for a fuzzer.
#[doc(hidden)]
pub fn fuzz(patch: &[u8], file: &[u8]) {
    for part in parse::parse(patch).unwrap_or_default() {
        if let parse::Body::Hunks(hunks) = &part.body {
            for reverse in [false, true] {
                // Whether it applies is not the question.
                let mut searching = hunk::Searching::default();
                let _ = hunk::apply(patch, hunks, file, reverse, &mut searching, &mut Vec::new());
            }
        }
    }
}
