//! `Push`: makes a directory of the tree like one of the host's, in one commit.
//!
//! ```text
//! entries ──▶ compare ──▶ plan, questions (spooled)
//!                           │ an answer per file
//! contents ──▶ stage ──▶ slots (spooled) ──▶ commit: the plan as steps
//!                                              │ changes
//! ```
//!
//! What grows with the tree is spooled into files without names, so memory is
//! that of the directories on the way to one entry.

mod compare;
mod plan;
mod spool;
mod stage;

use crate::commit::Commits;
use crate::guest::Guest;
use crate::server::Connection;
use crate::work::{self, Stop};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::push::{Push, PushCompared};
use pyro_protocol::{AgentError, AgentErrorKind, Lost};
use std::fmt::Display;
use std::sync::Arc;

/// Answers `Push`, from the entries to the changes.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: Push,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let commits = guest.commits();
    let compared = work::receive(connection, {
        let call = call.clone();
        move |entries, _| compare::run(commits?, &call, entries)
    })
    .await?;
    let plan = match compared {
        Ok(plan) => Arc::new(plan),
        Err(error) => return connection.reply::<PushCompared>(Err(error)).await,
    };
    connection.reply(Ok(plan.compared())).await?;
    let asking = plan.clone();
    work::send(connection, move |outgoing, _| asking.send_answers(outgoing)).await?;
    let staging = plan.clone();
    let staged =
        work::receive(connection, move |contents, _| stage::run(&staging, contents, call.dry_run))
            .await?;
    work::send(connection, move |outgoing, _| plan.send_changes(&staged?, outgoing)).await
}

/// What a failed commit or spool tells.
fn system(what: impl Display, error: &std::io::Error) -> Stop {
    use std::io::ErrorKind;
    let kind = if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        AgentErrorKind::OutOfResources
    } else if error.kind() == ErrorKind::InvalidInput {
        AgentErrorKind::InvalidArgument
    } else {
        AgentErrorKind::System
    };
    Stop::Refused(AgentError::new(kind, format!("{what}: {error}")))
}

/// What the kernel refused, for a path below the tree.
fn refused(path: &[u8], errno: rustix::io::Errno) -> AgentError {
    let path = format!("/workspace/{}", String::from_utf8_lossy(path));
    crate::file::fault::refused(path, errno)
}

/// A place where a call spools.
fn spool(commits: &Commits) -> Result<std::fs::File, Stop> {
    commits.spool().map_err(|error| system("no room to spool", &error))
}
