//! The few files of /etc that say who a machine is.

use super::Identity;
use crate::log;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The most of an existing file that is looked at.
const FILE_MAX: u64 = 64 * 1024;

/// The line of /etc/hosts that is ours, by Debian's custom.
const OWN_ADDRESS: &str = "127.0.1.1";

/// What the name of a file ends with that is not complete.
const UNFINISHED: &str = "pyro-new";

/// What a guest without one gets: a lookup then fails at once, not after
/// asking servers that are not there.
const RESOLV_CONF: &str = "# pyro: names are not resolved without a network policy\n";

/// Writes them into an upper layer that has no /etc yet, beneath which `base`
/// is to be. Through the overlay each would be copied up first.
pub(super) fn write_beneath(base: &Path, upper: &Path, who: &Identity) {
    if let Err(error) = DirBuilder::new().mode(0o755).create(upper.join("etc")) {
        return complain("etc", &error);
    }
    for (path, content) in files(base, who) {
        fs::write(upper.join(path), content).unwrap_or_else(|error| complain(path, &error));
    }
}

/// Writes what is not as it should be.
pub(super) fn write(root: &Path, who: &Identity) {
    for (path, content) in files(root, who) {
        replace(&root.join(path), &content).unwrap_or_else(|error| complain(path, &error));
    }
}

/// Whatever has become of /etc, what else is in the workspace must be reached.
fn complain(path: &str, error: &io::Error) {
    log::warn(format_args!("writing /{path}: {error}"));
}

/// Puts another file in place of one with another content, or of a link: who
/// knows what it leads to. Until it is whole, on a full disk for ever, the old
/// one stays.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let there = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
    if there.is_some() && read(path) == content {
        return Ok(());
    }
    let new = path.with_added_extension(UNFINISHED);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mode = there.map_or(0o644, |meta| meta.mode() & 0o7777);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    let written = file.write_all(content.as_bytes()).and_then(|()| fs::rename(&new, path));
    written.inspect_err(|_| {
        // What is left is in nobody's way, here or the next time.
        let _ = fs::remove_file(&new);
    })
}

/// What they are to contain, given what they do.
fn files(root: &Path, who: &Identity) -> Vec<(&'static str, String)> {
    let mut files = vec![
        ("etc/hostname", format!("{}\n", who.hostname)),
        ("etc/machine-id", format!("{}\n", who.machine_id)),
        ("etc/hosts", hosts(&read(&root.join("etc/hosts")), &who.hostname)),
    ];
    if !root.join("etc/resolv.conf").exists() {
        files.push(("etc/resolv.conf", RESOLV_CONF.to_owned()));
    }
    files
}

/// What is absent, unreadable, too long or no text starts over.
fn read(path: &Path) -> String {
    let is_ours =
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= FILE_MAX);
    if is_ours { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// The table with our line in place of an older one; the rest is the user's.
fn hosts(old: &str, hostname: &str) -> String {
    let own = format!("{OWN_ADDRESS} {hostname}");
    let is_own = |line: &str| line.split_whitespace().next() == Some(OWN_ADDRESS);
    let has_localhost =
        old.lines().any(|line| line.split_whitespace().skip(1).any(|name| name == "localhost"));
    let mut lines = Vec::new();
    if !has_localhost {
        lines.extend(["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]);
    }
    let mut placed = false;
    for line in old.lines() {
        match (is_own(line), placed) {
            (false, _) => lines.push(line),
            (true, false) => {
                lines.push(&own);
                placed = true;
            }
            (true, true) => {}
        }
    }
    if !placed {
        lines.push(&own);
    }
    lines.join("\n") + "\n"
}

/// 1 to 63 of `[a-z0-9-]`, no hyphen at either end.
pub(super) fn is_hostname(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// 32 lower-case hexadecimal digits.
pub(super) fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_table_gets_localhost_and_ourselves() {
        let table = hosts("", "build-1");
        assert_eq!(
            table,
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 build-1\n"
        );
    }

    fn who() -> Identity {
        Identity {
            entropy: [0; pyro_protocol::power::ENTROPY_LEN],
            clock_offset_ns: 0,
            hostname: "build-1".into(),
            machine_id: "0".repeat(32),
            seeded: false,
        }
    }

    #[test]
    fn r13_what_cannot_be_written_keeps_nothing_else_from_it() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        // As after `rm -rf /etc`: nothing to write into, and no more to say.
        write(root.path(), &who());
        write_beneath(root.path(), &root.path().join("absent"), &who());
        fs::create_dir_all(etc.join("hostname")).unwrap();
        fs::create_dir_all(etc.join("machine-id.pyro-new")).unwrap();
        std::os::unix::fs::symlink("hosts", etc.join("hosts")).unwrap();
        write(root.path(), &who());
        assert!(etc.join("hostname").is_dir());
        let hosts = fs::read_to_string(etc.join("hosts")).unwrap();
        assert!(hosts.ends_with("127.0.1.1 build-1\n"), "{hosts}");
    }

    #[test]
    fn r5_a_file_that_is_replaced_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("etc/machine-id");
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        write(root.path(), &who());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", who().machine_id));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o444);
        let mut names: Vec<_> = fs::read_dir(root.path().join("etc"))
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["hostname", "hosts", "machine-id", "resolv.conf"]);
    }

    #[test]
    fn the_users_lines_stay() {
        let table = hosts("127.0.0.1 localhost\n127.0.1.1 old\n10.0.0.1 mirror\n", "new");
        assert_eq!(table, "127.0.0.1 localhost\n127.0.1.1 new\n10.0.0.1 mirror\n");
    }

    #[test]
    fn hostnames() {
        for good in ["a", "a-b", "0", &"x".repeat(63)] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", &"x".repeat(64)] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_second_activation_changes_nothing(old in "\\PC{0,200}", hostname in "[a-z]{1,9}") {
            let once = hosts(&old, &hostname);
            prop_assert_eq!(hosts(&once, &hostname), once);
        }
    }
}
