//! Changing a workspace by a patch: all of it or nothing.

mod binary;
mod content;
mod hunk;
mod names;
mod parse;
mod place;
mod plan;
mod spool;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

use crate::commit::Commits;
use crate::guest::Guest;
use crate::server::Connection;
use crate::work::{self, Cancel, Stop};
use plan::Plan;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::diff::{ApplyPatch, PATCH_MAX, PatchApplied};
use pyro_protocol::{AgentError, AgentErrorKind, Lost};
use spool::Spool;
use std::sync::Arc;

/// Answers `ApplyPatch`. A caller that goes away is told nothing and changes
/// nothing, unless the changing has begun.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: ApplyPatch,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let commits = guest.commits();
    let received = work::receive(connection, move |mut content, _| {
        let commits = commits?;
        let mut spool = Spool::new(&commits).map_err(|error| tree::fault(b"the patch", &error))?;
        while let Some(bytes) = content.bytes()? {
            spool.take(&bytes)?;
        }
        Ok((commits, spool))
    });
    let (commits, spool) = match received.await? {
        Ok(received) => received,
        Err(error) => return connection.reply::<PatchApplied>(Err(error)).await,
    };
    let applying = work::BULK.run(connection, move |cancel| apply(&commits, spool, call, cancel));
    let applied = applying.await?;
    connection.reply(applied).await
}

fn apply(
    commits: &Arc<Commits>,
    spool: Spool,
    call: ApplyPatch,
    cancel: &Cancel,
) -> Result<PatchApplied, Stop> {
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
        return Err(AgentError::new(AgentErrorKind::InvalidArgument, text).into());
    }
    let _turn = commits.turn()?;
    cancel.check()?;
    let ApplyPatch { strip, dry_run, reverse } = call;
    let begun = if dry_run { commits.rehearse() } else { commits.begin() };
    let commit = begun.map_err(|error| tree::fault(b"beginning", &error))?;
    let plan = Plan::make(commits, commit, patch.bytes(), &files, strip, reverse, cancel)?;
    // Only from here on are there changes that a program could see the half of.
    let _pending = commits.pend();
    cancel.check()?;
    Ok(plan.finish(dry_run)?)
}

const _: () = assert!(PATCH_MAX >= binary::CONTENT_MAX);

/// Takes any bytes for a patch and applies it to any others, for a fuzzer.
#[doc(hidden)]
pub fn fuzz(patch: &[u8], file: &[u8]) {
    for part in parse::parse(patch).unwrap_or_default() {
        if let parse::Body::Hunks(hunks) = &part.body {
            for reverse in [false, true] {
                // Whether it applies is not the question.
                let mut searching = place::Searching::default();
                let _ = place::apply(patch, hunks, file, reverse, &mut searching, &mut Vec::new());
            }
        }
    }
}
