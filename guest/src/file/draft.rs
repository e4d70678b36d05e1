//! A file in the making, which has no name before it is whole.

use super::fault::{refused, refused_io};
use super::root::{NOFOLLOW, Place, TreePath};
use pyro_protocol::AgentError;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, Stat, fchmod, fchown, fsync, linkat, openat, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

/// A file without a name. Dropped, it is gone; so it is when the agent or the
/// machine dies.
pub(super) struct Draft {
    file: File,
    path: TreePath,
    length: u64,
}

impl Draft {
    /// One on the file system of a directory, for this path.
    pub(super) fn new(directory: impl AsFd, path: &TreePath) -> Result<Self, AgentError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = openat(directory, c".", flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| refused(path, errno))?;
        Ok(Self { file: file.into(), path: path.clone(), length: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), AgentError> {
        self.file.write_all(bytes).map_err(|error| refused_io(&self.path, &error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// What was written, to be read from its beginning.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// Gives it permissions, and the owner of what it replaces.
    pub(super) fn dress(&self, mode: u32, like: Option<&Stat>) -> Result<(), AgentError> {
        let dressed = || -> Result<(), Errno> {
            if let Some(like) = like {
                let (user, group) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
                let is_ours = rustix::process::geteuid() == user;
                match fchown(&self.file, Some(user), Some(group)) {
                    // Without privileges, as in a test, only one's own group.
                    Err(Errno::PERM) if is_ours => {}
                    owned => owned?,
                }
            }
            // After the owner, whose change takes the set-id bits away.
            fchmod(&self.file, Mode::from_raw_mode(mode))
        };
        dressed().map_err(|errno| refused(&self.path, errno))
    }

    /// Gives it a name that nothing has.
    pub(super) fn create(self, place: &Place) -> Result<(), AgentError> {
        self.sync()?;
        self.link(place, &place.name).map_err(|errno| refused(&self.path, errno))?;
        self.sync_directory(place)
    }

    /// Gives it its name, which another file may have.
    pub(super) fn replace(self, place: &Place) -> Result<(), AgentError> {
        self.sync()?;
        let refused = |errno| refused(&self.path, errno);
        match self.link(place, &place.name) {
            Err(Errno::EXIST) => {}
            linked => {
                linked.map_err(refused)?;
                return self.sync_directory(place);
            }
        }
        // A name can only be taken over by a rename, so it needs one for a moment.
        let passing = format!(".pyro-{:016x}", random()).into_bytes();
        self.link(place, &passing).map_err(refused)?;
        let passing = passing.as_slice();
        if let Err(errno) = renameat(&place.parent, passing, &place.parent, place.name.as_slice()) {
            // The rename's error is the one to tell.
            let _ = unlinkat(&place.parent, passing, AtFlags::empty());
            return Err(refused(errno));
        }
        self.sync_directory(place)
    }

    fn link(&self, place: &Place, name: &[u8]) -> Result<(), Errno> {
        let itself = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, itself, &place.parent, name, AtFlags::SYMLINK_FOLLOW)
    }

    fn sync(&self) -> Result<(), AgentError> {
        fsync(&self.file).map_err(|errno| refused(&self.path, errno))
    }

    fn sync_directory(&self, place: &Place) -> Result<(), AgentError> {
        fsync(&place.parent).map_err(|errno| refused(&self.path, errno))
    }
}

/// What is there under a name, if anything is.
pub(super) fn existing(place: &Place, path: &TreePath) -> Result<Option<Stat>, AgentError> {
    match rustix::fs::statat(&place.parent, place.name.as_slice(), NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(refused(path, errno)),
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Eight bytes are never cut short; were they the same twice, the link fails.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_le_bytes(bytes)
}
