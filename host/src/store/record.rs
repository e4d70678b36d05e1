//! Small versioned JSON files: a reader sees the old one or the new one, whole.

use super::sync_dir;
use crate::error::{Error, ErrorKind};
use crate::id::fill_random;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The longest record. A package list of a large environment takes about
/// 100 KiB; what is longer was not written by pyro.
pub const RECORD_MAX: u64 = 4 << 20;

const VERSION_FIELD: &str = "schema_version";

/// Something kept as one JSON object with a version in it.
pub trait Record: Serialize + DeserializeOwned {
    /// The version written. Only this one is read: whoever changes a record's
    /// meaning raises it and says here how the older ones are read.
    const VERSION: u32;
}

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// There is none.
    #[error("there is no record {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The host's system refused to read it.
    #[error("cannot read the record {}", path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no record that this or any other pyro wrote.
    #[error("the record {} is damaged", path.display())]
    Damaged {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another version of pyro wrote it.
    #[error("the record {} has version {found}, this pyro reads {known}", path.display())]
    OtherVersion {
        /// Where it is.
        path: PathBuf,
        /// The version in it.
        found: u64,
        /// The version of this pyro.
        known: u32,
    },
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        let kind = match &error {
            RecordError::Missing { .. } => ErrorKind::NotFound,
            RecordError::Unreadable { .. } => ErrorKind::Io,
            RecordError::Damaged { .. } => ErrorKind::StateCorrupt,
            RecordError::OtherVersion { .. } => ErrorKind::Unsupported,
        };
        let message = error.to_string();
        match error {
            RecordError::Unreadable { source, .. } => Error::new(kind, message).because(source),
            RecordError::Damaged { source, .. } => Error::new(kind, message).because(source),
            RecordError::Missing { .. } | RecordError::OtherVersion { .. } => {
                Error::new(kind, message)
            }
        }
    }
}

/// Reads a record.
///
/// # Errors
/// When it is missing, unreadable, longer than [`RECORD_MAX`], damaged, or of
/// another version.
pub fn read<R: Record>(path: &Path) -> Result<R, RecordError> {
    let damaged = |source| RecordError::Damaged { path: path.to_owned(), source };
    let value: serde_json::Value =
        serde_json::from_slice(&read_bytes(path)?).map_err(|error| damaged(error.into()))?;
    let found = value
        .get(VERSION_FIELD)
        .and_then(serde_json::Value::as_u64)
        .ok_or_else(|| damaged(format!("it has no {VERSION_FIELD}").into()))?;
    if found != u64::from(R::VERSION) {
        return Err(RecordError::OtherVersion { path: path.to_owned(), found, known: R::VERSION });
    }
    serde_json::from_value(value).map_err(|error| damaged(error.into()))
}

/// Reads some fields of a record of any kind and version, as those must who only
/// ask for what it has in common with others.
///
/// # Errors
/// When the record is missing, unreadable, too long or has no such fields.
pub fn read_part<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let damaged = |source| RecordError::Damaged { path: path.to_owned(), source };
    serde_json::from_slice(&read_bytes(path)?).map_err(|error| damaged(error.into()))
}

/// Reads one text field of a record of any kind and version, as those must who
/// only ask what a record refers to.
///
/// # Errors
/// When the record is missing, unreadable, too long or no JSON object.
pub fn read_field(path: &Path, field: &str) -> Result<Option<String>, RecordError> {
    let object: serde_json::Map<String, serde_json::Value> = read_part(path)?;
    Ok(object.get(field).and_then(|value| value.as_str()).map(str::to_owned))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, RecordError> {
    let unreadable = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            RecordError::Missing { path }
        } else {
            RecordError::Unreadable { path, source }
        }
    };
    // A FIFO in a record's place must not hang the reader.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file =
        OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(RECORD_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > RECORD_MAX {
        let source = format!("it is longer than {RECORD_MAX} bytes").into();
        return Err(RecordError::Damaged { path: path.to_owned(), source });
    }
    Ok(bytes)
}

/// Replaces a record, or makes it, so that a crash at any instruction leaves
/// the old one or the new one. Only its owner can read it. Its directory must be
/// there: one that is not was deleted, and stays so.
///
/// # Errors
/// When the host's system refuses; a full disk has a kind of its own.
pub fn write<R: Record>(path: &Path, record: &R) -> Result<(), Error> {
    write_atomically(path, &encode(path, record)?)
}

/// Replaces a record as [`write()`] does, without waiting for the disk: should the
/// host lose its power, the record may be lost or damaged. For those of which
/// there are many and each is in nobody else's way.
///
/// # Errors
/// As [`write()`].
pub fn write_without_sync<R: Record>(path: &Path, record: &R) -> Result<(), Error> {
    place(path, &encode(path, record)?, Fsync::Never)
}

fn encode<R: Record>(path: &Path, record: &R) -> Result<Vec<u8>, Error> {
    let refused = |error| Error::io(format!("cannot write {}", path.display()), error);
    let value = serde_json::to_value(record).map_err(io::Error::from).map_err(refused)?;
    let mut object = serde_json::Map::from_iter([(VERSION_FIELD.into(), R::VERSION.into())]);
    let serde_json::Value::Object(fields) = value else {
        let message = format!("the record {} is no object", path.display());
        return Err(Error::new(ErrorKind::Internal, message));
    };
    object.extend(fields);
    let mut bytes = serde_json::to_vec_pretty(&object).map_err(io::Error::from).map_err(refused)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Replaces a small file, or makes it, as [`write()`] does.
///
/// # Errors
/// When the host's system refuses; a full disk has a kind of its own.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    place(path, bytes, Fsync::Always)
}

/// Whether the disk is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fsync {
    Always,
    Never,
}

fn place(path: &Path, bytes: &[u8], sync: Fsync) -> Result<(), Error> {
    replace(path, bytes, sync)
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

fn replace(path: &Path, bytes: &[u8], sync: Fsync) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut suffix = [0; 8];
    fill_random(&mut suffix);
    let mut temporary = std::ffi::OsString::from(TEMPORARY_PREFIX);
    temporary.push(name);
    temporary.push(format!(".{:016x}", u64::from_le_bytes(suffix)));
    let temporary = dir.join(temporary);
    let written = write_new(&temporary, bytes, sync).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one worth telling.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    match sync {
        Fsync::Always => sync_dir(dir),
        Fsync::Never => Ok(()),
    }
}

fn write_new(path: &Path, bytes: &[u8], sync: Fsync) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    match sync {
        Fsync::Always => file.sync_all(),
        Fsync::Never => Ok(()),
    }
}

/// How the file names of half-written records begin.
const TEMPORARY_PREFIX: &str = ".new-";

/// How old a half-written record must be to count as left behind. Writing one
/// takes milliseconds.
const ABANDONED_AFTER: std::time::Duration = std::time::Duration::from_secs(600);

/// Removes half-written records that crashed writers left in a directory.
pub fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let temporary =
            entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes());
        let abandoned = || {
            let age = entry.metadata().ok()?.modified().ok()?.elapsed().ok()?;
            Some(age > ABANDONED_AFTER)
        };
        if temporary && abandoned() == Some(true) {
            // Whoever comes next tries again.
            drop(fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::os::unix::fs::MetadataExt;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Record for Note {
        const VERSION: u32 = 2;
    }

    fn note() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("note.json");
        (home, path)
    }

    #[test]
    fn s3_what_is_written_is_read_by_its_owner_alone() {
        let (_home, path) = note();
        let written = Note { text: "hello".into() };
        write(&path, &written).expect("written");
        assert_eq!(read::<Note>(&path).expect("read"), written);
        assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.starts_with("{\n  \"schema_version\": 2,"), "{text}");
    }

    #[test]
    fn r3_replacing_leaves_one_file() {
        let (home, path) = note();
        for text in ["one", "two"] {
            write(&path, &Note { text: text.into() }).expect("written");
        }
        assert_eq!(read::<Note>(&path).expect("read").text, "two");
        assert_eq!(fs::read_dir(home.path()).expect("read").count(), 1);
    }

    #[test]
    fn r2_what_was_deleted_is_not_made_again() {
        let (home, path) = note();
        drop(home);
        assert!(write(&path, &Note { text: "late".into() }).is_err());
        assert!(!path.parent().expect("it has one").exists());
    }

    #[test]
    fn r3_a_failed_write_leaves_the_old_one() {
        let (home, path) = note();
        write(&path, &Note { text: "old".into() }).expect("written");
        // A directory in the way of the rename stands for any late failure.
        let taken = home.path().join("taken");
        fs::create_dir_all(taken.join("inside")).expect("made");
        assert!(write(&taken, &Note { text: "new".into() }).is_err());
        assert_eq!(fs::read_dir(home.path()).expect("read").count(), 2);
        assert_eq!(read::<Note>(&path).expect("read").text, "old");
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let (_home, path) = note();
        fs::write(&path, "{\"schema_version\": 3, \"whatever\": 1}").expect("written");
        let error = read::<Note>(&path).expect_err("it is newer");
        assert!(matches!(error, RecordError::OtherVersion { found: 3, known: 2, .. }), "{error}");
        for damage in ["", "{", "[]", "{}", "{\"schema_version\": 2}", "\0\0\0"] {
            fs::write(&path, damage).expect("written");
            let error = read::<Note>(&path).expect_err(damage);
            assert!(matches!(error, RecordError::Damaged { .. }), "{damage:?}: {error}");
            assert_eq!(Error::from(error).kind(), ErrorKind::StateCorrupt);
        }
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        let (_home, path) = note();
        let file = fs::File::create(&path).expect("made");
        file.set_len(1 << 40).expect("sparse");
        assert!(matches!(read::<Note>(&path), Err(RecordError::Damaged { .. })));
    }

    #[test]
    fn what_is_no_file_does_not_hang() {
        let (home, path) = note();
        assert!(matches!(read::<Note>(&path), Err(RecordError::Missing { .. })));
        assert!(matches!(read::<Note>(home.path()), Err(RecordError::Unreadable { .. })));
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("made");
        assert!(read::<Note>(&path).is_err());
    }

    #[test]
    fn only_old_temporary_files_are_swept() {
        let (home, path) = note();
        write(&path, &Note { text: "kept".into() }).expect("written");
        let (old, fresh) = (home.path().join(".new-a.1"), home.path().join(".new-a.2"));
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED_AFTER;
        fs::File::create(&old).expect("made").set_modified(long_ago).expect("set");
        fs::File::create(&fresh).expect("made");
        sweep(home.path());
        assert_eq!((old.exists(), fresh.exists(), path.exists()), (false, true, true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let (_home, path) = note();
            fs::write(&path, bytes).expect("written");
            prop_assert!(read::<Note>(&path).is_err());
            drop(read_field(&path, "text"));
        }
    }
}
