//! Where a work tree's repository is.

use crate::context::Admitted;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::directory::open_beneath;
use crate::seed::entry::Mtime;
use rustix::fs::{OFlags, fstat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The largest file of a repository that is read into memory.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// From how many others a repository may borrow objects: more than anybody
/// links together.
const LENDERS_MAX: usize = 16;

/// A work tree and the repository that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where the files are.
    pub top: Admitted,
    /// What is this work tree's own.
    pub git_dir: Admitted,
    /// What all work trees of the repository share; the same unless this one
    /// was added to another.
    pub common_dir: Admitted,
}

impl Repository {
    /// Finds the work tree that a path is in.
    ///
    /// # Errors
    /// When it is in none, or in one that the caller may not use.
    pub fn find(place: &Admitted) -> Result<Self> {
        let path = place.path();
        let start = path.canonicalize().map_err(|error| Error::unreadable(path, error))?;
        let top = start.ancestors().find(|top| top.join(".git").symlink_metadata().is_ok());
        match top {
            Some(top) => Self::at(&reach(place, top, "it lies in the work tree")?),
            None => Err(refused(path, "it is in no git work tree")
                .hint("`--seed-path` takes any directory as it is")),
        }
    }

    /// The repository of a work tree, which is at no other path than this.
    ///
    /// A file `.git` says where it is, and so could lead to any repository of
    /// the host. It is believed only if that one points back, and if the caller
    /// may use that directory too.
    ///
    /// # Errors
    /// When it has none, or one of a form that is not taken.
    pub fn at(top: &Admitted) -> Result<Self> {
        let path = top.path();
        let real = path
            .canonicalize()
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        if real != path {
            return Err(refused(path, "a symbolic link is in its place"));
        }
        let dot_git = top.join(".git");
        let meta = dot_git
            .path()
            .symlink_metadata()
            .map_err(|error| refused(path, "it is no git work tree").because(error))?;
        if meta.is_symlink() {
            return Err(refused(path, "its `.git` is a symbolic link"));
        }
        let repository = if meta.is_dir() {
            if dot_git.join("commondir").is_there() {
                return Err(refused(path, "its `.git` is only a part of a repository"));
            }
            Self { top: top.clone(), git_dir: dot_git.clone(), common_dir: dot_git }
        } else {
            Self::elsewhere(top, &dot_git)?
        };
        let objects = repository.common_dir.join("objects");
        if !objects.path().symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            let what = format!("{} is no directory", objects.path().display());
            return Err(refused(path, &what).hint("seed from a clone of it"));
        }
        Ok(repository)
    }

    fn elsewhere(top: &Admitted, dot_git: &Admitted) -> Result<Self> {
        let path = top.path();
        let (said, _) = small(top, ".git")?.unwrap_or_default();
        let said = said
            .strip_prefix(b"gitdir:")
            .map(<[u8]>::trim_ascii)
            .ok_or_else(|| refused(path, "its `.git` says nothing"))?;
        let git_dir = path.join(OsStr::from_bytes(said));
        let gone = |error| {
            let what = format!("its repository {} cannot be opened", git_dir.display());
            refused(path, &what).because(error)
        };
        let git_dir = reach(top, &git_dir.canonicalize().map_err(gone)?, "its repository is")?;
        let stray = || {
            let there = git_dir.path().display();
            let what = format!("its repository {there} does not point back to it");
            refused(path, &what).hint("`git worktree repair` or a fresh clone helps")
        };
        let points_to = |from: &Path, said: &[u8], to: &Path| {
            let target = from.join(OsStr::from_bytes(said.trim_ascii())).canonicalize();
            target.is_ok_and(|target| target == to)
        };
        let Some((common, _)) = small(&git_dir, "commondir")? else {
            return Ok(Self { common_dir: git_dir.clone(), git_dir, top: top.clone() });
        };
        // A linked work tree: its part is in `worktrees` of the repository.
        let worktrees = git_dir.path().parent().filter(|dir| dir.ends_with("worktrees"));
        let common_dir = worktrees.and_then(Path::parent).ok_or_else(stray)?;
        let common_dir = reach(top, common_dir, "its repository is")?;
        let (back, _) = small(&git_dir, "gitdir")?.unwrap_or_default();
        let here = dot_git.path().canonicalize().map_err(|_| stray())?;
        let from = git_dir.path();
        if points_to(from, &common, common_dir.path()) && points_to(from, &back, &here) {
            Ok(Self { top: top.clone(), git_dir, common_dir })
        } else {
            Err(stray())
        }
    }

    /// The directories of objects that it borrows from, and that those borrow
    /// from in turn. The caller may use them all.
    ///
    /// # Errors
    /// When not, or when they cannot be read.
    pub fn lenders(&self) -> Result<Vec<Admitted>> {
        let mut lenders = Vec::new();
        let mut waiting = vec![self.common_dir.join("objects")];
        while let Some(objects) = waiting.pop() {
            let Some((list, _)) = small(&objects.join("info"), "alternates")? else { continue };
            for line in list.split(|byte| *byte == b'\n') {
                if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                    continue;
                }
                if line.starts_with(b"\"") {
                    let what = "it borrows objects from a path that is quoted";
                    return Err(refused(self.top.path(), what).hint("seed from a clone of it"));
                }
                let path = objects.path().join(OsStr::from_bytes(line));
                // Git does without what is not there.
                let Ok(path) = path.canonicalize() else { continue };
                let lender = reach(&self.top, &path, "it borrows objects from")?;
                if path != self.common_dir.path().join("objects") && !lenders.contains(&lender) {
                    waiting.push(lender.clone());
                    lenders.push(lender);
                }
                if lenders.len() > LENDERS_MAX {
                    let what = format!("it borrows from more than {LENDERS_MAX} others");
                    return Err(refused(self.top.path(), &what).hint("seed from a clone of it"));
                }
            }
        }
        Ok(lenders)
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
        let said =
            said.map(|said| self.git_dir.path().join(OsStr::from_bytes(said)).canonicalize());
        said.is_some_and(|said| said.is_ok_and(|said| said == self.top.path()))
    }

    /// A small file of the repository, read through no symbolic link, with its
    /// time.
    ///
    /// # Errors
    /// When it cannot be read or is too large.
    pub fn small_file(&self, dir: &Admitted, name: &str) -> Result<Option<(Vec<u8>, Mtime)>> {
        small(dir, name)
    }
}

/// A directory that belongs to a work tree, if the caller may use it too.
fn reach(from: &Admitted, path: &Path, what: &str) -> Result<Admitted> {
    from.admit(path).map_err(|error| {
        let there = path.display();
        refused(from.path(), &format!("{what} {there}, which is outside the roots"))
            .hint(format!("`pyro mcp serve --root {there}` lets it be used"))
            .because(error)
    })
}

fn small(directory: &Admitted, name: &str) -> Result<Option<(Vec<u8>, Mtime)>> {
    let path = directory.path().join(name);
    let failed =
        |error: std::io::Error| Error::io(format!("cannot read {}", path.display()), error);
    let parent = match directory.open(OFlags::PATH | OFlags::DIRECTORY) {
        Ok(parent) => parent,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
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
