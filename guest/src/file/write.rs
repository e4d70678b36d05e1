//! `FileWrite`.

use super::draft::{Draft, existing};
use super::fault::{invalid, refused, refused_io, wrong_type};
use super::root::{Root, TreePath};
use super::status;
use crate::work::Stop;
use pyro_protocol::file::{Disposition, FileType, FileWrite, FileWritten};
use pyro_protocol::transfer::Incoming;
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{Mode, OFlags, Stat, fchmod, fstat, fsync, openat};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};

/// What is appended at a time.
const COPY: usize = 64 * 1024;

/// The permissions of a new file.
const NEW: u32 = 0o644;

/// Answers `FileWrite`. All of the content is on the disk, without a name, before
/// anything is to be seen.
pub(super) fn run(
    root: &Root,
    call: &FileWrite,
    mut content: Incoming,
) -> Result<FileWritten, Stop> {
    if call.mode.is_some_and(|mode| mode > 0o7777) {
        return Err(invalid("a mode is 0 to 7777 in octal").into());
    }
    let path = root.target(&TreePath::new(&call.path)?)?;
    check(root, call, &path)?;
    let mut draft = Draft::new(root.nearest(&path)?, &path)?;
    while let Some(bytes) = content.bytes()? {
        draft.write(&bytes)?;
    }
    Ok(publish(root, call, &path, draft)?)
}

/// Refuses at once what could not be written at the end.
fn check(root: &Root, call: &FileWrite, path: &TreePath) -> Result<(), AgentError> {
    match root.place(path) {
        Err(error) if error.kind == AgentErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(place) => match (existing(&place, path)?, call.disposition) {
            (None, _) => Ok(()),
            (Some(_), Disposition::CreateNew) => Err(there_already(path)),
            (Some(stat), Disposition::Replace | Disposition::Append) => regular(&stat, path),
        },
    }
}

/// Puts what was written in its place.
pub(super) fn publish(
    root: &Root,
    call: &FileWrite,
    path: &TreePath,
    draft: Draft,
) -> Result<FileWritten, AgentError> {
    let _turn = root.commits.turn()?;
    let place = root.make_place(path)?;
    let there = existing(&place, path)?;
    let kept = there.as_ref().map_or(NEW, status::mode);
    let mode = call.mode.unwrap_or(kept);
    let bytes_written = draft.len();
    let created = FileWritten { size_bytes: bytes_written, bytes_written, mode, created: true };
    match (there, call.disposition) {
        (Some(_), Disposition::CreateNew) => Err(there_already(path)),
        (None, _) => {
            draft.dress(mode, None)?;
            draft.create(&place)?;
            Ok(created)
        }
        (Some(stat), Disposition::Replace) => {
            regular(&stat, path)?;
            draft.dress(mode, Some(&stat))?;
            draft.replace(&place)?;
            Ok(FileWritten { created: false, ..created })
        }
        (Some(stat), Disposition::Append) => {
            regular(&stat, path)?;
            let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let flags = flags | OFlags::CLOEXEC;
            let file = openat(&place.parent, place.name.as_slice(), flags, Mode::empty())
                .map_err(|errno| refused(path, errno))?;
            let size_bytes = append(draft.into_file(), file.into(), call.mode)
                .map_err(|error| refused_io(path, &error))?;
            Ok(FileWritten { size_bytes, bytes_written, mode, created: false })
        }
    }
}

/// Adds one file to another, which programs may be adding to as well; if that
/// fails midway, what was added goes, unless something of theirs came after it.
fn append(mut from: File, mut to: File, mode: Option<u32>) -> std::io::Result<u64> {
    let before = to.metadata()?.len();
    from.rewind()?;
    let mut added = 0;
    if let Err(error) = copy(&mut from, &mut to, &mut added) {
        if to.metadata()?.len() == before + added {
            to.set_len(before)?;
        }
        return Err(error);
    }
    if let Some(mode) = mode {
        fchmod(&to, Mode::from_raw_mode(mode))?;
    }
    fsync(&to)?;
    Ok(status::size(&fstat(&to)?))
}

fn copy(from: &mut File, to: &mut File, copied: &mut u64) -> std::io::Result<()> {
    let mut buffer = vec![0; COPY];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = to.write(rest)?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            *copied += written as u64;
            rest = &rest[written..];
        }
    }
}

fn regular(stat: &Stat, path: &TreePath) -> Result<(), AgentError> {
    match status::file_type(stat) {
        FileType::File => Ok(()),
        FileType::Directory => Err(wrong_type(format!("{path} is a directory"))),
        FileType::Symlink | FileType::Fifo | FileType::Socket | FileType::Device => {
            Err(wrong_type(format!("{path} is no regular file")))
        }
    }
}

fn there_already(path: &TreePath) -> AgentError {
    AgentError::new(AgentErrorKind::AlreadyExists, format!("{path} is there already"))
}
