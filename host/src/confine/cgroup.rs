//! A cgroup around each VMM, where the host has cgroup v2 for us: what a VMM
//! takes of memory and processes then ends where its guest's share does.
//!
//! The group's name is the workspace's, so whoever comes after a supervisor
//! that was killed finds it. The kernel removes none that anybody is in.

use crate::error::{Error, Result};
use crate::id::WorkspaceId;
use rustix::fs::{Access, access};
use rustix::process::Pid;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The group below the hierarchy's root in which all of ours are.
const PARENT: &str = "pyro";

/// What has to be switched on for our groups.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// How often one is made whose predecessor somebody sweeps away at that moment.
const TRIES_MAX: usize = 10;

/// How much a VMM may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory in bytes: the guest's, and what the VMM needs besides, for a jailed
    /// one also the jail's copy of the program. The page cache of its disks
    /// counts, and is given back first. None of it goes to swap: the guest's
    /// memory stays out of the host's files, and a VMM that takes more than this
    /// is killed and does not eat up the swap instead.
    pub memory_bytes: Option<u64>,
    /// Processes and threads of the VMM; for its watcher there is one more.
    pub pids: Option<u32>,
}

/// Where groups can be made.
#[derive(Debug, Clone)]
pub(super) struct Hierarchy {
    parent: PathBuf,
}

impl Hierarchy {
    /// The host's.
    ///
    /// # Errors
    /// Why there is none for us.
    pub fn find() -> Result<Self, String> {
        Self::at(&mounted()?)
    }

    /// That with its root at a directory.
    fn at(root: &Path) -> Result<Self, String> {
        let path = root.join("cgroup.controllers");
        let has = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if let Some(missing) = CONTROLLERS.into_iter().find(|name| !lists(&has, name)) {
            return Err(format!("{} has no {missing} controller", root.display()));
        }
        let parent = root.join(PARENT);
        let refused =
            |path: &Path, error: std::io::Error| format!("cannot use {}: {error}", path.display());
        match fs::create_dir(&parent) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(refused(&parent, error));
            }
            Ok(()) | Err(_) => {}
        }
        for group in [root, &parent] {
            let path = group.join("cgroup.subtree_control");
            let on = fs::read_to_string(&path).map_err(|error| refused(&path, error))?;
            if !CONTROLLERS.iter().all(|name| lists(&on, name)) {
                fs::write(&path, CONTROLLERS.map(|name| format!("+{name}")).join(" "))
                    .map_err(|error| refused(&path, error))?;
            }
        }
        // Who moves a process needs a say where it comes from, too.
        for path in [&parent, &root.join("cgroup.procs")] {
            access(path, Access::WRITE_OK).map_err(|errno| refused(path, errno.into()))?;
        }
        Ok(Self { parent })
    }

    /// Puts a process into a new group of the workspace's, before it starts any
    /// other.
    pub fn confine(&self, workspace: WorkspaceId, limits: Limits, pid: Pid) -> Result<Group> {
        let path = self.parent.join(workspace.to_string());
        let mut tries = 0;
        loop {
            match fill(&path, limits, pid) {
                Ok(()) => return Ok(Group { path }),
                Err(error) if error.swept() && tries < TRIES_MAX => tries += 1,
                Err(Refused { path, error }) => {
                    // What is empty serves nobody.
                    let _ = fs::remove_dir(self.parent.join(workspace.to_string()));
                    return Err(Error::io(format!("cannot write {}", path.display()), error));
                }
            }
        }
    }

    /// Removes all groups that nobody is in.
    fn sweep(&self) {
        let Ok(groups) = fs::read_dir(&self.parent) else { return };
        for group in groups.flatten() {
            // The kernel refuses those that live, and files are no groups.
            let _ = fs::remove_dir(group.path());
        }
    }
}

struct Refused {
    path: PathBuf,
    error: std::io::Error,
}

impl Refused {
    /// Whether the group vanished: an empty one is anybody's to remove.
    fn swept(&self) -> bool {
        let gone = self.error.raw_os_error() == Some(libc::ENODEV);
        gone || self.error.kind() == ErrorKind::NotFound
    }
}

fn fill(path: &Path, limits: Limits, pid: Pid) -> Result<(), Refused> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(Refused { path: path.to_owned(), error });
        }
        Ok(()) | Err(_) => {}
    }
    let write = |name: &str, text: String| {
        let path = path.join(name);
        fs::write(&path, text).map_err(|error| Refused { path, error })
    };
    let number = |limit: Option<u64>| limit.map_or("max".to_owned(), |limit| limit.to_string());
    write("memory.max", number(limits.memory_bytes))?;
    write("pids.max", number(limits.pids.map(u64::from)))?;
    // A kernel without swap has no such file.
    if path.join("memory.swap.max").exists() {
        write("memory.swap.max", number(limits.memory_bytes.map(|_| 0)))?;
    }
    write("cgroup.procs", pid.as_raw_nonzero().to_string())
}

/// A workspace's group.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Drop for Group {
    fn drop(&mut self) {
        // Should anybody be left in it, the next sweep finds it.
        let _ = fs::remove_dir(&self.path);
    }
}

/// Why VMMs get no limits on this host; `None` when they do.
#[must_use]
pub fn unlimited_because() -> Option<String> {
    Hierarchy::find().err()
}

/// Removes the groups of VMMs whose supervisors were killed. Best effort: what
/// cannot be removed now is there for the next sweep.
pub fn sweep() {
    if let Ok(root) = mounted() {
        Hierarchy { parent: root.join(PARENT) }.sweep();
    }
}

/// The limits of the group that a process is in.
pub(super) fn limits_of(pid: u32) -> Option<Limits> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(limits_at(&mounted().ok()?.join(group)))
}

fn limits_at(group: &Path) -> Limits {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    Limits {
        memory_bytes: read("memory.max"),
        pids: read("pids.max").and_then(|pids| u32::try_from(pids).ok()),
    }
}

fn lists(words: &str, wanted: &str) -> bool {
    words.split_whitespace().any(|word| word == wanted)
}

/// Where the host has its cgroup v2.
fn mounted() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| format!("cannot read /proc/self/mountinfo: {error}"))?;
    find_mount(&mounts).ok_or_else(|| "the host has not mounted cgroup v2".to_owned())
}

/// The first mount of cgroup v2: `ID PARENT DEVICE ROOT POINT OPTIONS ... - TYPE`.
fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        kind.starts_with("cgroup2 ").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files where the kernel would have its own.
    fn hierarchy(controllers: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join(PARENT)).expect("made");
        fs::write(root.path().join("cgroup.controllers"), controllers).expect("written");
        for group in ["", PARENT] {
            let path = root.path().join(group).join("cgroup.subtree_control");
            fs::write(path, "cpu\n").expect("written");
        }
        fs::write(root.path().join("cgroup.procs"), "").expect("written");
        root
    }

    fn me() -> Pid {
        rustix::process::getpid()
    }

    #[test]
    fn controllers_are_switched_on_down_to_the_groups() {
        let root = hierarchy("cpuset cpu io memory pids\n");
        Hierarchy::at(root.path()).expect("it is usable");
        for group in ["", PARENT] {
            let path = root.path().join(group).join("cgroup.subtree_control");
            assert_eq!(fs::read_to_string(path).expect("readable"), "+memory +pids");
        }
    }

    #[test]
    fn a_host_without_the_controllers_says_so() {
        let root = hierarchy("cpu memory\n");
        let reason = Hierarchy::at(root.path()).expect_err("no pids");
        assert!(reason.ends_with("has no pids controller"), "{reason}");
        let reason = Hierarchy::at(Path::new("/no/such")).expect_err("nothing there");
        assert!(reason.contains("/no/such/cgroup.controllers"), "{reason}");
    }

    #[test]
    fn a_group_has_its_limits_before_its_process() {
        let root = hierarchy("memory pids");
        let hierarchy = Hierarchy::at(root.path()).expect("it is usable");
        let limits = Limits { memory_bytes: Some(1 << 30), pids: Some(64) };
        let id: WorkspaceId = "0123456789ab".parse().expect("an id");
        let swap = root.path().join("pyro/0123456789ab/memory.swap.max");
        fs::create_dir(swap.parent().expect("a group")).expect("made");
        fs::write(swap, "max").expect("written");
        let group = hierarchy.confine(id, limits, me()).expect("it is made");
        assert!(group.path.ends_with("pyro/0123456789ab"));
        let read = |name: &str| fs::read_to_string(group.path.join(name)).expect("readable");
        assert_eq!(read("memory.swap.max"), "0");
        assert_eq!(read("cgroup.procs"), me().as_raw_nonzero().to_string());
        assert_eq!(limits_at(&group.path), limits);
        let none = hierarchy.confine(id, Limits::default(), me()).expect("it is there already");
        assert_eq!(read("memory.max"), "max");
        assert_eq!(limits_at(&none.path), Limits::default());
    }

    #[test]
    fn a_sweep_takes_what_is_empty() {
        let root = hierarchy("memory pids");
        let hierarchy = Hierarchy::at(root.path()).expect("it is usable");
        let group = |name: &str| root.path().join(PARENT).join(name);
        fs::create_dir_all(group("full/process")).expect("made");
        fs::create_dir(group("empty")).expect("made");
        hierarchy.sweep();
        assert!(!group("empty").exists());
        assert!(group("full").exists());
        assert!(group("cgroup.subtree_control").exists());
    }

    #[test]
    fn the_mount_is_found_among_others() {
        let mounts = "\
            22 1 0:21 / /proc rw - proc proc rw\n\
            30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(mounts), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(find_mount("31 2 0:9 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids"), None);
    }
}
