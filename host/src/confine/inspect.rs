//! Reads from /proc what a running VMM may do: what was promised is checked,
//! not believed.

use crate::error::{Error, Result};
use std::fmt;
use std::fs;

/// The namespaces that a VMM must not share with pyro.
const NAMESPACES: &[&str] = &["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What a process may do, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its user id on the host.
    pub uid: u32,
    /// Capabilities of any kind, as the kernel's bit masks added up.
    pub capabilities: u64,
    /// Whether it can gain none.
    pub no_new_privs: bool,
    /// Whether a seccomp filter is on.
    pub seccomp: bool,
    /// Namespaces that it shares with this process.
    pub shared_namespaces: Vec<String>,
}

/// Looks at a process.
pub fn inspect(pid: u32) -> Result<Inspection> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(|error| Error::io(format!("cannot read {path}"), error))
    };
    let status = read("status")?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or_default()
    };
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
        capabilities: ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
            .iter()
            .fold(0, |all, name| all | mask(name)),
        no_new_privs: field("NoNewPrivs") == "1",
        seccomp: field("Seccomp") == "2",
        shared_namespaces,
    })
}

impl Inspection {
    /// What is not as docs/security.md promises.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let mut gaps = Vec::new();
        if self.uid == 0 {
            gaps.push("without root's user id".to_owned());
        }
        if self.capabilities != 0 {
            gaps.push(format!("without capabilities ({:x})", self.capabilities));
        }
        if !self.no_new_privs {
            gaps.push("barred from new privileges".to_owned());
        }
        if !self.seccomp {
            gaps.push("under seccomp".to_owned());
        }
        if !self.shared_namespaces.is_empty() {
            gaps.push(format!("in its own namespaces ({})", self.shared_namespaces.join(" ")));
        }
        gaps
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "user {}, capabilities {:x}, no new privileges {}, seccomp {}, own namespaces {} of {}",
            self.uid,
            self.capabilities,
            self.no_new_privs,
            self.seccomp,
            NAMESPACES.len() - self.shared_namespaces.len(),
            NAMESPACES.len()
        )
    }
}
