//! Secrets, as files in memory that root alone reads.

use crate::beneath;
use crate::guest::{Guest, Machine};
use pyro_protocol::secret::{COUNT_MAX, Secret, SecretsSet, SetSecrets, TOTAL_MAX};
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, mkdirat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

/// Where the kernel keeps all in memory.
const RUN: &str = "/run";

/// The directory's name there.
const NAME: &str = "pyro-secrets";

/// Its name until all are in it, and again until the old ones are gone.
const OTHER: &str = ".pyro-secrets-other";

/// The longest name of a secret.
const NAME_MAX: usize = 64;

/// As of <linux/magic.h>.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// One change at a time.
static CHANGING: Mutex<()> = Mutex::new(());

/// Answers `SetSecrets`.
pub(crate) fn set(guest: &Guest, call: SetSecrets) -> Result<SecretsSet, AgentError> {
    guest.require_activated()?;
    check(&call.secrets)?;
    let replaced = directory(guest).and_then(|within| replace(&within, &call.secrets));
    replaced.map(|()| SecretsSet).map_err(|error| {
        let text = format!("the secrets cannot be put into {RUN}/{NAME}: {error}");
        AgentError::new(AgentErrorKind::System, text)
    })
}

fn check(secrets: &[Secret]) -> Result<(), AgentError> {
    let invalid = |text: String| Err(AgentError::new(AgentErrorKind::InvalidArgument, text));
    let total: usize = secrets.iter().map(|secret| secret.value.0.len()).sum();
    if secrets.len() > COUNT_MAX || total > TOTAL_MAX {
        return invalid(format!("{} secrets of {total} bytes are too many", secrets.len()));
    }
    match secrets.iter().find(|secret| !is_name(&secret.name)) {
        Some(secret) => invalid(format!("{:?} is no name of a secret", secret.name)),
        None => Ok(()),
    }
}

/// A file's name and nothing else.
fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// What the directory is in. A program may have mounted something there that is
/// no memory.
fn directory(guest: &Guest) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match &guest.machine {
        Machine::InProcess { disk, .. } => disk.open(),
        Machine::Virtual { .. } => {
            let run = rustix::fs::open(RUN, flags, Mode::empty())?;
            match rustix::fs::fstatfs(&run)?.f_type as u64 {
                TMPFS_MAGIC => Ok(run),
                _ => Err(io::Error::other("it is no file system in memory")),
            }
        }
    }
}

/// Puts the directory in place at once, whatever was there before.
fn replace(within: &OwnedFd, secrets: &[Secret]) -> io::Result<()> {
    // No code panics while it holds the lock, and there is nothing behind it.
    let _one_at_a_time = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    remove(within, OTHER)?;
    if secrets.is_empty() {
        return remove(within, NAME);
    }
    let filled = fill(within, secrets).and_then(|()| {
        match renameat_with(within, OTHER, within, NAME, RenameFlags::EXCHANGE) {
            Err(Errno::NOENT) => renameat(within, OTHER, within, NAME).map_err(io::Error::from),
            exchanged => exchanged.map_err(io::Error::from),
        }
    });
    // What is there now is the old, or what was not filled.
    let removed = remove(within, OTHER);
    filled.and(removed)
}

fn fill(within: &OwnedFd, secrets: &[Secret]) -> io::Result<()> {
    mkdirat(within, OTHER, Mode::RWXU)?;
    let other = beneath::directory(within, OTHER.as_bytes())?;
    for Secret { name, value } in secrets {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&other, name.as_str(), flags | OFlags::CLOEXEC, mode)?;
        File::from(file).write_all(&value.0)?;
    }
    Ok(())
}

/// Removes a file, or a directory with its files; a directory within, which is
/// none of ours, stands in the way.
fn remove(within: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(within, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = beneath::directory(within, name.as_bytes())?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            unlinkat(&directory, entry.file_name(), AtFlags::empty())?;
        }
    }
    Ok(unlinkat(within, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn secrets(all: &[(&str, &str)]) -> Vec<Secret> {
        let secret =
            |(name, value): &(&str, &str)| Secret { name: (*name).into(), value: (*value).into() };
        all.iter().map(secret).collect()
    }

    fn files(within: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(within.join(NAME)).unwrap().map(Result::unwrap);
        let file = |entry: fs::DirEntry| {
            assert_eq!(entry.metadata().unwrap().mode() & 0o7777, 0o600);
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        };
        entries.map(file).collect()
    }

    #[test]
    fn s6_they_are_replaced_all_at_once() {
        let run = tempfile::tempdir().unwrap();
        let within: OwnedFd = File::open(run.path()).unwrap().into();
        replace(&within, &secrets(&[("A", "one"), ("B", "two")])).unwrap();
        assert_eq!(files(run.path()).len(), 2);
        let mode = run.path().join(NAME).metadata().unwrap().mode();
        assert_eq!(mode & 0o7777, 0o700);
        // As one that was killed leaves it.
        fs::create_dir(run.path().join(OTHER)).unwrap();
        fs::write(run.path().join(OTHER).join("A"), "half").unwrap();
        replace(&within, &secrets(&[("B", "three")])).unwrap();
        assert_eq!(files(run.path()), BTreeMap::from([("B".into(), "three".into())]));
        assert!(!run.path().join(OTHER).exists());
        replace(&within, &[]).unwrap();
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }

    #[test]
    fn s8_whatever_is_in_their_place_leads_nowhere() {
        let (run, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let within: OwnedFd = File::open(run.path()).unwrap().into();
        fs::write(outside.path().join("A"), "precious").unwrap();
        for name in [NAME, OTHER] {
            std::os::unix::fs::symlink(outside.path(), run.path().join(name)).unwrap();
        }
        replace(&within, &secrets(&[("A", "one")])).unwrap();
        assert_eq!(files(run.path()).len(), 1);
        assert_eq!(fs::read_to_string(outside.path().join("A")).unwrap(), "precious");
    }

    #[test]
    fn s8_only_names_of_files_are_taken() {
        for bad in ["", "..", "a/b", "1", "a\0", &"x".repeat(65)] {
            assert!(check(&secrets(&[(bad, "x")])).is_err(), "{bad:?}");
        }
        let many: Vec<_> = (0..=COUNT_MAX).map(|_| ("A", "x")).collect();
        assert!(check(&secrets(&many)).is_err());
        assert!(check(&secrets(&[("A", &"x".repeat(TOTAL_MAX + 1))])).is_err());
        assert!(check(&secrets(&[("_a1", "x")])).is_ok());
    }
}
