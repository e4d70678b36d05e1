//! A workspace that a part of the benchmark works in.

use crate::Result;
use crate::children;
use crate::guest::{self, ENVIRONMENT, only_child};
use crate::report::{Figure, Goal, Row};
use crate::sample::Series;
use pyro_protocol::VsockPort;
use pyro_smoke::Home;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// Should the benchmark be killed, its workspaces end by themselves.
const TTL_SECONDS: &str = "3600";

/// Says the peaks of all processes that are the agent's program.
const AGENT_PEAKS: &str = "for process in /proc/[0-9]*; do
    [ $process/exe -ef /proc/1/exe ] && sed -n 's/VmHWM://p' $process/status; done; true";

/// What the agent may hold in memory, whatever it was asked for.
const AGENT_MEMORY_MIB: f64 = 32.0;

pub struct Workspace<'home> {
    home: &'home Home,
    id: String,
    /// The directory with the endpoint, as short as a socket's address must be.
    directory: File,
}

impl<'home> Workspace<'home> {
    /// Makes and starts one.
    pub fn create(home: &'home Home, options: &[&str]) -> Result<Self> {
        let ttl = ["--ttl-seconds", TTL_SECONDS, "--ttl-action", "delete"];
        let words = [&["workspace", "create", ENVIRONMENT, "--id-only"], &ttl[..], options];
        let mut command = guest::pyro(home, &words.concat());
        command.stderr(Stdio::null());
        let id = children::output(command)?.trim_end().to_owned();
        let directory = File::open(home.path().join("state/workspaces").join(&id))?;
        Ok(Self { home, id, directory })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// `pyro workspace VERB.. ID ARGUMENT..`, to its end.
    pub fn ask(&self, verb: &[&str], arguments: &[&str]) -> Result<String> {
        let words = [&["workspace"], verb, &[&self.id], arguments].concat();
        children::output(guest::pyro(self.home, &words))
    }

    /// The output of a shell's line in the guest.
    pub fn shell(&self, line: &str) -> Result<String> {
        self.ask(&["exec"], &["--timeout-seconds", "1800", "--shell", line])
    }

    /// A connection to a vsock port of the guest, with no `pyro` in between.
    pub fn connect(&self, port: VsockPort) -> Result<UnixStream> {
        guest::connect(&self.directory, port)
    }

    /// The most that the agent has had in memory: of the first process, which
    /// only watches it, and itself, the larger.
    pub fn agent_memory(&self, title: &'static str) -> Result<Figure> {
        let mut most = Series::default();
        for line in self.shell(AGENT_PEAKS)?.lines() {
            let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
            most.push(kib / 1024.0);
        }
        Ok(Figure {
            title,
            goal: Goal::at_most(most.max(), AGENT_MEMORY_MIB, "MiB"),
            rows: vec![Row::new("resident at most, of its two processes", "MiB", most)],
            notes: vec![],
        })
    }

    /// The process that keeps it: the parent of the one that has its disk open.
    pub fn supervisor(&self) -> Result<libc::pid_t> {
        let lives = self.home.processes();
        let mut pids = lives.iter().filter_map(|(pid, _)| libc::pid_t::try_from(*pid).ok());
        pids.find(|pid| self.is_disk_open_in(only_child(*pid).ok()))
            .ok_or_else(|| "the workspace has no supervisor".into())
    }

    fn is_disk_open_in(&self, vmm: Option<libc::pid_t>) -> bool {
        let Some(vmm) = vmm else { return false };
        let open = fs::read_dir(format!("/proc/{vmm}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|file| file.to_string_lossy().contains(&self.id))
    }
}

impl Drop for Workspace<'_> {
    fn drop(&mut self) {
        drop(self.ask(&["delete"], &[]));
    }
}
