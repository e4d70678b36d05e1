//! The few files of /etc that say who a machine is.

use super::Identity;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// The most of an existing file that is looked at.
const FILE_MAX: u64 = 64 * 1024;

/// The line of /etc/hosts that is ours, by Debian's custom.
const OWN_ADDRESS: &str = "127.0.1.1";

/// What a guest without one gets: a lookup then fails at once, not after
/// asking servers that are not there.
const RESOLV_CONF: &str = "# pyro: names are not resolved without a network policy\n";

/// Writes them into an upper layer that has no /etc yet, beneath which `base`
/// is to be. Through the overlay each would be copied up first.
pub(super) fn write_beneath(base: &Path, upper: &Path, who: &Identity) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(upper.join("etc"))?;
    for (path, content) in files(base, who)? {
        fs::write(upper.join(path), content)?;
    }
    Ok(())
}

/// Writes what is not as it should be.
pub(super) fn write(root: &Path, who: &Identity) -> io::Result<()> {
    for (path, content) in files(root, who)? {
        let path = root.join(path);
        if read(&path)? == content {
            continue;
        }
        // A link is replaced, not followed: who knows what it leads to.
        if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            fs::remove_file(&path)?;
        }
        fs::write(path, content)?;
    }
    Ok(())
}

/// What they are to contain, given what they do.
fn files(root: &Path, who: &Identity) -> io::Result<Vec<(&'static str, String)>> {
    let mut files = vec![
        ("etc/hostname", format!("{}\n", who.hostname)),
        ("etc/machine-id", format!("{}\n", who.machine_id)),
        ("etc/hosts", hosts(&read(&root.join("etc/hosts"))?, &who.hostname)),
    ];
    if !root.join("etc/resolv.conf").exists() {
        files.push(("etc/resolv.conf", RESOLV_CONF.to_owned()));
    }
    Ok(files)
}

/// An absent file is an empty one; what is too long or no text starts over.
fn read(path: &Path) -> io::Result<String> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= FILE_MAX => {
            Ok(String::from_utf8(fs::read(path)?).unwrap_or_default())
        }
        Ok(_) => Ok(String::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
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
