//! The new content of one file, from its old one and what the patch says.

use super::parse::{Body, FilePatch};
use super::place::{self, Failure, Mismatch, Searching};
use super::tree::{self, conflict, fault};
use crate::commit::Commits;
use crate::git::{BlobHasher, NO_BLOB};
use pyro_protocol::{AgentError, AgentErrorKind};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};

/// A content that can be read.
#[derive(Debug)]
pub(super) enum Content {
    File(File),
    Link(Vec<u8>),
}

/// What one part of a patch is to do.
pub(super) struct Making<'a> {
    pub(super) patch: &'a [u8],
    pub(super) reverse: bool,
    pub(super) part: &'a FilePatch,
    /// Where the old content is.
    pub(super) from: &'a [u8],
    /// Where the new one goes.
    pub(super) to: &'a [u8],
    pub(super) commits: &'a Commits,
}

impl Making<'_> {
    /// Writes what a part makes of its source.
    pub(super) fn write(
        &self,
        source: &mut Option<Content>,
        searching: &mut Searching,
        staged: &mut File,
    ) -> Result<(), AgentError> {
        let path = self.to;
        let wrong = |error: io::Error| fault(path, &error);
        match &self.part.body {
            Body::Nothing => match source {
                None => Ok(()),
                Some(content) => content.copy_to(staged).map_err(wrong),
            },
            Body::Hunks(hunks) => {
                let old = match source {
                    None => Vec::new(),
                    Some(Content::Link(target)) => target.clone(),
                    Some(Content::File(file)) => tree::read(file, self.from)?,
                };
                let mut new = BufWriter::new(staged);
                let (patch, reverse) = (self.patch, self.reverse);
                match place::apply(patch, hunks, &old, reverse, searching, &mut new) {
                    Ok(()) => new.flush().map_err(wrong),
                    Err(Failure::Write(error)) => Err(wrong(error)),
                    Err(Failure::Mismatch(Mismatch { hunk, line, why })) => Err(conflict(
                        self.from,
                        format!("hunk {hunk} (line {line} of the patch) does not apply: {why}"),
                    )),
                }
            }
            Body::Binary { forward, reverse } => {
                let (hunk, ids) = match (self.reverse, reverse) {
                    (false, _) => (forward, self.part.ids.clone()),
                    (true, Some(reverse)) => {
                        (reverse, self.part.ids.clone().map(|(old, new)| (new, old)))
                    }
                    (true, None) => {
                        return Err(conflict(
                            path,
                            "the patch cannot be taken back: it lacks the old bytes",
                        ));
                    }
                };
                let (old_id, new_id) = ids.unwrap_or_default();
                let held = match source {
                    None => None,
                    Some(content) => Some(content.as_file(self.commits).map_err(wrong)?),
                };
                let is_other = match &held {
                    Some(held) => !is_named(held, &old_id).map_err(wrong)?,
                    None => false,
                };
                if is_other {
                    return Err(conflict(path, "its bytes are not those that the patch is for"));
                }
                hunk.apply(self.patch, held.as_ref(), staged).map_err(wrong)?;
                staged.rewind().map_err(wrong)?;
                match is_named(staged, &new_id).map_err(wrong)? {
                    true => Ok(()),
                    false => Err(conflict(path, "the patch's bytes are damaged")),
                }
            }
            Body::WithoutContent => Err(AgentError::new(
                AgentErrorKind::InvalidArgument,
                format!(
                    "{}: the patch says that bytes differ and not how; make it with `git diff --binary`",
                    tree::shown(path)
                ),
            )),
        }
    }
}

impl Content {
    fn copy_to(&mut self, to: &mut File) -> io::Result<()> {
        match self {
            Content::Link(target) => to.write_all(target),
            Content::File(file) => io::copy(file, to).map(drop),
        }
    }

    fn as_file(&self, commits: &Commits) -> io::Result<File> {
        match self {
            Content::Link(target) => {
                let mut file = commits.spool()?;
                file.write_all(target)?;
                Ok(file)
            }
            Content::File(file) => file.try_clone(),
        }
    }
}

/// Whether a content has a blob's name, if the name is there in full.
fn is_named(file: &File, id: &[u8]) -> io::Result<bool> {
    if id.len() != 40 {
        return Ok(true);
    }
    let mut file = file.try_clone()?;
    file.rewind()?;
    let length = file.metadata()?.len();
    if id == NO_BLOB.full().as_bytes() {
        return Ok(length == 0);
    }
    let mut hasher = BlobHasher::new(length);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            count => hasher.update(&chunk[..count]),
        }
    }
    file.rewind()?;
    Ok(hasher.finish().full().as_bytes().eq_ignore_ascii_case(id))
}
