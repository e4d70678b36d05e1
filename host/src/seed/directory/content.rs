//! The content of a file of the host, exactly as many bytes as it had when it
//! was looked at.

use super::{FileId, mtime};
use crate::seed::entry::Content;
use rustix::fs::{Mode, OFlags, SeekFrom, Stat, fstat, openat, seek};
use rustix::io::Errno;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

/// A file of the host, opened when somebody reads it.
pub struct HostFile<'a> {
    directory: BorrowedFd<'a>,
    name: &'a CStr,
    stat: &'a Stat,
    file: Option<File>,
    /// What is still to be given.
    left: u64,
    /// The file has holes, so it is worth asking where.
    sparse: bool,
    /// It was shorter than it had been.
    short: bool,
    failed: Option<io::Error>,
}

/// What became of a file that could not be read.
#[derive(Debug)]
pub enum Failure {
    /// It was removed after it had been looked at.
    Vanished,
    /// The host's system says why.
    Refused(io::Error),
}

impl<'a> HostFile<'a> {
    pub fn new(directory: BorrowedFd<'a>, name: &'a CStr, stat: &'a Stat) -> Self {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let stored = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        Self {
            directory,
            name,
            stat,
            file: None,
            left: size,
            sparse: stored < size,
            short: false,
            failed: None,
        }
    }

    fn open(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let fd = openat(self.directory, self.name, flags, Mode::empty())?;
            let stat = fstat(&fd)?;
            if FileId::of(&stat) != FileId::of(self.stat) {
                return Err(io::Error::other("it was replaced while it was read"));
            }
            self.file = Some(File::from(fd));
        }
        self.file.as_ref().ok_or_else(|| io::Error::other("it is not open"))
    }

    /// Keeps the reason for whoever knows what the file is called.
    fn fail(&mut self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.failed = Some(error);
        kind.into()
    }

    fn position(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0) - self.left
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        if self.short {
            buffer[..wanted].fill(0);
            return Ok(wanted);
        }
        match self.open()?.read(&mut buffer[..wanted])? {
            0 => {
                self.short = true;
                buffer[..wanted].fill(0);
                Ok(wanted)
            }
            count => Ok(count),
        }
    }

    /// Why it could not be read, or that it is not there any more.
    pub fn failure(&mut self) -> Option<Failure> {
        let error = self.failed.take()?;
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        Some(if is_gone { Failure::Vanished } else { Failure::Refused(error) })
    }

    /// Whether what was given may be no state that the file ever was in.
    pub fn changed(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let same = |now: Stat| now.st_size == self.stat.st_size && mtime(&now) == mtime(self.stat);
        self.short || !fstat(file).is_ok_and(same)
    }
}

impl Read for HostFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_some(buffer).map_err(|error| self.fail(error))?;
        self.left -= count as u64;
        Ok(count)
    }
}

impl Content for HostFile<'_> {
    fn begin(&mut self) -> io::Result<()> {
        let opened = self.open().map(|_| ());
        opened.map_err(|error| self.fail(error))
    }

    fn zeros(&mut self) -> io::Result<u64> {
        if !self.sparse || self.left == 0 {
            return Ok(0);
        }
        let (at, left) = (self.position(), self.left);
        self.begin()?;
        let Some(file) = &self.file else { return Ok(0) };
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data from here on: one hole up to the end.
            Err(Errno::NXIO) => at + left,
            // A file system that does not tell.
            Err(_) => at,
        };
        seek(file, SeekFrom::Start(at))?;
        Ok(data.saturating_sub(at).min(left))
    }

    fn skip_zeros(&mut self, count: u64) {
        let count = count.min(self.left);
        self.left -= count;
        let at = self.position();
        if let Some(file) = &self.file
            && seek(file, SeekFrom::Start(at)).is_err()
        {
            self.short = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, statat};
    use std::fs;
    use std::os::fd::AsFd;

    /// What is read of a file that something happens to after it was looked at.
    fn read_after(happens: impl FnOnce(&std::path::Path)) -> (io::Result<Vec<u8>>, bool) {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("file");
        fs::write(&path, "content").expect("written");
        let stat = statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).expect("there");
        happens(&path);
        let directory = File::open(home.path()).expect("there");
        let mut file = HostFile::new(directory.as_fd(), c"file", &stat);
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes).map(|_| bytes);
        (read, file.changed())
    }

    #[test]
    fn a_file_has_the_size_that_it_had() {
        let (read, changed) = read_after(|_| {});
        assert_eq!((&read.expect("read")[..], changed), (&b"content"[..], false));
        let (read, changed) = read_after(|path| fs::write(path, "con").expect("written"));
        assert_eq!((&read.expect("read")[..], changed), (&b"con\0\0\0\0"[..], true));
        let (read, changed) = read_after(|path| fs::write(path, "contents").expect("written"));
        assert_eq!((&read.expect("read")[..], changed), (&b"content"[..], true));
    }

    #[test]
    fn another_file_in_its_place_is_not_read() {
        let (read, _) = read_after(|path| {
            fs::write(path.with_extension("new"), "another").expect("written");
            fs::rename(path.with_extension("new"), path).expect("renamed");
        });
        assert!(read.is_err());
        let (read, _) = read_after(|path| {
            fs::remove_file(path).expect("removed");
            std::os::unix::fs::symlink("/etc/passwd", path).expect("linked");
        });
        assert!(read.is_err());
    }
}
