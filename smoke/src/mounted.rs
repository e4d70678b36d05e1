//! File systems of a story's own, which go away with it however it ends.

use crate::tool;
use rustix::fs::statvfs;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a story may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// In memory, of so many bytes at most.
    Small(u64),
    /// An XFS of so many bytes, which copies by reference. Sparse: it costs what
    /// is written.
    ByReference(u64),
}

/// One that is mounted, until this is dropped. Only this thread and what it starts
/// see it: when they are gone, killed even, so are the mount and its loop device.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// Mounts one on a directory.
    ///
    /// # Errors
    /// Why this host cannot.
    pub fn on(at: &Path, file_system: FileSystem) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can mount a file system".into());
        }
        keep_to_ourselves()?;
        let mut mount = Command::new("mount");
        match file_system {
            FileSystem::Small(bytes) => {
                run(mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(at))?;
            }
            FileSystem::ByReference(bytes) => {
                let image = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
                image.as_file().set_len(bytes).map_err(|error| error.to_string())?;
                let mut format = tool("mkfs.xfs").ok_or("there is no mkfs.xfs")?;
                run(format.args(["-q", "-f", "-m", "reflink=1"]).arg(image.path()))?;
                // The loop device has the file, which needs no name any more, and is
                // released with the mount.
                run(mount.args(["-o", "loop"]).args([image.path(), at]))?;
            }
        }
        Ok(Self { at: at.to_owned() })
    }

    /// Gives one in memory another size; no less than what is written.
    ///
    /// # Panics
    /// When it cannot have it.
    pub fn resize(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        run(Command::new("mount").args(["-o", &size]).arg(&self.at)).expect("it can be resized");
    }

    /// The bytes that are taken.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn used(&self) -> u64 {
        // What is written and has no block yet is to have one.
        run(Command::new("sync").arg("-f").arg(&self.at)).expect("it is there");
        let room = statvfs(&self.at).expect("it is there");
        (room.f_blocks - room.f_bfree) * room.f_frsize
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.at)).is_ok() {
            return;
        }
        // Somebody who is still there has a file open; it goes with them.
        let detached = run(Command::new("umount").arg("--lazy").arg(&self.at));
        if !std::thread::panicking() {
            panic!("{} was in use to the end; detached: {detached:?}", self.at.display());
        }
    }
}

/// What this thread mounts from now on nobody else sees.
fn keep_to_ourselves() -> Result<(), String> {
    // SAFETY: mounts are apart from now on, and with them this thread's working
    // directory; descriptors, the danger of this call, stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(|errno| errno.to_string())?;
    run(Command::new("mount").args(["--make-rprivate", "/"]))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{command:?}: {}", said.trim()))
        }
    }
}
