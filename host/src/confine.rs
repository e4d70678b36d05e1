//! Starts a VMM that can do nothing but be a VMM.
//!
//! The child gets its own user, mount, pid, network, IPC and UTS namespaces, a
//! private root that holds read-only views of what it was told to see and
//! nothing else, no capability, no new privileges, a user id of its own when
//! pyro runs as root, and it dies with its supervisor. QEMU adds seccomp.
//! Files that belong to the workspace are not in its root at all: they are
//! passed as open descriptors. docs/security.md promises this, and a story in
//! smoke/ reads it back from /proc.

mod child;
mod inspect;

use crate::error::{Error, ErrorKind, Result};
use child::{Failure, Plan};
pub use inspect::{Inspection, inspect};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// The user and group that a VMM runs as when pyro runs as root: "pyro" in
/// ASCII, far from any range that a host hands out.
pub const VMM_UID: u32 = 0x7079_726f;

/// The first descriptor a VMM inherits after its standard three.
const FIRST_PASSED: RawFd = 3;

/// How long a VMM may take to be confined and executed.
const STARTING_MAX: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// How long the kernel may take to end one that got KILL.
const DYING_MAX: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What a VMM may see and inherit.
#[derive(Debug)]
pub struct Confinement {
    program: PathBuf,
    seen: Vec<(PathBuf, PathBuf)>,
    devices: Vec<(PathBuf, PathBuf)>,
    passed: Vec<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Confinement {
    /// A program that sees itself, /dev/null, /dev/zero and /dev/urandom.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            seen: vec![(program.to_owned(), program.to_owned())],
            devices: ["/dev/null", "/dev/zero", "/dev/urandom"]
                .map(|path| (PathBuf::from(path), PathBuf::from(path)))
                .to_vec(),
            passed: Vec::new(),
            stderr: None,
        }
    }

    /// Shows files and directories, read-only, where they are; what the host
    /// does not have is left out.
    pub fn see<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) {
        for path in paths {
            self.see_as(path, path);
        }
    }

    /// Shows one file or directory, read-only, under another path.
    pub fn see_as(&mut self, source: &Path, target: impl AsRef<Path>) {
        self.seen.push((source.to_owned(), target.as_ref().to_owned()));
    }

    /// Shows a device that the program is to open for reading and writing.
    ///
    /// A device that only root may open is of no use to a program that runs as
    /// [`VMM_UID`]: then a node of the same device is made for it in `scratch`,
    /// a private directory; the next program that gets one there replaces it.
    pub fn see_device(&mut self, path: &Path, scratch: &Path) -> Result<()> {
        let meta = path
            .metadata()
            .map_err(|error| Error::io(format!("cannot look at {}", path.display()), error))?;
        let for_all = meta.mode() & 0o006 == 0o006;
        if for_all || !has_user_for_vmm() {
            self.devices.push((path.to_owned(), path.to_owned()));
            return Ok(());
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
        let name = path.file_name().unwrap_or(path.as_os_str());
        let node = scratch.join(name);
        let owner =
            (Some(rustix::fs::Uid::from_raw(VMM_UID)), Some(rustix::fs::Gid::from_raw(VMM_UID)));
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
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
            mode,
            meta.rdev(),
        )
        .and_then(|()| rustix::fs::chown(&node, owner.0, owner.1))
        .map_err(|errno| {
            Error::io(format!("cannot make the device {}", node.display()), errno.into())
        })?;
        self.devices.push((node, path.to_owned()));
        Ok(())
    }

    /// Hands a descriptor down and returns its number in the program.
    pub fn pass(&mut self, descriptor: impl Into<OwnedFd>) -> RawFd {
        self.passed.push(descriptor.into());
        FIRST_PASSED + RawFd::try_from(self.passed.len() - 1).expect("a handful of descriptors")
    }

    /// Where the program's errors go; /dev/null otherwise.
    pub fn stderr(&mut self, descriptor: OwnedFd) {
        self.stderr = Some(descriptor);
    }
}

/// A confined program.
#[derive(Debug)]
pub struct Confined {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    ended: Option<String>,
}

/// Starts the program. Returns once it executes.
///
/// Call it from the thread that lives as long as the program shall: its death
/// kills the program.
///
/// # Errors
/// `Unsupported` when the host forbids what confinement needs, with what to do;
/// pyro does not run an unconfined VMM.
pub fn spawn(confinement: Confinement, arguments: &[String]) -> Result<Confined> {
    let plan = Plan::new(&confinement, arguments)?;
    let (go, mut going) = pipe()?;
    let (mut failures, failing) = pipe_pair()?;
    let ours = [going.as_raw_fd(), failures.as_raw_fd()];
    let pid = child::clone(&plan, &go, &failing, ours).map_err(|errno| refused("clone", errno))?;
    drop((go, failing));
    let watched = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|errno| Error::io("cannot watch the VMM", errno.into()))?;
    // SAFETY: the descriptor is owned and stays the same.
    let pidfd = unsafe { AsyncFd::register(watched) }
        .map_err(|error| Error::io("cannot watch the VMM", error.into()))?;
    let confined = Confined { pid, pidfd, ended: None };
    // From here on `confined` kills the child when an error drops it.
    map_ids(pid)?;
    going.write_all(&[1]).map_err(|error| Error::io("cannot start the VMM", error))?;
    let mut told = [PollFd::new(&failures, PollFlags::IN)];
    let told = rustix::event::poll(&mut told, Some(&STARTING_MAX))
        .map_err(|errno| Error::io("cannot learn whether the VMM started", errno.into()))?;
    if told == 0 {
        let message = format!("the VMM did not start within {} s", STARTING_MAX.tv_sec);
        return Err(Error::new(ErrorKind::TimedOut, message));
    }
    let mut report = Vec::new();
    failures
        .read_to_end(&mut report)
        .map_err(|error| Error::io("cannot learn whether the VMM started", error))?;
    match Failure::parse(&report) {
        None => Ok(confined),
        Some(failure) => Err(refused(failure.step, failure.errno)),
    }
}

fn refused(step: &str, errno: Errno) -> Error {
    let message = format!("cannot confine the VMM: {step} failed");
    let error = match errno {
        Errno::PERM | Errno::ACCESS | Errno::NOSPC | Errno::INVAL => {
            Error::new(ErrorKind::Unsupported, message).hint(
                "the host must allow user namespaces: see `sysctl user.max_user_namespaces \
                 kernel.unprivileged_userns_clone kernel.apparmor_restrict_unprivileged_userns`",
            )
        }
        _ => Error::new(ErrorKind::Io, message),
    };
    error.because(std::io::Error::from(errno))
}

/// Root in a container often is an ordinary user of the host, with few other
/// ids or none.
fn has_user_for_vmm() -> bool {
    let maps = |file: &str| {
        std::fs::read_to_string(file).is_ok_and(|map| {
            map.lines().any(|line| {
                let mut numbers = line.split_whitespace().map(str::parse::<u64>);
                let (Some(Ok(first)), _, Some(Ok(count))) =
                    (numbers.next(), numbers.next(), numbers.next())
                else {
                    return false;
                };
                (first..first + count).contains(&VMM_UID.into())
            })
        })
    };
    rustix::process::geteuid().is_root() && maps("/proc/self/uid_map") && maps("/proc/self/gid_map")
}

/// Gives the child's user namespace its ids: as root, root to set up with and
/// [`VMM_UID`] to run as; otherwise the caller's own.
fn map_ids(pid: Pid) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = format!("/proc/{}/{name}", pid.as_raw_nonzero());
        std::fs::write(&path, text)
            .map_err(|error| Error::io(format!("cannot write {path}"), error))
    };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if has_user_for_vmm() {
        let map = format!("0 0 1\n{} {VMM_UID} 1\n", child::INNER_ID);
        write("uid_map", map.clone())?;
        write("gid_map", map)
    } else {
        write("setgroups", "deny".into())?;
        write("uid_map", format!("{} {} 1\n", child::INNER_ID, uid.as_raw()))?;
        write("gid_map", format!("{} {} 1\n", child::INNER_ID, gid.as_raw()))
    }
}

impl Confined {
    /// The process id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end and says how it ended.
    pub async fn wait(&mut self) -> String {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        loop {
            // A failing wait for readiness means that the runtime shuts down;
            // waitid then blocks for the moment the child still needs.
            drop(self.pidfd.readable().await);
            if let Some(ended) = self.reap(
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
            ) {
                return ended;
            }
        }
    }

    fn reap(&mut self, options: rustix::process::WaitIdOptions) -> Option<String> {
        use rustix::fd::AsFd;
        use rustix::process::{WaitId, waitid};
        if self.ended.is_none() {
            let status = waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options);
            self.ended = match status {
                Ok(None) => None,
                Ok(Some(status)) => {
                    Some(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("exited with status {code}"),
                        (None, Some(signal)) => format!("was killed by signal {signal}"),
                        (None, None) => "ended".into(),
                    })
                }
                Err(errno) => Some(format!("is lost: {errno}")),
            };
        }
        self.ended.clone()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // Fails only when it has ended already.
            let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        self.kill();
        // The workspace's files are removed next, so it must be gone. A pidfd
        // that does not block does not make waitid block either.
        let mut gone = [PollFd::new(self.pidfd.get_ref(), PollFlags::IN)];
        let _ = rustix::event::poll(&mut gone, Some(&DYING_MAX));
        self.reap(rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG);
    }
}

fn pipe_pair() -> Result<(File, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::io("cannot make a pipe", errno.into()))?;
    Ok((File::from(read), write))
}

fn pipe() -> Result<(OwnedFd, File)> {
    let (read, write) = pipe_pair()?;
    Ok((OwnedFd::from(read), File::from(write)))
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| {
        Error::new(ErrorKind::InvalidInput, "a path contains a NUL byte").because(error)
    })
}

/// Turns what `clone` returned into the child's id.
fn child_pid(raw: libc::c_long) -> Option<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{WaitOptions, WaitStatus, waitpid};
    use std::time::{Duration, Instant};

    /// As `spawn` has it when the child was just born.
    struct Begun {
        pid: Pid,
        going: File,
        failures: File,
    }

    /// `None` where the host forbids namespaces.
    fn begin() -> Option<Begun> {
        // A static program that ends well, should it ever be executed.
        let confinement = Confinement::new(&std::env::current_exe().expect("this test"));
        let plan = Plan::new(&confinement, &["--list".into()]).expect("a plan");
        let (go, going) = pipe().expect("a pipe");
        let (failures, failing) = pipe_pair().expect("a pipe");
        let ours = [going.as_raw_fd(), failures.as_raw_fd()];
        match child::clone(&plan, &go, &failing, ours) {
            Ok(pid) => Some(Begun { pid, going, failures }),
            Err(errno) => {
                eprintln!("skipped: this host makes no namespaces: {errno}");
                None
            }
        }
    }

    /// Kills what does not end by itself.
    fn end_of(pid: Pid) -> Option<WaitStatus> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(5) {
            if let Some((_, status)) = waitpid(Some(pid), WaitOptions::NOHANG).expect("ours") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        rustix::process::kill_process(pid, Signal::KILL).expect("it is there");
        waitpid(Some(pid), WaitOptions::empty()).expect("ours");
        None
    }

    /// The supervisor may be killed between any two of its steps; nothing of
    /// the VMM may then go on, holding the workspace's lock.
    #[test]
    fn r9_a_child_whose_supervisor_dies_before_it_may_go_on_ends() {
        let Some(Begun { pid, going, failures }) = begin() else { return };
        drop((going, failures));
        let status = end_of(pid).expect("it waits for ever");
        assert_eq!(status.exit_status(), Some(125));
    }

    #[test]
    fn r9_a_child_whose_supervisor_dies_while_it_is_confined_does_not_exec() {
        let Some(Begun { pid, mut going, failures }) = begin() else { return };
        map_ids(pid).expect("ids");
        // Now nobody would hear of a failure.
        drop(failures);
        going.write_all(&[1]).expect("it listens");
        let status = end_of(pid).expect("it goes on");
        // By itself, or by SIGPIPE as it wants to report.
        assert!(status.exit_status() == Some(125) || status.terminating_signal() == Some(13));
    }

    #[test]
    fn every_failure_names_its_step() {
        assert!(Failure::parse(&[]).is_none());
        let parse = |bytes: &[u8]| Failure::parse(bytes).map(|failure| failure.step);
        assert_eq!(parse(&[10, 2, 0, 0, 0]), Some("exec"));
        assert_eq!(parse(&[3]), Some("making the private root"));
        assert_eq!(parse(&[255, 1, 0, 0, 0]), Some("starting it"));
    }
}
