//! Carrying a commit out to its end, whatever became of who began it.

use super::apply::{self, Place, Round};
use super::ballast::Ballast;
use super::making::removed;
use super::{
    CommitError, Commits, MAGIC, Stage, ballast, is_id, journal, rehearsal, remove, staging,
    unfinished,
};
use crate::beneath;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

impl Commits {
    /// Completes what was decided and sweeps what was not, after an agent or a
    /// machine that died. To be called before anything else happens to the tree.
    /// What cannot be completed stays hidden, and is tried again by the next
    /// [turn](Commits::turn).
    pub(crate) fn recover(&self) -> io::Result<()> {
        let mut ids = BTreeSet::new();
        for entry in Dir::read_from(&self.private)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if let Some((id, _)) = name.split_once('.').filter(|(id, _)| is_id(id)) {
                ids.insert(id.to_owned());
            }
        }
        for id in ids {
            self.active().insert(id.clone(), Stage::Interrupted);
            // One that cannot be completed keeps no other from it.
            if let Err(error) = self.resume(&id) {
                let error = crate::log::Chain(&error);
                crate::log::warn(format_args!("completing what was interrupted: {error}"));
            }
        }
        Ok(())
    }

    /// Completes what was interrupted.
    pub(super) fn complete(&self) -> Result<(), CommitError> {
        let is_interrupted = |(id, stage): (&String, &Stage)| match stage {
            Stage::Making => None,
            Stage::Interrupted => Some(id.clone()),
        };
        let interrupted: Vec<_> = self.active().iter().filter_map(is_interrupted).collect();
        for id in interrupted {
            let _pending = self.pend();
            self.resume(&id)?;
        }
        Ok(())
    }

    fn resume(&self, id: &str) -> Result<(), CommitError> {
        match self.carry_out(id, Round::Again) {
            Ok(()) => {}
            Err(CommitError::Interfered(failed)) => {
                crate::log::warn(format_args!("completing a commit: {failed}"));
            }
            Err(error @ (CommitError::Before(_) | CommitError::Midway(_))) => return Err(error),
        }
        self.retire(id);
        self.sweep(id);
        Ok(())
    }

    /// Does the steps of a journal, if there is one.
    pub(super) fn carry_out(&self, id: &str, round: Round) -> Result<(), CommitError> {
        let midway = |error: Errno| CommitError::Midway(error.into());
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match openat(&self.private, journal(id), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // It was not decided.
            Err(Errno::NOENT) if round == Round::Again => return Ok(()),
            Err(error) => return Err(midway(error)),
        };
        let mut reader = BufReader::new(&file);
        let skip = steps_done(&mut reader).map_err(CommitError::Midway)?;
        let staging = match (beneath::directory(self.tree(), staging(id).as_bytes()), round) {
            (Ok(staging), _) => staging,
            // Swept already: only the journal had still to go.
            (Err(Errno::NOENT), Round::Again) => return Ok(()),
            (Err(Errno::NOENT), Round::First) => return Err(CommitError::Before(removed())),
            (Err(error), _) => return Err(midway(error)),
        };
        let name = ballast(id);
        let ballast = Ballast::named(self.private.as_fd(), &name);
        let mut place = Place { tree: self.tree(), staging: staging.as_fd(), ballast, round };
        match apply::all(&mut reader, skip, &mut place) {
            Ok(None) => Ok(()),
            Ok(Some(failed)) => Err(CommitError::Interfered(failed)),
            Err(stopped) => {
                // In place, so it takes no room. If it fails, all of them are done
                // again: programs may have built on them in the meantime.
                let done = stopped.done.to_le_bytes();
                if let Err(error) = file.write_all_at(&done, MAGIC.len() as u64) {
                    crate::log::warn(format_args!("noting how far a commit is: {error}"));
                }
                Err(CommitError::Midway(stopped.error))
            }
        }
    }

    /// Notes that all of a commit is done: it is not to be done again, whatever
    /// keeps it from being swept.
    pub(super) fn retire(&self, id: &str) {
        self.active().insert(id.to_owned(), Stage::Making);
        match renameat(&self.private, journal(id), &self.private, unfinished(id)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => crate::log::warn(format_args!("ending a commit: {error}")),
        }
    }

    /// Removes all of a commit but what it did. The journal goes last: as long
    /// as there is a staging directory, somebody knows of it.
    pub(super) fn sweep(&self, id: &str) {
        // First what is room for the rest.
        self.remove(&ballast(id));
        for (directory, name) in [(&self.tree, staging(id)), (&self.private, rehearsal(id))] {
            match remove::directory(directory, name.as_bytes()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    crate::log::warn(format_args!("removing what a commit staged: {error}"));
                    return;
                }
            }
        }
        self.remove(&unfinished(id));
        self.remove(&journal(id));
        self.active().remove(id);
    }

    fn remove(&self, name: &str) {
        match unlinkat(&self.private, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => crate::log::warn(format_args!("removing {name}: {error}")),
        }
    }
}

/// Reads a journal's beginning: how many of its steps are not to be done again.
pub(super) fn steps_done(journal: &mut impl Read) -> io::Result<u64> {
    let (mut magic, mut done) = ([0; MAGIC.len()], [0; 8]);
    journal.read_exact(&mut magic)?;
    journal.read_exact(&mut done)?;
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an unknown kind of journal"));
    }
    Ok(u64::from_le_bytes(done))
}
