//! Starts a VMM that can do nothing but be a VMM.
//!
//! A [`Confinement`] describes what the VMM may see and inherit; nothing else
//! is there for it. [`spawn`] carries it out in one of two ways:
//!
//! - In **namespaces of its own**, for any VMM and any user: user, mount, pid,
//!   network, IPC, UTS and cgroup namespaces, and a private root made here.
//! - With Firecracker's **jailer**, where the description names one and pyro is
//!   the host's own root: the same but for the user namespace, since the jailer
//!   makes devices; a small watcher holds it all together (`child/watcher.rs`).
//!
//! Either way: no capability, no new privileges, a user id of its own when pyro
//! runs as root, a cgroup with limits where the host has cgroup v2 for us, and
//! it dies with its supervisor. seccomp is the VMM's own, but for the filter by
//! which a file is lent. docs/security.md promises this, [`inspect`] reads it back
//! from /proc.

mod cgroup;
mod child;
mod confined;
mod inspect;
mod jail;
mod lend;
mod owner;
mod start;

pub use cgroup::{Limits, sweep, unlimited_because};
pub use confined::Confined;
pub use inspect::{Inspection, inspect};
pub use jail::{Jailer, can_jail};
pub use owner::{VMM_UID, give};
pub use start::spawn;

use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use owner::has_user_for_vmm;
use rustix::io::Errno;
use std::ffi::CString;
use std::fs;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The first descriptor a VMM inherits after its standard three.
const FIRST_PASSED: RawFd = 3;

/// What a VMM may see and inherit.
#[derive(Debug)]
pub struct Confinement {
    program: PathBuf,
    jailer: Option<Jailer>,
    seen: Vec<Seen>,
    devices: Vec<Device>,
    lent: Option<PathBuf>,
    passed: Vec<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    limited: Option<(WorkspaceId, Limits)>,
}

/// A file or directory of the host, and where the VMM sees it.
#[derive(Debug)]
struct Seen {
    source: PathBuf,
    target: PathBuf,
    access: Access,
}

/// What the VMM may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Read it, and execute what is executable.
    Execute,
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

/// A device, and where a node of it can be made for a VMM that may not open the
/// host's.
#[derive(Debug)]
struct Device {
    path: PathBuf,
    scratch: Option<PathBuf>,
}

impl Confinement {
    /// A program that sees itself, /dev/null, /dev/zero and /dev/urandom.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            jailer: None,
            seen: Vec::new(),
            devices: ["/dev/null", "/dev/zero", "/dev/urandom"]
                .map(|path| Device { path: PathBuf::from(path), scratch: None })
                .into(),
            lent: None,
            passed: Vec::new(),
            stdout: None,
            stderr: None,
            limited: None,
        }
    }

    /// Says that the program is a Firecracker, to be jailed where [`can_jail`].
    /// Where not, it gets what the jailer would have given it: it sees itself
    /// as `/firecracker`, and `--id` comes first among its arguments.
    pub fn jailer(&mut self, jailer: Jailer) {
        self.jailer = Some(jailer);
    }

    /// Shows files and directories, read-only, where they are, programs and
    /// libraries among them; what the host does not have is left out.
    pub fn see<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        for path in paths {
            self.show(path, path, Access::Execute);
        }
    }

    /// Shows one file or directory, read-only, under another path. A file that
    /// the VMM's user may not read makes [`spawn`] fail.
    pub fn see_as(&mut self, source: &Path, target: impl AsRef<Path>) {
        self.show(source, target.as_ref(), Access::Read);
    }

    /// Shows one file as [`Confinement::see_as`] does, for a program that opens it
    /// for writing and need not write it: it maps it, say, for itself alone.
    ///
    /// The first time that it opens anything with exactly `O_RDWR` it gets the
    /// file, open for reading, whatever it asked for. Later it gets nothing when
    /// it opens that way (`ENOSYS`). Any other flag, such as `O_CLOEXEC`, makes
    /// it an open like all others. So it has no more than it could have opened
    /// by itself: the descriptor writes nothing, and the file's mount is
    /// read-only.
    ///
    /// # Errors
    /// When it is no ordinary file, or another one is lent already. [`spawn`]
    /// fails where the host's kernel cannot do this, and where a jailer is named.
    pub fn lend(&mut self, source: &Path, target: impl AsRef<Path>) -> Result<()> {
        let meta = source
            .metadata()
            .map_err(|error| Error::io(format!("cannot look at {}", source.display()), error))?;
        if !meta.is_file() {
            let message = format!("{} is no ordinary file", source.display());
            return Err(Error::new(ErrorKind::HostRequirement, message));
        }
        let target = target.as_ref();
        if self.lent.replace(target.to_owned()).is_some() {
            return Err(Error::new(ErrorKind::Internal, "a VMM is lent two files"));
        }
        self.see_as(source, target);
        Ok(())
    }

    /// Shows one file for reading and writing, and makes it the VMM's own: it
    /// opens it by itself, with no right but its user's. Nobody else is let to
    /// it by that: the file has to be in a private directory, such as the
    /// workspace's, and root may use it afterwards as before.
    ///
    /// # Errors
    /// When it is no ordinary file, or cannot be made the VMM's.
    pub fn see_writable(&mut self, source: &Path, target: impl AsRef<Path>) -> Result<()> {
        owner::give_file(source)?;
        self.show(source, target.as_ref(), Access::Write);
        Ok(())
    }

    /// Shows a directory of the host in which the VMM makes its sockets. It is
    /// made anew here, private to the VMM's user: whatever an earlier VMM left
    /// is gone. The VMM can put there what it likes, so nobody on the host is
    /// to follow a link in it or to believe a file, and sockets are reached by
    /// [`crate::vsock::Socket`]; what the host puts there for the VMM needs [`give`].
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn share(&mut self, source: &Path, target: impl AsRef<Path>) -> Result<()> {
        let refused =
            |error| Error::io(format!("cannot make the directory {}", source.display()), error);
        match fs::remove_dir_all(source) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(refused(error));
            }
            Ok(()) | Err(_) => {}
        }
        fs::DirBuilder::new().mode(0o700).create(source).map_err(refused)?;
        give(source)?;
        self.show(source, target.as_ref(), Access::Write);
        Ok(())
    }

    fn show(&mut self, source: &Path, target: &Path, access: Access) {
        self.seen.push(Seen { source: source.to_owned(), target: target.to_owned(), access });
    }

    /// Shows a device that the program is to open for reading and writing.
    ///
    /// A device that only root may open is of no use to a program that runs as
    /// [`VMM_UID`]: then a node of the same device is made for it in `scratch`,
    /// a private directory; the next program that gets one there replaces it.
    /// The jailer makes nodes of its own.
    ///
    /// # Errors
    /// When the host does not have it.
    pub fn see_device(&mut self, path: &Path, scratch: &Path) -> Result<()> {
        path.metadata()
            .map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?;
        self.devices.push(Device { path: path.to_owned(), scratch: Some(scratch.to_owned()) });
        Ok(())
    }

    /// Hands a descriptor down and returns its number in the program. The
    /// jailer closes what is passed: there the watcher has it open until the
    /// program is gone, which is enough for a lock.
    pub fn pass(&mut self, descriptor: impl Into<OwnedFd>) -> RawFd {
        self.passed.push(descriptor.into());
        FIRST_PASSED + RawFd::try_from(self.passed.len() - 1).expect("a handful of descriptors")
    }

    /// Where the program's output goes; /dev/null otherwise.
    pub fn stdout(&mut self, descriptor: OwnedFd) {
        self.stdout = Some(descriptor);
    }

    /// Where the program's errors go; /dev/null otherwise.
    pub fn stderr(&mut self, descriptor: OwnedFd) {
        self.stderr = Some(descriptor);
    }

    /// Puts the program into a cgroup of its own, named after the workspace,
    /// where the host lets us: [`unlimited_because`] tells.
    pub fn limit(&mut self, workspace: WorkspaceId, limits: Limits) {
        self.limited = Some((workspace, limits));
    }
}

impl Device {
    /// What of the host's stands for it: itself, or a node made for the VMM.
    fn source(&self) -> Result<PathBuf> {
        let path = &self.path;
        let Some(scratch) = &self.scratch else { return Ok(path.clone()) };
        let meta = path
            .metadata()
            .map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?;
        let for_all = meta.mode() & 0o006 == 0o006;
        if for_all || !has_user_for_vmm() {
            return Ok(path.clone());
        }
        let nodev = rustix::fs::statvfs(scratch)
            .is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NODEV));
        if nodev {
            let message = format!(
                "{} is for root alone, and {} is mounted without devices",
                path.display(),
                scratch.display()
            );
            return Err(Error::new(ErrorKind::HostRequirement, message)
                .hint("set PYRO_HOME to a directory on another file system, or run as a user who may open the device"));
        }
        let node = scratch.join(path.file_name().unwrap_or(path.as_os_str()));
        // An earlier try may have left one.
        match rustix::fs::unlink(&node) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                return Err(Error::io(format!("cannot renew {}", node.display()), errno.into()));
            }
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &node,
            rustix::fs::FileType::CharacterDevice,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            meta.rdev(),
        )
        .map_err(|errno| {
            Error::io(format!("cannot make the device {}", node.display()), errno.into())
        })?;
        give(&node)?;
        Ok(node)
    }
}

fn c_string(text: impl AsRef<std::ffi::OsStr>) -> Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "a path contains a NUL byte").because(error)
    })
}
