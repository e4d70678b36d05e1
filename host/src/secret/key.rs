//! The user's key: 32 random bytes in a file of its own, made when it is first
//! needed.

use crate::error::{Error, ErrorKind, Result};
use crate::id::fill_random;
use crate::store::{private_dir, sync_dir};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The file's name in the state directory.
pub const NAME: &str = "secret.key";

/// How long it is.
const KEY_LEN: usize = 32;

/// Seals and unseals. Nonces are drawn at random: the odds that two of the
/// thousands of values that one key ever seals get the same are nil.
pub struct Key {
    path: PathBuf,
    key: LessSafeKey,
}

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Drawn for this value alone.
    pub nonce: [u8; NONCE_LEN],
    /// The value, encrypted and authenticated.
    pub bytes: Vec<u8>,
}

impl Key {
    /// The key in this file.
    ///
    /// # Errors
    /// `NotFound` when there is none; and when it is not this user's alone.
    pub fn open(path: &Path) -> Result<Self> {
        let refused = |error: io::Error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Error::io(format!("cannot read {}", path.display()), error);
            }
            let message = format!("the key of your secrets, {}, is not there", path.display());
            Error::new(ErrorKind::NotFound, message).hint(LOST)
        };
        let nofollow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = File::options();
        options.read(true).custom_flags(nofollow.bits() as i32);
        let file = options.open(path).map_err(refused)?;
        let meta = file.metadata().map_err(refused)?;
        let user = rustix::process::geteuid().as_raw();
        if meta.uid() != user || meta.mode() & 0o077 != 0 {
            let message = format!("{} is not for you alone", path.display());
            return Err(Error::new(ErrorKind::HostRequirement, message)
                .hint(format!("make it yours: `chmod 600 {}`", path.display())));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_LEN + 1));
        file.take(KEY_LEN as u64 + 1).read_to_end(&mut bytes).map_err(refused)?;
        Self::of(path, &bytes)
    }

    /// The key in this file, which is made if it is not there.
    ///
    /// # Errors
    /// As [`Key::open`], and when it cannot be made.
    pub fn open_or_make(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        let failed = |error| Error::io(format!("cannot make {}", path.display()), error);
        let parent = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        private_dir(parent)?;
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        fill_random(bytes.as_mut());
        place(parent, path, bytes.as_ref()).map_err(failed)?;
        // Whoever was first: all have the same.
        Self::open(path)
    }

    fn of(path: &Path, bytes: &[u8]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).map_err(|_| {
            let message = format!("{} is no key of pyro's", path.display());
            Error::new(ErrorKind::StateCorrupt, message).hint(LOST)
        })?;
        Ok(Self { path: path.to_owned(), key: LessSafeKey::new(key) })
    }

    /// Seals a value for this place and no other.
    ///
    /// # Errors
    /// None that a value of a bounded length could have.
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<Sealed> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        // With room for the tag: growing would leave a copy behind.
        let mut bytes = Vec::with_capacity(value.len() + CHACHA20_POLY1305.tag_len());
        bytes.extend_from_slice(value);
        let aad = Aad::from(place.as_bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut bytes)
            .map_err(|_| Error::new(ErrorKind::Internal, "a secret cannot be sealed"))?;
        Ok(Sealed { nonce, bytes })
    }

    /// Unseals what was sealed for this place.
    ///
    /// # Errors
    /// `StateCorrupt` when another key sealed it, or it was changed or moved.
    pub fn unseal(&self, place: &str, sealed: Sealed) -> Result<Zeroizing<Vec<u8>>> {
        let Sealed { nonce, bytes } = sealed;
        let mut bytes = Zeroizing::new(bytes);
        let aad = Aad::from(place.as_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = match self.key.open_in_place(nonce, aad, &mut bytes) {
            Ok(value) => value.len(),
            Err(_) => {
                let message = format!("{} is not the key that sealed it", self.path.display());
                return Err(Error::new(ErrorKind::StateCorrupt, message).hint(LOST));
            }
        };
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// What to do without it.
const LOST: &str = "bring the key back, or set each secret again: `pyro workspace secret set`";

/// Puts a file where none is, whole and on the disk; one that is there stays.
fn place(parent: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut suffix = [0; 8];
    fill_random(&mut suffix);
    let temporary = parent.join(format!(".new-{NAME}.{:016x}", u64::from_le_bytes(suffix)));
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => sync_dir(parent),
            Err(rustix::io::Errno::EXIST) => fs::remove_file(&temporary),
            Err(errno) => Err(errno.into()),
        }
    })();
    if written.is_err() {
        // The first error is the one worth telling.
        drop(fs::remove_file(&temporary));
    }
    written
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn r2_all_who_make_the_key_at_once_have_the_same() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("state").join(NAME);
        let sealed = std::thread::scope(|scope| {
            let makers =
                [0; 8].map(|_| scope.spawn(|| Key::open_or_make(&path)?.seal("place", b"value")));
            makers.map(|maker| maker.join().expect("no panic").expect("sealed"))
        });
        let key = Key::open(&path).expect("there");
        for sealed in sealed {
            assert_eq!(&**key.unseal("place", sealed).expect("the same key"), b"value");
        }
        let mode = path.metadata().expect("there").mode();
        assert_eq!(mode & 0o7777, 0o600);
        let entries = path.parent().expect("a directory").read_dir().expect("there");
        assert_eq!(entries.count(), 1, "nothing is left behind");
    }

    #[test]
    fn s6_what_was_moved_or_changed_is_not_unsealed() {
        let home = tempfile::tempdir().expect("a directory");
        let key = Key::open_or_make(&home.path().join(NAME)).expect("made");
        let sealed = key.seal("here", b"value").expect("sealed");
        assert!(!sealed.bytes.windows(5).any(|bytes| bytes == b"value"));
        assert!(key.unseal("there", sealed.clone()).is_err());
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(key.unseal("here", changed).is_err());
        }
        let other = Key::open_or_make(&home.path().join("other")).expect("made");
        let error = other.unseal("here", sealed).expect_err("another key");
        assert!(error.next_step().is_some_and(|hint| hint.contains("secret set")), "{error}");
    }

    #[test]
    fn s3_a_key_that_others_can_read_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join(NAME);
        drop(Key::open_or_make(&path).expect("made"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = Key::open(&path).expect_err("open to others");
        assert_eq!(error.kind(), ErrorKind::HostRequirement);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&path, b"short").expect("ours");
        assert_eq!(Key::open(&path).expect_err("no key").kind(), ErrorKind::StateCorrupt);
    }
}
