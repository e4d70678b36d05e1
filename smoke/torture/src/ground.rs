//! Where it all happens: a home whose workspaces lie on a small file system of
//! their own, so that its end can be reached.

use crate::caller;
use crate::tally::Tally;
use pyro_smoke::Home;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;

/// Room for some workspaces with their snapshots, each of some MiB.
const FILE_SYSTEM_MIB: u64 = 3072;

/// How long what was killed last may take to be gone.
const CLEAN_MAX: Duration = Duration::from_secs(60);

pub struct Ground {
    pub home: Home,
    disk: Result<NamedTempFile, String>,
}

impl Ground {
    pub fn prepare() -> Self {
        let home = Home::new();
        let disk = mount(&home);
        Self { home, disk }
    }

    /// Why its disk cannot be made to fail, if it cannot.
    pub fn lacks(&self) -> Option<&str> {
        self.disk.as_ref().err().map(String::as_str)
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Takes all the room there is, and gives it back when dropped.
    pub fn fill(&self) -> Option<Ballast> {
        self.disk.as_ref().ok()?;
        let path = self.state().join("ballast");
        let file = File::create(&path).ok()?;
        // Down to the last block.
        for shift in (12..=30).rev() {
            let length = 1_u64 << shift;
            loop {
                let end = file.metadata().map_or(0, |meta| meta.len());
                let flags = rustix::fs::FallocateFlags::empty();
                if rustix::fs::fallocate(&file, flags, end, length).is_err() {
                    break;
                }
            }
        }
        Some(Ballast(path))
    }

    /// Lets nobody write, until that is dropped. Nobody may have a file open to
    /// write.
    pub fn protect(&self) -> Option<ReadOnly> {
        self.disk.as_ref().ok()?;
        let state = self.state();
        remount(&state, "ro").then_some(ReadOnly(state))
    }

    /// Says what is left once all workspaces are deleted.
    pub fn check_clean(&self, tally: &Tally) {
        // What is left of the dead, the next command sweeps.
        drop(caller::list(self));
        if let Some(stays) = self.home.stays_after(CLEAN_MAX, "\0") {
            tally.violation(format!("at the end there is still {stays}"));
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.disk.is_ok() {
            run(Command::new("umount").arg("--lazy").arg(self.state()));
        }
    }
}

pub struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

pub struct ReadOnly(PathBuf);

impl Drop for ReadOnly {
    fn drop(&mut self) {
        remount(&self.0, "rw");
    }
}

fn remount(at: &PathBuf, how: &str) -> bool {
    run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(at))
}

fn mount(home: &Home) -> Result<NamedTempFile, String> {
    let image = NamedTempFile::new().map_err(|error| error.to_string())?;
    image.as_file().set_len(FILE_SYSTEM_MIB << 20).map_err(|error| error.to_string())?;
    let state = home.path().join("state");
    fs::create_dir(&state).map_err(|error| error.to_string())?;
    if !run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-m", "0"]).arg(image.path())) {
        return Err("mke2fs cannot make a file system".into());
    }
    if !run(Command::new("mount").args(["-o", "loop"]).args([image.path(), &state])) {
        return Err("only root can mount a file system to fill".into());
    }
    run(Command::new("chmod").arg("700").arg(&state));
    Ok(image)
}

fn run(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}
