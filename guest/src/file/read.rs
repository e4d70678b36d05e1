//! `FileRead`.

use super::fault::{invalid, refused, wrong_type};
use super::root::{Root, TreePath};
use super::status;
use crate::work::{Cancel, Stop};
use pyro_protocol::AgentError;
use pyro_protocol::file::{FileRead, FileReadEnd, FileReading, FileType, ReadRange};
use pyro_protocol::piece::PieceSink;
use pyro_protocol::transfer::Outgoing;
use rustix::fs::{OFlags, fstat};
use rustix::io::{Errno, pread};
use std::os::fd::OwnedFd;

/// What is read at a time to find where lines begin.
const SCAN: usize = 64 * 1024;

/// A file that is open for a `FileRead`.
pub(super) struct Opened {
    file: OwnedFd,
    path: TreePath,
    size: u64,
    range: ReadRange,
    max: u64,
}

/// Opens a regular file, whatever else lies there.
pub(super) fn regular(root: &Root, path: &TreePath) -> Result<(OwnedFd, u64), AgentError> {
    // A FIFO without a writer opens at once with NONBLOCK.
    let file = root.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let stat = fstat(&file).map_err(|errno| refused(path, errno))?;
    match status::file_type(&stat) {
        FileType::File => Ok((file, status::size(&stat))),
        FileType::Directory => Err(wrong_type(format!("{path} is a directory"))),
        FileType::Symlink | FileType::Fifo | FileType::Socket | FileType::Device => {
            Err(wrong_type(format!("{path} is no regular file")))
        }
    }
}

/// Begins to answer `FileRead`.
pub(super) fn open(root: &Root, call: &FileRead) -> Result<Opened, AgentError> {
    let path = root.path(&call.path)?;
    let is_line_zero = matches!(call.range, ReadRange::Lines { first: 0, .. });
    if is_line_zero {
        return Err(invalid("lines are counted from 1"));
    }
    let (file, size) = regular(root, &path)?;
    let max = call.max_bytes.unwrap_or(u64::MAX);
    Ok(Opened { file, path, size, range: call.range, max })
}

impl Opened {
    pub(super) fn reading(&self) -> FileReading {
        FileReading { size_bytes: self.size }
    }

    /// Sends the range.
    pub(super) fn send(
        self,
        outgoing: &mut Outgoing,
        cancel: &Cancel,
    ) -> Result<FileReadEnd, Stop> {
        let (offset, end) = match self.range {
            ReadRange::From { offset } => (offset, u64::MAX),
            ReadRange::Lines { first, count } => {
                let offset = self.after_lines(0, first - 1, cancel)?;
                let end = match count {
                    Some(count) => self.after_lines(offset, count, cancel)?,
                    None => u64::MAX,
                };
                (offset, end)
            }
        };
        let limit = offset.saturating_add(self.max).min(end);
        let mut at = offset;
        while at < limit {
            let spare = outgoing.spare()?;
            let wanted = usize::try_from(limit - at).unwrap_or(usize::MAX).min(spare.len());
            match self.read(&mut spare[..wanted], at)? {
                0 => break,
                length => {
                    outgoing.advance(length);
                    at += length as u64;
                }
            }
        }
        let goes_on = self.read(&mut [0], at)? > 0;
        Ok(FileReadEnd {
            offset,
            truncated: goes_on && at == limit && limit < end,
            next_offset: goes_on.then_some(at),
        })
    }

    /// Where the line after so many lines begins, or the end of the file.
    /// Nothing is sent meanwhile, so nothing else tells that the host has gone.
    fn after_lines(&self, start: u64, lines: u64, cancel: &Cancel) -> Result<u64, Stop> {
        let mut buffer = vec![0; SCAN];
        let (mut at, mut left) = (start, lines);
        while left > 0 {
            cancel.check()?;
            let length = self.read(&mut buffer, at)?;
            if length == 0 {
                break;
            }
            let newlines = buffer[..length].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            match newlines.zip(1..=left).last() {
                Some(((newline, _), found)) if found == left => return Ok(at + newline as u64 + 1),
                Some((_, found)) => left -= found,
                None => {}
            }
            at += length as u64;
        }
        Ok(at)
    }

    fn read(&self, buffer: &mut [u8], at: u64) -> Result<usize, Stop> {
        loop {
            match pread(&self.file, &mut *buffer, at) {
                Ok(length) => return Ok(length),
                Err(Errno::INTR) => {}
                // No file is that long.
                Err(Errno::INVAL | Errno::OVERFLOW) => return Ok(0),
                Err(errno) => return Err(refused(&self.path, errno).into()),
            }
        }
    }
}
