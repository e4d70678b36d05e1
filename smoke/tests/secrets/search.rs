//! Looking for a secret wherever it might have been told.

use pyro_smoke::Home;
use std::fs;
use std::path::Path;

pub const CANARY: &str = "canary-7f3e91c2~token/of%no+use";

/// What of it stays the same however it is spelled: its beginning, and that in
/// base64.
const NEEDLES: [&str; 2] = ["canary-7f3e91c2", "Y2FuYXJ5LTdmM2U5MWMy"];

/// Whether the canary, or a part of it, is in there.
pub fn tells(content: &[u8]) -> bool {
    NEEDLES.iter().any(|needle| content.windows(needle.len()).any(|it| it == needle.as_bytes()))
}

/// Which of the files below a directory tell. A disk is the guest's own.
pub fn telling_files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    look_below(directory, &mut found);
    found
}

fn look_below(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        let meta = path.symlink_metadata().expect("it is there");
        // It is mostly holes.
        let is_disk = meta.len() >= 64 << 20;
        if meta.is_dir() {
            look_below(&path, found);
        } else if meta.is_file() && !is_disk && tells(&fs::read(&path).expect("readable")) {
            found.push(path.display().to_string());
        }
    }
}

/// Which processes of a home tell, and where: commands, supervisors with their
/// gateways, VMMs.
pub fn telling_processes(home: &Home) -> Vec<String> {
    let mut found = Vec::new();
    for (pid, line) in home.processes() {
        for place in ["cmdline", "environ"] {
            // It may have ended since.
            if tells(&fs::read(format!("/proc/{pid}/{place}")).unwrap_or_default()) {
                found.push(format!("{place} of {}", line.split(' ').next().unwrap_or_default()));
            }
        }
    }
    found
}

/// The same in the guest, whose root may read all of it. Says which programs tell
/// it, and where.
pub const IN_GUEST: &str = r#"
import os
secret = open("/run/pyro-secrets/TOKEN", "rb").read().strip()[:15]
found = set()
for pid in filter(str.isdigit, os.listdir("/proc")):
    for place in ("cmdline", "environ"):
        try:
            told = open(f"/proc/{pid}/{place}", "rb").read()
            name = open(f"/proc/{pid}/comm").read().strip()
        except OSError: continue
        if secret in told: found.add(f"{place} of {name}")
print("\n".join(sorted(found)))
"#;
