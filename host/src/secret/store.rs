//! A workspace's secrets on the host: names and times to be read, values sealed.

use super::key::{Key, Sealed};
use super::redact::Redactor;
use super::{SecretName, SecretValue, VALUE_MAX};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::id::WorkspaceId;
use crate::store::record::{self, RECORD_MAX, RecordError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pyro_protocol::secret::{COUNT_MAX, Secret, SetSecrets, TOTAL_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file's name in a workspace's directory.
const NAME: &str = "secrets.json";

// All of them fit into a record, in base64.
const _: () = assert!((2 * TOTAL_MAX + COUNT_MAX * 512) as u64 <= RECORD_MAX);
const _: () = assert!(VALUE_MAX <= TOTAL_MAX);

/// Where a workspace's secrets are. Whoever changes them holds the workspace's
/// life; whoever reads finds the old ones or the new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretStore {
    key: PathBuf,
    file: PathBuf,
    workspace: WorkspaceId,
}

/// Where the user's key is.
#[must_use]
pub fn key_path(config: &Config) -> PathBuf {
    config.state_dir.join(super::key::NAME)
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    secrets: BTreeMap<String, Entry>,
}

impl record::Record for Record {
    const VERSION: u32 = 1;
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    set_at: Timestamp,
    /// In base64.
    nonce: String,
    /// In base64.
    sealed: String,
}

/// What may be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// When it got the value that it has.
    pub set_at: Timestamp,
}

impl SecretStore {
    /// Of the workspace that has this directory.
    #[must_use]
    pub fn within(config: &Config, directory: &Path, workspace: WorkspaceId) -> Self {
        Self::new(key_path(config), directory, workspace)
    }

    /// The same with a key that lies where one says.
    #[must_use]
    pub fn new(key: PathBuf, directory: &Path, workspace: WorkspaceId) -> Self {
        Self { key, file: directory.join(NAME), workspace }
    }

    fn record(&self) -> Result<Record> {
        match record::read(&self.file) {
            Ok(record) => Ok(record),
            Err(RecordError::Missing { .. }) => Ok(Record::default()),
            Err(
                error @ (RecordError::Unreadable { .. }
                | RecordError::Damaged { .. }
                | RecordError::OtherVersion { .. }),
            ) => Err(Error::from(error).hint(format!(
                "remove {} and set its secrets again: `pyro workspace secret set`",
                self.file.display()
            ))),
        }
    }

    /// What there is, by name. Needs no key.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let secrets = self.record()?.secrets.into_iter();
        Ok(secrets.map(|(name, Entry { set_at, .. })| Listed { name, set_at }).collect())
    }

    /// Sets some, all or none of them; others stay.
    ///
    /// # Errors
    /// `InvalidInput` when there are too many; and when the host's system refuses.
    pub fn set(&self, secrets: &Secrets) -> Result<()> {
        if secrets.is_empty() {
            return Ok(());
        }
        let mut record = self.record()?;
        let key = Key::open_or_make(&self.key)?;
        for (name, value) in &secrets.0 {
            let Sealed { nonce, bytes } = key.seal(&self.place(name.as_str()), value.expose())?;
            let entry = Entry {
                set_at: Timestamp::now(),
                nonce: STANDARD.encode(nonce),
                sealed: STANDARD.encode(bytes),
            };
            record.secrets.insert(name.as_str().to_owned(), entry);
        }
        // Four characters spell three bytes; what seals them is in it.
        let total = record.secrets.values().map(|entry| entry.sealed.len() / 4 * 3);
        check_bounds(record.secrets.len(), total.sum())?;
        record::write(&self.file, &record)
    }

    /// Removes one. Says whether it was there.
    ///
    /// # Errors
    /// When the file is damaged or the host's system refuses.
    pub fn delete(&self, name: &SecretName) -> Result<bool> {
        let mut record = self.record()?;
        if record.secrets.remove(name.as_str()).is_none() {
            return Ok(false);
        }
        record::write(&self.file, &record).map(|()| true)
    }

    /// All of them, unsealed.
    ///
    /// # Errors
    /// When the key is not there or another one, or the file is damaged.
    pub fn read(&self) -> Result<Secrets> {
        let record = self.record()?;
        if record.secrets.is_empty() {
            return Ok(Secrets::default());
        }
        let key = Key::open(&self.key)?;
        let unseal = |(name, entry): (String, Entry)| {
            let value = self.unseal(&key, &name, &entry).map_err(|error| {
                let message = format!("secret {name} of workspace {} is sealed", self.workspace);
                let hint = error.next_step().unwrap_or_default().to_owned();
                Error::new(error.kind(), message).because(error).hint(hint)
            })?;
            let name = name.parse().map_err(|error: super::BadName| {
                let message = format!("{} is damaged", self.file.display());
                Error::new(ErrorKind::StateCorrupt, message).because(error)
            })?;
            Ok((name, value))
        };
        record.secrets.into_iter().map(unseal).collect::<Result<_>>().map(Secrets)
    }

    fn unseal(&self, key: &Key, name: &str, entry: &Entry) -> Result<SecretValue> {
        let damaged = |why: String| {
            Error::new(ErrorKind::StateCorrupt, format!("{} is damaged", self.file.display()))
                .because(why)
                .hint("set it again: `pyro workspace secret set`")
        };
        let decoded =
            |text: &str| STANDARD.decode(text).map_err(|error| damaged(error.to_string()));
        let nonce = decoded(&entry.nonce)?.try_into();
        let nonce = nonce.map_err(|_| damaged("a nonce has another length".into()))?;
        let sealed = Sealed { nonce, bytes: decoded(&entry.sealed)? };
        let mut value = key.unseal(&self.place(name), sealed)?;
        SecretValue::new(std::mem::take(&mut *value)).map_err(|error| damaged(error.to_string()))
    }

    /// What a value is sealed for: it is of use nowhere else.
    fn place(&self, name: &str) -> String {
        format!("pyro secret 1 {} {name}", self.workspace)
    }

    /// Leaves out of what is told what is secret here.
    ///
    /// # Errors
    /// As [`SecretStore::read`]: what cannot be left out must not be told.
    pub fn redactor(&self) -> Result<Redactor> {
        self.read().map(|secrets| secrets.redactor())
    }
}

/// Secrets by their names.
#[derive(Debug, Default)]
pub struct Secrets(BTreeMap<SecretName, SecretValue>);

impl Secrets {
    /// Adds one.
    ///
    /// # Errors
    /// `InvalidInput` when it is there already, or there is no room.
    pub fn add(&mut self, name: SecretName, value: SecretValue) -> Result<()> {
        if self.0.contains_key(&name) {
            let message = format!("secret {name} is given twice");
            return Err(Error::new(ErrorKind::InvalidInput, message).hint("give each one once"));
        }
        self.0.insert(name, value);
        check_bounds(self.0.len(), self.0.values().map(|value| value.expose().len()).sum())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, name: &SecretName) -> Option<&SecretValue> {
        self.0.get(name)
    }

    /// Leaves them out of what is told.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        Redactor::of(self.0.values().map(SecretValue::expose))
    }

    /// The call that puts all of them into the guest.
    #[must_use]
    pub fn request(&self) -> SetSecrets {
        let secrets = self.0.iter().map(|(name, value)| Secret {
            name: name.as_str().to_owned(),
            value: value.expose().to_vec().into(),
        });
        SetSecrets { secrets: secrets.collect() }
    }
}

fn check_bounds(count: usize, total: usize) -> Result<()> {
    let too_much = |what: String| {
        Err(Error::new(ErrorKind::InvalidInput, what)
            .hint("put what is large or many into one file, and seal that by other means"))
    };
    match (count, total) {
        (count, _) if count > COUNT_MAX => {
            too_much(format!("{count} secrets; a workspace has at most {COUNT_MAX}"))
        }
        (_, total) if total > TOTAL_MAX => {
            too_much(format!("{total} bytes of secrets; a workspace has at most {TOTAL_MAX}"))
        }
        (_, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn store(home: &Path) -> SecretStore {
        let directory = home.join("workspaces/w");
        fs::create_dir_all(&directory).expect("made");
        let id = "0123456789ab".parse().expect("an id");
        SecretStore::new(home.join("secret.key"), &directory, id)
    }

    fn secrets(all: &[(&str, &str)]) -> Secrets {
        let mut secrets = Secrets::default();
        for (name, value) in all {
            let value = SecretValue::new(value.as_bytes().to_vec()).expect("a value");
            secrets.add(name.parse().expect("a name"), value).expect("room");
        }
        secrets
    }

    fn value(store: &SecretStore, name: &str) -> Option<Vec<u8>> {
        let secrets = store.read().expect("unsealed");
        secrets.get(&name.parse().expect("a name")).map(|value| value.expose().to_vec())
    }

    #[test]
    fn s6_values_are_sealed_and_come_back() {
        let home = tempfile::tempdir().expect("a directory");
        let store = store(home.path());
        assert!(store.read().expect("none").is_empty());
        assert!(!home.path().join("secret.key").exists(), "the key is made when it is needed");
        store.set(&secrets(&[("A", "hunter22"), ("B", "swordfish\n")])).expect("set");
        store.set(&secrets(&[("A", "rotated-22")])).expect("set again");
        assert_eq!(value(&store, "A").as_deref(), Some(b"rotated-22".as_slice()));
        assert_eq!(value(&store, "B").as_deref(), Some(b"swordfish\n".as_slice()));
        let text = fs::read_to_string(&store.file).expect("there");
        assert!(!text.contains("swordfish") && !text.contains("c3dvcmRmaXNo"), "{text}");
        let names: Vec<_> = store.list().expect("read").into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["A", "B"]);
        assert!(store.delete(&"A".parse().expect("a name")).expect("deleted"));
        assert!(!store.delete(&"A".parse().expect("a name")).expect("gone"));
        assert_eq!(value(&store, "A"), None);
    }

    #[test]
    fn s6_another_workspace_cannot_use_them() {
        let home = tempfile::tempdir().expect("a directory");
        let one = store(home.path());
        one.set(&secrets(&[("A", "hunter22")])).expect("set");
        let other =
            SecretStore { workspace: "ba9876543210".parse().expect("an id"), ..one.clone() };
        assert_eq!(other.read().expect_err("another's").kind(), ErrorKind::StateCorrupt);
        let text = fs::read_to_string(&one.file).expect("there").replace("\"A\"", "\"B\"");
        fs::write(&one.file, text).expect("ours");
        assert!(one.read().is_err(), "nor another name");
    }

    #[test]
    fn r3_without_the_key_secrets_can_be_listed_deleted_and_set_again() {
        let home = tempfile::tempdir().expect("a directory");
        let store = store(home.path());
        store.set(&secrets(&[("A", "hunter22"), ("B", "swordfish")])).expect("set");
        fs::remove_file(&store.key).expect("ours");
        let error = store.read().expect_err("no key");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.next_step().is_some_and(|hint| hint.contains("secret set")), "{error:?}");
        assert_eq!(store.list().expect("listed").len(), 2);
        store.set(&secrets(&[("A", "hunter23")])).expect("set again");
        let error = store.read().expect_err("the other is sealed by the old key");
        assert!(error.chain().contains("secret B"), "{}", error.chain());
        assert!(store.delete(&"B".parse().expect("a name")).expect("deleted"));
        assert_eq!(value(&store, "A").as_deref(), Some(b"hunter23".as_slice()));
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let mut many = Secrets::default();
        let value = || SecretValue::new(vec![b'x'; 8]).expect("a value");
        for n in 0..COUNT_MAX {
            many.add(format!("N{n}").parse().expect("a name"), value()).expect("room");
        }
        assert!(many.add("ONE_MORE".parse().expect("a name"), value()).is_err());
        let home = tempfile::tempdir().expect("a directory");
        let store = store(home.path());
        let large = "x".repeat(VALUE_MAX);
        store.set(&secrets(&[("A", &large)])).expect("room");
        let error = store.set(&secrets(&[("B", &large), ("C", "more")])).expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(store.list().expect("listed").len(), 1, "nothing was changed");
    }
}
