//! Taking the contents in, and committing.

use super::plan::{Given, Plan, Staged, set_modified};
use super::spool::Numbers;
use super::{spool, system};
use crate::commit::Commit;
use crate::work::Stop;
use pyro_protocol::piece::Piece;
use pyro_protocol::push::PushContent;
use pyro_protocol::transfer::{Incoming, Pieces};
use pyro_protocol::{AgentError, AgentErrorKind};
use std::fs::{File, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;

/// Stages the contents, and does all of the plan. Until all of them are there,
/// nothing is done, and nothing is if the host goes away.
pub(super) fn run(plan: &Plan, contents: Incoming, dry_run: bool) -> Result<Staged, Stop> {
    let slots = Numbers::new(spool(&plan.commits)?);
    let begin = || plan.commits.begin().map_err(|error| system("beginning the push", &error));
    let mut commit = if dry_run { None } else { Some(begin()?) };
    let mut staged = Staged { slots, bytes_written: 0 };
    let mut pieces = contents.pieces::<PushContent>();
    let mut given = 0;
    while let Some(piece) = pieces.piece()? {
        let Piece::Entry(content) = piece else { return Err(out_of_place()) };
        if content.number >= plan.compared.open || staged.given(content.number)? != Given::Missing {
            return Err(out_of_place());
        }
        let taken = match &mut commit {
            Some(commit) => file(commit, &content, &mut pieces, &mut staged.bytes_written)?,
            None => nothing(&mut pieces)?,
        };
        staged.slots.set(content.number, taken.to_number())?;
        given += 1;
    }
    if given != plan.compared.open {
        return Err(out_of_place());
    }
    if let Some(mut commit) = commit {
        let _turn = plan.commits.turn()?;
        let _pending = plan.commits.pend();
        plan.write_down(&mut commit, &staged)?;
        plan.check()?;
        commit.run().map_err(AgentError::from)?;
    }
    Ok(staged)
}

/// Takes one content into a file of its own.
fn file(
    commit: &mut Commit,
    content: &PushContent,
    pieces: &mut Pieces<PushContent>,
    written: &mut u64,
) -> Result<Given, Stop> {
    let failed = |error: std::io::Error| system("staging a file", &error);
    let mut staged: Option<(crate::commit::Slot, File)> = None;
    let mut length = 0_u64;
    let is_torn = loop {
        let piece = pieces.piece()?.ok_or_else(out_of_place)?;
        if matches!(piece, Piece::Keep) && staged.is_none() {
            return Ok(Given::Kept);
        }
        let (_, file) = match &mut staged {
            Some(staged) => staged,
            None => staged.insert(commit.stage_file().map_err(failed)?),
        };
        match piece {
            Piece::Bytes(bytes) => {
                file.write_all(bytes).map_err(failed)?;
                length = length.saturating_add(bytes.len() as u64);
            }
            Piece::Hole(hole) => {
                length = length.checked_add(hole).ok_or_else(out_of_place)?;
                file.seek(SeekFrom::Start(length)).map_err(failed)?;
            }
            Piece::End => break false,
            Piece::Torn => break true,
            Piece::Entry(_) | Piece::Keep => return Err(out_of_place()),
        }
    };
    let Some((slot, file)) = staged else { return Err(out_of_place()) };
    // What ends in a hole ends there too.
    file.set_len(length).map_err(failed)?;
    let mode = Permissions::from_mode(content.mode & 0o7777);
    file.set_permissions(mode).map_err(failed)?;
    if !is_torn {
        set_modified(&file, content.modified).map_err(failed)?;
    }
    *written += length;
    Ok(Given::Staged(slot))
}

/// The same when nothing is to be done.
fn nothing(pieces: &mut Pieces<PushContent>) -> Result<Given, Stop> {
    match pieces.piece()?.ok_or_else(out_of_place)? {
        Piece::Keep => Ok(Given::Kept),
        Piece::End => Ok(Given::Differs),
        Piece::Entry(_) | Piece::Bytes(_) | Piece::Hole(_) | Piece::Torn => Err(out_of_place()),
    }
}

fn out_of_place() -> Stop {
    AgentError::new(AgentErrorKind::Protocol, "a content of the push is out of place").into()
}
