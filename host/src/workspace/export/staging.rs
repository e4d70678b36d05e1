//! A private directory beside the output, where it is made.

use super::{Existing, there_already};
use crate::context::Admitted;
use crate::disk::room::{Room, Taker};
use crate::error::{Error, ErrorKind, Result};
use crate::id::fill_random;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, chmod, flock, fstat, fsync,
    linkat, mkdirat, openat, renameat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What the names of such directories begin with; sixteen hex digits follow.
const PREFIX: &str = ".pyro-export-";

/// What is being made in it.
pub(super) const ITEM: &str = "item";

/// Where what was replaced goes, if the two cannot be exchanged at once.
const OLD: &str = "old";

/// A file that tells such a directory from one that is only called so.
const MARK: &str = "made-by-pyro";

/// A directory that only its owner can look into, on the file system of the
/// output. It is removed when dropped, or by the next export into the same
/// directory. Everything is reached by descriptors: whatever becomes of the
/// paths meanwhile, it stays where it was begun.
#[derive(Debug)]
pub(super) struct Staging {
    /// Of the output, for showing.
    path: PathBuf,
    /// The directory of the output.
    parent: OwnedFd,
    name: String,
    /// Locked.
    top: OwnedFd,
}

impl Staging {
    pub(super) fn beside(output: &Admitted) -> Result<Self> {
        let path = output.path().to_owned();
        let within = output.parent().ok_or_else(|| no_name(&path))?;
        let shown = within.path().display().to_string();
        let parent = within
            .make_dir()
            .map_err(|error| Error::io(format!("cannot make or open {shown}"), error))?;
        sweep(parent.as_fd());
        let refused =
            |errno: Errno| Error::io(format!("cannot make a directory in {shown}"), errno.into());
        loop {
            let mut random = [0; 8];
            fill_random(&mut random);
            let name = format!("{PREFIX}{:016x}", u64::from_le_bytes(random));
            mkdirat(&parent, name.as_str(), Mode::RWXU).map_err(refused)?;
            // Between the two somebody may have swept it away: take another.
            if let Some(top) = lock(parent.as_fd(), &name).map_err(refused)? {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(&top, MARK, flags, Mode::RUSR).map_err(refused)?;
                return Ok(Self { path, parent, name, top });
            }
        }
    }

    pub(super) fn top(&self) -> BorrowedFd<'_> {
        self.top.as_fd()
    }

    /// A new file that is to become the output.
    pub(super) fn create(&self) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        openat(&self.top, ITEM, flags, mode).map(File::from).map_err(|errno| self.refused(errno))
    }

    /// Refuses what has no room on the output's file system.
    pub(super) fn require_room(&self, bytes: u64) -> Result<()> {
        Room::for_bytes(self.top(), Taker::Export, bytes).map(drop)
    }

    /// Makes a file of the same user's what is to become the output, without a
    /// copy where that can be; of that it has the first so many bytes.
    pub(super) fn adopt(&self, file: &Path, bytes: u64) -> Result<()> {
        match linkat(rustix::fs::CWD, file, &self.top, ITEM, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // Another file system, or one without links.
            Err(Errno::XDEV | Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => {
                let from = File::open(file)
                    .map_err(|error| Error::io(format!("cannot read {}", file.display()), error))?;
                let mut room = Room::of(self.top(), Taker::Export)?;
                crate::disk::copy::data(&from, &self.create()?, bytes, |copied| room.wrote(copied))
            }
            Err(errno) => Err(self.refused(errno)),
        }
    }

    /// Makes that its user's alone, and so long.
    pub(super) fn own(&self, bytes: u64) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || {
            let file = openat(&self.top, ITEM, flags, Mode::empty())?;
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            if fstat(&file)?.st_uid != user.as_raw() {
                rustix::fs::fchown(&file, Some(user), Some(group))?;
            }
            rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::ftruncate(&file, bytes)
        };
        open().map_err(|errno| self.refused(errno))
    }

    /// Writes everything out, and puts it in place.
    pub(super) fn settle(self, existing: Existing) -> Result<()> {
        let name = self.path.file_name().ok_or_else(|| no_name(&self.path))?;
        let name = CString::new(name.as_encoded_bytes()).map_err(|_| no_name(&self.path))?;
        rustix::fs::syncfs(&self.top).map_err(|errno| self.refused(errno))?;
        let placed = match self.exchange(&name, existing) {
            // A file system that does not know how: NFS, 9p, some of FUSE.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.move_by_hand(&name, existing),
            placed => placed,
        };
        match placed {
            Err(Errno::EXIST) => return Err(there_already(&self.path)),
            placed => placed.map_err(|errno| self.refused(errno))?,
        }
        fsync(&self.parent).map_err(|errno| self.refused(errno))
    }

    /// What was there before goes away with the staging directory.
    fn exchange(&self, name: &CString, existing: Existing) -> Result<(), Errno> {
        let rename = |flags| renameat_with(&self.top, ITEM, &self.parent, name.as_c_str(), flags);
        match (rename(RenameFlags::NOREPLACE), existing) {
            (Err(Errno::EXIST), Existing::Replace) => rename(RenameFlags::EXCHANGE),
            (renamed, Existing::Replace | Existing::Refuse) => renamed,
        }
    }

    /// The same with what every file system can, where a moment lies between
    /// looking and doing, or between the old and the new.
    fn move_by_hand(&self, name: &CString, existing: Existing) -> Result<(), Errno> {
        let name = name.as_c_str();
        let place = || renameat(&self.top, ITEM, &self.parent, name);
        if existing == Existing::Replace {
            return match renameat(&self.parent, name, &self.top, OLD) {
                Ok(()) => place().inspect_err(|_| {
                    // It was there before; the first reason is the one to tell.
                    let _ = renameat(&self.top, OLD, &self.parent, name);
                }),
                Err(Errno::NOENT) => place(),
                Err(errno) => Err(errno),
            };
        }
        match linkat(&self.top, ITEM, &self.parent, name, AtFlags::empty()) {
            // A directory, or a file system without links.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::MLINK) => {
                match statat(&self.parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(Errno::EXIST),
                    Err(Errno::NOENT) => place(),
                    Err(errno) => Err(errno),
                }
            }
            linked => linked,
        }
    }

    fn refused(&self, errno: Errno) -> Error {
        Error::io(format!("cannot write {}", self.path.display()), errno.into())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next export.
        drop(remove(self.parent.as_fd(), &self.name, self.top.as_fd()));
    }
}

/// Opens and locks a directory that is called like a staging directory. `None`
/// when somebody works in it, or when it is none: a link, another's, or open to
/// others.
fn lock(parent: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = match openat(parent, name, flags, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let opened = fstat(&top)?;
    let is_ours = opened.st_uid == rustix::process::geteuid().as_raw();
    if !is_ours || opened.st_mode & 0o777 != 0o700 {
        return Ok(None);
    }
    match flock(&top, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    // Who locked it before may have removed it.
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) => {
            Ok(Some(top))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Removes what exports that were killed have left. It is in nobody's way, so
/// what goes wrong does not matter.
fn sweep(parent: BorrowedFd<'_>) {
    let Ok(entries) = Dir::read_from(parent) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        let digits = name.strip_prefix(PREFIX).unwrap_or_default();
        if digits.len() != 16 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let Ok(Some(top)) = lock(parent, name) else { continue };
        let mark = statat(&top, MARK, AtFlags::SYMLINK_NOFOLLOW);
        let is_marked =
            mark.is_ok_and(|mark| FileType::from_raw_mode(mark.st_mode) == FileType::RegularFile);
        if is_marked {
            drop(remove(parent, name, top.as_fd()));
        } else {
            // Its maker died at once, or it is none of ours: then it is not empty.
            let _ = unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
}

/// Removes a directory that nobody else can reach into. Its mark goes last.
fn remove(parent: BorrowedFd<'_>, name: &str, top: BorrowedFd<'_>) -> io::Result<()> {
    for within in [ITEM, OLD] {
        remove_all(top, within)?;
    }
    match unlinkat(top, MARK, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Removes something with all that is in it, whatever the modes of its
/// directories and however deep they lie: few are open at a time.
fn remove_all(top: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut here = top.try_clone_to_owned()?;
    let mut entered = Vec::new();
    let mut next = Some(CString::new(name)?);
    loop {
        match next {
            Some(name) if !is_gone(here.as_fd(), &name)? => {
                here = enter(here.as_fd(), &name)?;
                entered.push(name);
            }
            Some(_) if entered.is_empty() => return Ok(()),
            Some(_) => {}
            None => {
                here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
                next = entered.pop();
                continue;
            }
        }
        next = clear(here.as_fd())?;
    }
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes what is in a directory, up to the first that has something in it.
fn clear(directory: BorrowedFd<'_>) -> Result<Option<CString>, Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") && !is_gone(directory, name)? {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

/// Removes a name, unless it is a directory with something in it.
fn is_gone(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    let removed = match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => unlinkat(directory, name, AtFlags::REMOVEDIR),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory that may be closed to its owner.
fn enter(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let closed = openat(directory, name, flags, Mode::empty())?;
    // What is not open for reading has no `fchmod`; this leads to it all the
    // same. Where it is refused, opening it may still work.
    let _ = chmod(format!("/proc/self/fd/{}", closed.as_raw_fd()), Mode::RWXU);
    openat(&closed, c".", DIRECTORY, Mode::empty())
}

fn no_name(output: &Path) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{} names nothing to make", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn begun(home: &Path, content: &str) -> (Staging, PathBuf) {
        let output = home.join("output");
        let staging = Staging::beside(&Admitted::from(&output)).expect("begun");
        io::Write::write_all(&mut staging.create().expect("made"), content.as_bytes())
            .expect("written");
        (staging, output)
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("listed");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_system_that_cannot_exchange_gets_the_same() {
        let home = tempfile::tempdir().expect("a directory");
        let by_hand = |content, existing| {
            let (staging, output) = begun(home.path(), content);
            let placed = staging.move_by_hand(&c"output".to_owned(), existing);
            drop(staging);
            assert_eq!(names(home.path()), ["output"]);
            (placed, fs::read_to_string(output).unwrap_or_default())
        };
        assert_eq!(by_hand("one", Existing::Refuse), (Ok(()), "one".into()));
        assert_eq!(by_hand("two", Existing::Refuse), (Err(Errno::EXIST), "one".into()));
        assert_eq!(by_hand("three", Existing::Replace), (Ok(()), "three".into()));
        // A directory has no links, and another is in its place.
        fs::remove_file(home.path().join("output")).expect("removed");
        for (existing, expected) in [
            (Existing::Refuse, Ok(())),
            (Existing::Refuse, Err(Errno::EXIST)),
            (Existing::Replace, Ok(())),
        ] {
            let staging =
                Staging::beside(&Admitted::from(&home.path().join("output"))).expect("begun");
            mkdirat(&staging.top, ITEM, Mode::RWXU).expect("made");
            assert_eq!(staging.move_by_hand(&c"output".to_owned(), existing), expected);
            drop(staging);
            assert_eq!(names(home.path()), ["output"]);
        }
    }

    #[test]
    fn s9_what_is_settled_stays_where_it_was_begun() {
        let home = tempfile::tempdir().expect("a directory");
        let (within, outside) = (home.path().join("in"), home.path().join("out"));
        fs::create_dir(&within).expect("made");
        fs::create_dir(&outside).expect("made");
        let (staging, _) = begun(&within, "content");
        fs::rename(&within, home.path().join("moved")).expect("renamed");
        symlink(&outside, &within).expect("linked");
        staging.settle(Existing::Refuse).expect("settled");
        assert_eq!(names(&home.path().join("moved")), ["output"]);
        assert_eq!(names(&outside), [""; 0]);
    }

    #[test]
    fn s3_only_what_an_export_made_is_swept() {
        let home = tempfile::tempdir().expect("a directory");
        let at = |name: &str| home.path().join(name);
        let make = |name: &str, mode, mark: bool| {
            fs::create_dir_all(at(name).join("item/deep")).expect("made");
            if mark {
                fs::write(at(name).join(MARK), "").expect("written");
            }
            fs::set_permissions(at(name), Permissions::from_mode(mode)).expect("set");
        };
        let kept = [
            (".pyro-export-0000000000000001", 0o700, false),
            (".pyro-export-0000000000000002", 0o755, true),
            (".pyro-export-mine", 0o700, true),
        ];
        for (name, mode, mark) in kept {
            make(name, mode, mark);
        }
        symlink(at(kept[0].0), at(".pyro-export-0000000000000003")).expect("linked");
        make(".pyro-export-0000000000000004", 0o700, true);
        fs::create_dir(at(".pyro-export-0000000000000005")).expect("made");
        let own = Permissions::from_mode(0o700);
        fs::set_permissions(at(".pyro-export-0000000000000005"), own).expect("set");
        let busy = begun(home.path(), "being written");
        drop(begun(home.path(), "another"));
        let left = names(home.path());
        for (name, ..) in kept {
            assert!(left.iter().any(|left| left == name), "{name} of {left:?}");
        }
        assert!(left.contains(&busy.0.name));
        assert_eq!(left.len(), 5, "{left:?}");
    }

    #[test]
    fn anything_is_removed_and_no_link_is_followed() {
        let home = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("another");
        fs::write(other.path().join("file"), "kept").expect("written");
        let (staging, _) = begun(home.path(), "");
        fs::remove_file(home.path().join(&staging.name).join(ITEM)).expect("removed");
        // Deeper than descriptors go, and longer than a path may be.
        let mut here = staging.top.try_clone().expect("cloned");
        for _ in 0..3000 {
            mkdirat(&here, ITEM, Mode::RWXU).expect("made");
            rustix::fs::symlinkat(other.path(), &here, "link").expect("linked");
            here = openat(&here, ITEM, DIRECTORY, Mode::empty()).expect("opened");
        }
        unlinkat(&staging.top, "link", AtFlags::empty()).expect("removed");
        let item = home.path().join(&staging.name).join(ITEM);
        fs::create_dir(item.join("closed")).expect("made");
        fs::write(item.join("closed/file"), "").expect("written");
        fs::set_permissions(item.join("closed"), Permissions::from_mode(0o000)).expect("set");
        drop(staging);
        assert_eq!(names(home.path()), [""; 0]);
        assert_eq!(names(other.path()), ["file"]);
    }
}
