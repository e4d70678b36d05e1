/// A named choice of tools: the fewer a model sees, the better it chooses.
#[derive(Debug)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// Its tools; `None` is all there are.
    pub tools: Option<&'static [Offer]>,
    /// How much of answers it describes.
    pub answers: Answers,
}

/// A tool of a profile.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// Its name.
    pub tool: &'static str,
    /// Arguments that the profile does not tell of. All are optional.
    pub without: &'static [&'static str],
}

/// How much a tool's output schema says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Every field with its type, and which are always there.
    Typed,
    /// The names of the first fields that are always there. The reference has the
    /// rest, and types; a model reads an answer without either.
    Named,
}

const fn whole(tool: &'static str) -> Offer {
    Offer { tool, without: &[] }
}

/// Every profile, the default first.
pub const PROFILES: &[Profile] = &[
    Profile {
        name: "workspace-core",
        about: "The loop of a coding agent: create, work, review, take out",
        tools: Some(CORE),
        answers: Answers::Named,
    },
    Profile { name: "workspace-full", about: "Every tool", tools: None, answers: Answers::Typed },
    Profile {
        name: "vm-run",
        about: "Programs in machines that are gone afterwards",
        tools: Some(&[whole("vm_run")]),
        answers: Answers::Typed,
    },
];

/// What an agent needs from the first step of its loop to the last, and no more.
///
/// - `workspace_start`, because a workspace whose time is over is stopped, and
///   only that brings it back; `workspace_stop` and `workspace_update` are
///   housekeeping, which the person at the command line does.
/// - `workspace_list` tells of each workspace what the others need;
///   `workspace_status` says the rest to who is curious.
/// - `process_poll` and `process_signal` look after a server that was started
///   and a build that takes long; `process_poll` waits too. Input for programs
///   (`process_write`) is for the few.
/// - `workspace_logs` has the rest of an output that was too long to show.
/// - Files are read, written and edited by tools of their own, which quote
///   nothing and show pages; to list and to search them, any shell will do.
/// - `vm_run` does in one call what create, exec and delete do in three, and
///   keeps nothing; it has a profile of its own.
/// - Size and lifetime of the machine are left to the person, and so is what a
///   model seldom has a reason to change, or says in the command itself.
const CORE: &[Offer] = &[
    Offer {
        tool: "workspace_create",
        without: &[
            "from",
            "labels",
            "secrets",
            "vcpu_count",
            "disk_mib",
            "disk_mib_per_second",
            "disk_ops_per_second",
            "network_policy",
            "allow",
            "network_connections",
            "network_up_kib_per_second",
            "network_down_kib_per_second",
            "ttl_seconds",
            "ttl_action",
        ],
    },
    Offer { tool: "workspace_list", without: &["labels"] },
    whole("workspace_start"),
    Offer {
        tool: "workspace_exec",
        without: &["env", "user", "secret_env", "keep_stdin", "output_limit_bytes"],
    },
    Offer { tool: "workspace_logs", without: &["limit"] },
    Offer { tool: "process_poll", without: &["limit_bytes"] },
    whole("process_signal"),
    Offer { tool: "workspace_file_read", without: &["content_only"] },
    Offer { tool: "workspace_file_write", without: &["text_file", "append", "create_new"] },
    Offer { tool: "workspace_file_edit", without: &["count"] },
    Offer { tool: "workspace_sync_push", without: &["dry_run", "checksum"] },
    Offer {
        tool: "workspace_diff",
        without: &["system", "null", "name_only", "output_limit_bytes"],
    },
    Offer {
        tool: "workspace_patch_apply",
        without: &["patch_file", "strip", "dry_run", "reverse"],
    },
    Offer { tool: "workspace_export", without: &["format", "max_bytes"] },
    Offer { tool: "workspace_reset", without: &["snapshot"] },
    whole("workspace_delete"),
];

impl Profile {
    /// What it offers of this tool.
    #[must_use]
    pub fn offer(&self, tool: &'static str) -> Option<Offer> {
        match self.tools {
            None => Some(whole(tool)),
            Some(offers) => offers.iter().find(|offer| offer.tool == tool).copied(),
        }
    }
}
