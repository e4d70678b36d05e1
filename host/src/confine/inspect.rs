//! Reads from /proc what a running VMM may do: what was promised is checked,
//! not believed.

use super::cgroup::{Limits, limits_of, unlimited_because};
use super::{VMM_UID, jail};
use crate::error::{Error, Result};
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The namespaces that a VMM must not share with pyro.
const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What a process may do, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its user id on the host.
    pub uid: u32,
    /// Capabilities that it has or hands on, as the kernel's bit masks added up.
    pub capabilities: u64,
    /// Capabilities that bound what a program could gain by being executed, were
    /// it not barred from new privileges.
    pub bounding: u64,
    /// Whether it can gain none.
    pub no_new_privs: bool,
    /// Whether a seccomp filter is on every thread.
    pub seccomp: bool,
    /// Namespaces that it shares with this process.
    pub shared_namespaces: Vec<String>,
    /// Whether what it calls `/` is another directory than this process's.
    pub own_root: bool,
    /// What its cgroup lets it take.
    pub limits: Limits,
}

/// Looks at a process.
pub fn inspect(pid: u32) -> Result<Inspection> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(|error| Error::io(format!("cannot read {path}"), error))
    };
    let status = read("status")?;
    let field = |name: &str| field(&status, name);
    let mask = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(u64::MAX);
    let shared_namespaces = NAMESPACES
        .iter()
        .filter(|name| {
            let link = |who: &str| fs::read_link(format!("/proc/{who}/ns/{name}")).ok();
            // One that cannot be read counts as shared: nothing is proven.
            link(&pid.to_string()).is_none_or(|theirs| Some(theirs) == link("self"))
        })
        .map(|name| (*name).to_owned())
        .collect();
    Ok(Inspection {
        uid: field("Uid").parse().unwrap_or(0),
        capabilities: ["CapInh", "CapPrm", "CapEff", "CapAmb"]
            .iter()
            .fold(0, |all, name| all | mask(name)),
        bounding: mask("CapBnd"),
        no_new_privs: field("NoNewPrivs") == "1",
        seccomp: is_filtered(pid),
        shared_namespaces,
        own_root: root(&pid.to_string()).is_some_and(|theirs| Some(theirs) != root("self")),
        limits: limits_of(pid).unwrap_or_default(),
    })
}

/// A line's first word.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap_or_default()
}

/// Firecracker gives each thread a filter of its own, the first one when the
/// guest starts.
fn is_filtered(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        match fs::read_to_string(thread.path().join("status")) {
            Ok(status) => field(&status, "Seccomp") == "2",
            // It ended meanwhile.
            Err(_) => true,
        }
    })
}

/// Which directory somebody calls `/`.
fn root(who: &str) -> Option<(u64, u64)> {
    let meta = fs::metadata(format!("/proc/{who}/root/.")).ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Inspection {
    /// What is not as docs/security.md promises. Limits are promised only where
    /// the host has them to give.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        if self.uid == 0 {
            gaps.push("without root's user id".to_owned());
        }
        if self.capabilities != 0 {
            gaps.push(format!("without capabilities ({:x})", self.capabilities));
        }
        if self.bounding & !self.bounding_allowed() != 0 {
            gaps.push(format!("bounded in its capabilities ({:x})", self.bounding));
        }
        if !self.no_new_privs {
            gaps.push("barred from new privileges".to_owned());
        }
        if !self.seccomp {
            gaps.push("under seccomp".to_owned());
        }
        let shared: Vec<&str> = self.shared_namespaces.iter().map(String::as_str).collect();
        if !(shared.is_empty() || self.is_jailed()) {
            gaps.push(format!("in its own namespaces ({})", shared.join(" ")));
        }
        if !self.own_root {
            gaps.push("in a root of its own".to_owned());
        }
        gaps
    }

    /// Whether it is in the one namespace of the host's that the jailer leaves
    /// it in, as a user that nobody else is.
    fn is_jailed(&self) -> bool {
        self.shared_namespaces == ["user"] && self.uid == VMM_UID
    }

    fn bounding_allowed(&self) -> u64 {
        if self.is_jailed() { jail::CAPABILITIES.bits() } else { 0 }
    }

    fn limited(&self) -> String {
        match (self.limits.memory_bytes, self.limits.pids) {
            (None, None) => {
                let reason = unlimited_because();
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!("no limit on memory and processes{reason}")
            }
            (memory, pids) => {
                let memory = memory.map(|bytes| format!("memory at most {} MiB", bytes >> 20));
                let pids = pids.map(|pids| format!("processes at most {pids}"));
                memory.into_iter().chain(pids).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "user {}, capabilities {:x}, no new privileges {}, seccomp {}, own namespaces {} of {}{}, \
             own root {}, {}",
            self.uid,
            self.capabilities,
            self.no_new_privs,
            self.seccomp,
            NAMESPACES.len() - self.shared_namespaces.len(),
            NAMESPACES.len(),
            if self.is_jailed() { " (jailed)" } else { "" },
            self.own_root,
            self.limited()
        )
    }
}
