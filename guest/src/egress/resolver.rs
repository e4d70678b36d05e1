//! Whom the guest's programs ask for addresses: /etc/resolv.conf, while it is ours.

use crate::log;
use std::fmt::Write;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

const PATH: &str = "/etc/resolv.conf";

/// How a file of ours begins. One that begins otherwise is the user's, and stays.
const OURS: &str = "# pyro";

/// Without a network a lookup fails at once, not after asking servers that are
/// not there.
const NOWHERE: &str = "# pyro: names are not resolved without a network policy\n";

/// The most of a file that is looked at.
const FILE_MAX: u64 = 64 * 1024;

/// Has programs ask somebody, for as long as this lives; then nobody.
#[derive(Debug)]
pub(super) struct Resolver(());

impl Resolver {
    /// Has programs ask these.
    pub(super) fn point_to(servers: &[IpAddr]) -> Self {
        let mut content = format!("{OURS}: names are resolved as the network policy allows\n");
        for server in servers {
            // Writing to a string does not fail.
            let _ = writeln!(content, "nameserver {server}");
        }
        write(Path::new(PATH), &content);
        Self(())
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        write(Path::new(PATH), NOWHERE);
    }
}

fn write(path: &Path, content: &str) {
    match is_ours(path).and_then(|ours| if ours { replace(path, content) } else { Ok(()) }) {
        Ok(()) => {}
        Err(error) => log::warn(format_args!("writing {}: {error}", path.display())),
    }
}

/// Also one that is not there.
fn is_ours(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(meta) if !meta.is_file() || meta.len() > FILE_MAX => Ok(false),
        Ok(_) => Ok(fs::read(path)?.starts_with(OURS.as_bytes())),
    }
}

/// Whoever reads it meanwhile reads the one or the other.
fn replace(path: &Path, content: &str) -> io::Result<()> {
    let new = path.with_added_extension("pyro-new");
    fs::write(&new, content)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("resolv.conf");
        write(&path, NOWHERE);
        assert_eq!(fs::read_to_string(&path).unwrap(), NOWHERE);
        write(&path, "# pyro: other\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# pyro: other\n");
        fs::write(&path, "nameserver 9.9.9.9\n").unwrap();
        write(&path, NOWHERE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 9.9.9.9\n");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        write(&path, NOWHERE);
        assert!(!home.path().join("elsewhere").exists());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
