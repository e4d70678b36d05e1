//! Where a work tree's repository is.

use crate::error::{Error, ErrorKind, Result};
use crate::seed::directory::open_beneath;
use crate::seed::entry::Mtime;
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The largest file of a repository that is read into memory.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// A work tree and the repository that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where the files are.
    pub top: PathBuf,
    /// What is this work tree's own.
    pub git_dir: PathBuf,
    /// What all work trees of the repository share; the same unless this one
    /// was added to another.
    pub common_dir: PathBuf,
}

impl Repository {
    /// Finds the work tree that a path is in.
    ///
    /// # Errors
    /// When it is in none.
    pub fn find(path: &Path) -> Result<Self> {
        let start = path.canonicalize().map_err(|error| Error::unreadable(path, error))?;
        let top = start.ancestors().find(|top| top.join(".git").symlink_metadata().is_ok());
        match top {
            Some(top) => Self::at(top),
            None => Err(refused(path, "it is in no git work tree")
                .hint("`--seed-path` takes any directory as it is")),
        }
    }

    /// The repository of a work tree.
    ///
    /// A file `.git` says where it is, and so could lead to any repository of
    /// the host. It is believed only if that one points back.
    ///
    /// # Errors
    /// When it has none, or one of a form that is not taken.
    pub fn at(top: &Path) -> Result<Self> {
        let top = top
            .canonicalize()
            .map_err(|error| Error::io(format!("cannot open {}", top.display()), error))?;
        let dot_git = top.join(".git");
        let meta = dot_git
            .symlink_metadata()
            .map_err(|error| refused(&top, "it is no git work tree").because(error))?;
        if meta.is_symlink() {
            return Err(refused(&top, "its `.git` is a symbolic link"));
        }
        let repository = if meta.is_dir() {
            if dot_git.join("commondir").symlink_metadata().is_ok() {
                return Err(refused(&top, "its `.git` is only a part of a repository"));
            }
            Self { top, git_dir: dot_git.clone(), common_dir: dot_git }
        } else {
            Self::elsewhere(top, &dot_git)?
        };
        let objects = repository.common_dir.join("objects");
        if !objects.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let what = format!("{} is no directory", objects.display());
            return Err(refused(&repository.top, &what).hint("seed from a clone of it"));
        }
        Ok(repository)
    }

    fn elsewhere(top: PathBuf, dot_git: &Path) -> Result<Self> {
        let (said, _) = small(dot_git)?.unwrap_or_default();
        let said = said
            .strip_prefix(b"gitdir:")
            .map(<[u8]>::trim_ascii)
            .ok_or_else(|| refused(&top, "its `.git` says nothing"))?;
        let git_dir = top.join(OsStr::from_bytes(said));
        let gone = |error| {
            let what = format!("its repository {} cannot be opened", git_dir.display());
            refused(&top, &what).because(error)
        };
        let git_dir = git_dir.canonicalize().map_err(gone)?;
        let stray = || {
            let what = format!("its repository {} does not point back to it", git_dir.display());
            refused(&top, &what).hint("`git worktree repair` or a fresh clone helps")
        };
        let points_to = |from: &Path, said: &[u8], to: &Path| {
            let target = from.join(OsStr::from_bytes(said.trim_ascii())).canonicalize();
            target.is_ok_and(|target| target == to)
        };
        let Some((common, _)) = small(&git_dir.join("commondir"))? else {
            return Ok(Self { common_dir: git_dir.clone(), git_dir, top });
        };
        // A linked work tree: its part is in `worktrees` of the repository.
        let worktrees = git_dir.parent().filter(|dir| dir.ends_with("worktrees"));
        let common_dir = worktrees.and_then(Path::parent).ok_or_else(stray)?.to_owned();
        let (back, _) = small(&git_dir.join("gitdir"))?.unwrap_or_default();
        let here = dot_git.canonicalize().map_err(|_| stray())?;
        if points_to(&git_dir, &common, &common_dir) && points_to(&git_dir, &back, &here) {
            Ok(Self { top, git_dir, common_dir })
        } else {
            Err(stray())
        }
    }

    /// Whether it was added to another work tree's repository.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.git_dir != self.common_dir
    }

    /// Whether `.git` is a file that leads to a repository of its own: that of
    /// a submodule, or one that was put elsewhere. Such a repository says in
    /// its configuration where its files are.
    #[must_use]
    pub fn is_apart(&self) -> bool {
        !self.is_linked() && self.git_dir != self.top.join(".git")
    }

    /// Whether the repository's configuration says that its files are here.
    #[must_use]
    pub fn is_work_tree(&self, said: Option<&[u8]>) -> bool {
        let said = said.map(|said| self.git_dir.join(OsStr::from_bytes(said)).canonicalize());
        said.is_some_and(|said| said.is_ok_and(|said| said == self.top))
    }

    /// A small file of the repository, read through no symbolic link, with its
    /// time.
    ///
    /// # Errors
    /// When it cannot be read or is too large.
    pub fn small_file(&self, dir: &Path, name: &str) -> Result<Option<(Vec<u8>, Mtime)>> {
        small(&dir.join(name))
    }
}

fn small(path: &Path) -> Result<Option<(Vec<u8>, Mtime)>> {
    let failed =
        |error: std::io::Error| Error::io(format!("cannot read {}", path.display()), error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno.into())),
    };
    let fd = match open_beneath(parent.as_fd(), name.as_bytes(), OFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
        Err(errno) => return Err(failed(errno.into())),
    };
    let stat = fstat(&fd).map_err(|errno| failed(errno.into()))?;
    let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    let mut bytes = Vec::new();
    File::from(fd).take(SMALL_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SMALL_BYTES_MAX {
        let what = format!("{} is larger than 1 MiB", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, what));
    }
    Ok(Some((bytes, Mtime { secs: stat.st_mtime, nanos })))
}

/// Says why a work tree cannot be a seed.
pub fn refused(path: &Path, why: &str) -> Error {
    let path = path.display();
    Error::new(ErrorKind::InvalidInput, format!("cannot seed from the work tree {path}: {why}"))
}
