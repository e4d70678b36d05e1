//! Templates: machines saved before they have a workspace, restored in place of a
//! boot.
//!
//! ```text
//! templates/making.lock              held by who makes one
//! templates/<key>/state              what its processors and devices were
//! templates/<key>/memory             what its memory was; a hole where nothing is
//! templates/<key>/template.json      what it is of, and both digests
//! templates/<key>.json               that it was of no use, how often, when last
//! ```
//!
//! The key is a digest of all that a restored machine has to have in common with
//! the saved one: with anything else it is another template. The files never
//! change: VMMs map the memory privately and cannot write it.

use crate::config::Config;
use crate::digest::{Digest, Measured, PagesDigest};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::{self, Facts};
use crate::store::lock::{Lock, Mode};
use crate::store::record::{self, Record, RecordError};
use crate::store::shelf::{self, Existing, Held};
use crate::store::staging::Staging;
use crate::store::{private_dir, verify};
use crate::vmm::{Machine, Rung, Saved, Vmm};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{OFlags, fchown};
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The directory in the cache.
const DIRECTORY: &str = "templates";
const MAKING_LOCK: &str = "making.lock";
const STATE: &str = "state";
const MEMORY: &str = "memory";
const RECORD: &str = "template.json";

/// What becomes the template, where it is made.
const FINISHED: &str = "template";

/// The largest state: a few devices and processors take 100 KiB.
const STATE_MAX: u64 = 16 << 20;

/// How often in a row one may be of no use before no other is made for a while.
const FAILURES_MAX: u32 = 2;

/// How long that is.
const FAILURE_MAX: SignedDuration = SignedDuration::from_mins(10);

/// How long others may take to make one: as long as a crowded guest takes to boot.
const MAKING_MAX: Duration = Duration::from_secs(60);

/// All that decides which template fits a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    key: Digest,
    basis: Digest,
    /// The environment's name, for people.
    pub environment: String,
    root_digest: Digest,
    rung: Rung,
    mem_mib: u32,
}

/// Content that a machine boots from, by its digests.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// The environment's name, for people.
    pub environment: &'a str,
    /// The root image.
    pub root: Digest,
    /// The kernel.
    pub kernel: Digest,
}

/// What a template is of.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    environment: String,
    root_digest: Digest,
    vmm: Rung,
    /// What it was made with; with anything else it fits nothing any more.
    basis: Digest,
    mem_mib: u32,
    state_digest: Digest,
    memory_digest: PagesDigest,
    made_at: Timestamp,
    made_by: String,
}

impl Record for Description {
    const VERSION: u32 = 1;
}

/// That templates of a key came to nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Failures {
    count: u32,
    last_at: Timestamp,
    why: String,
}

impl Record for Failures {
    const VERSION: u32 = 1;
}

/// A template that can be restored while this lives.
#[derive(Debug, Clone)]
pub struct Template {
    held: Held,
}

impl Template {
    /// Its files.
    #[must_use]
    pub fn saved(&self) -> Saved {
        files(self.held.path())
    }
}

impl Wanted {
    /// The one that fits a machine; `None` where there is none: the VMM cannot
    /// save such a machine.
    ///
    /// # Errors
    /// When the host's facts cannot be had.
    pub fn of(
        config: &Config,
        vmm: &dyn Vmm,
        rung: Rung,
        machine: &Machine,
        content: Content<'_>,
    ) -> Result<Option<Self>> {
        let Some(likeness) = vmm.likeness(machine) else { return Ok(None) };
        let basis = basis(config, rung)?;
        let initrd = machine.initrd.as_deref().unwrap_or(Path::new("")).as_os_str();
        let key = Digest::of_parts([
            basis.hex().as_bytes(),
            likeness.as_bytes(),
            content.root.hex().as_bytes(),
            content.kernel.hex().as_bytes(),
            initrd.as_encoded_bytes(),
        ]);
        Ok(Some(Self {
            key,
            basis,
            environment: content.environment.to_owned(),
            root_digest: content.root,
            rung,
            mem_mib: machine.mem_mib,
        }))
    }
}

/// What templates of a rung are made with now: pyro, the VMM, and what that runs on.
fn basis(config: &Config, rung: Rung) -> Result<Digest> {
    Ok(Digest::of_parts([
        env!("CARGO_PKG_VERSION"),
        rung.as_str(),
        &facts::identity(config, rung),
        &Facts::gather(config)?.runs_on,
    ]))
}

/// The templates of a cache.
#[derive(Debug, Clone)]
pub struct Templates {
    directory: PathBuf,
    staging: PathBuf,
}

/// A template that is being made: the files are for a VMM to write.
#[derive(Debug)]
pub struct Making {
    staging: Staging,
    _lock: Lock,
}

impl Making {
    /// Where the machine is to be saved.
    #[must_use]
    pub fn saved(&self) -> Saved {
        files(&self.finished())
    }

    fn finished(&self) -> PathBuf {
        self.staging.path().join(FINISHED)
    }
}

fn files(directory: &Path) -> Saved {
    Saved { state: directory.join(STATE), memory: directory.join(MEMORY) }
}

impl Templates {
    /// Those of this host.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            directory: config.cache_dir.join(DIRECTORY),
            staging: config.cache_dir.join("staging"),
        }
    }

    fn shelf(&self, wanted: &Wanted) -> PathBuf {
        self.directory.join(wanted.key.hex())
    }

    fn failures_path(&self, wanted: &Wanted) -> PathBuf {
        self.directory.join(format!("{}.json", wanted.key.hex()))
    }

    /// The template, if it is there and what it was. One that is not is removed.
    /// Blocks while it reads a file that was changed.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is not what it was, and why.
    pub fn find(&self, wanted: &Wanted) -> Result<Option<Template>> {
        let Some(held) = shelf::hold(&self.shelf(wanted))? else { return Ok(None) };
        let described = record::read::<Description>(&held.path().join(RECORD));
        let fault = match described {
            Ok(described) => check(held.path(), &described).err().map(|fault| fault.to_string()),
            Err(RecordError::Missing { .. }) => Some("it has no description".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        match fault {
            None => Ok(Some(Template { held })),
            Some(fault) => {
                let place = held.path().display().to_string();
                drop(held);
                self.remove(wanted);
                let message = format!("the template {place} is not what it was: {fault}");
                Err(Error::new(ErrorKind::EnvironmentCorrupt, message))
            }
        }
    }

    /// Whether those of late were of no use.
    #[must_use]
    pub fn given_up(&self, wanted: &Wanted) -> bool {
        self.failures_of_late(wanted) >= FAILURES_MAX
    }

    fn failures_of_late(&self, wanted: &Wanted) -> u32 {
        let Ok(failures) = record::read::<Failures>(&self.failures_path(wanted)) else { return 0 };
        let age = Timestamp::now().duration_since(failures.last_at).abs();
        if age < FAILURE_MAX { failures.count } else { 0 }
    }

    /// Notes that one was of no use, and removes it.
    pub fn failed(&self, wanted: &Wanted, why: &str) {
        self.remove(wanted);
        let path = self.failures_path(wanted);
        let count = self.failures_of_late(wanted).saturating_add(1);
        let failures = Failures { count, last_at: Timestamp::now(), why: why.to_owned() };
        // Without it another is made in vain; that is all.
        drop(private_dir(&self.directory).map(|()| record::write(&path, &failures)));
    }

    /// Notes that one was restored: what was of no use before is made good.
    pub fn served(&self, wanted: &Wanted) {
        // Mostly there is nothing.
        drop(fs::remove_file(self.failures_path(wanted)));
    }

    /// Whoever holds it still has it.
    fn remove(&self, wanted: &Wanted) {
        // What cannot be removed now fails again.
        let removed = shelf::claim(&self.shelf(wanted)).and_then(|claimed| match claimed {
            Some(claimed) => claimed.remove(&Staging::new(&self.staging)?),
            None => Ok(()),
        });
        drop(removed);
    }

    /// Begins to make one: one at a time, and while others make it, waits.
    ///
    /// # Errors
    /// When the host's system refuses, or others take too long.
    pub async fn make(&self) -> Result<Making> {
        private_dir(&self.directory)?;
        let lock =
            Lock::take(&self.directory.join(MAKING_LOCK), Mode::Exclusive, MAKING_MAX).await?;
        let making = Making { staging: Staging::new(&self.staging)?, _lock: lock };
        private_dir(&making.finished())?;
        Ok(making)
    }

    /// Puts a finished one in place. Blocks while it reads its memory.
    ///
    /// # Errors
    /// When what the VMM wrote is not what it should be, or the host's system
    /// refuses.
    pub fn publish(&self, wanted: &Wanted, making: &Making) -> Result<Template> {
        let Saved { state, memory } = making.saved();
        let memory_bytes = u64::from(wanted.mem_mib) << 20;
        own(&memory, memory_bytes..=memory_bytes)?;
        own(&state, 1..=STATE_MAX)?;
        let description = Description {
            environment: wanted.environment.clone(),
            root_digest: wanted.root_digest,
            vmm: wanted.rung,
            basis: wanted.basis,
            mem_mib: wanted.mem_mib,
            // In this order: a file that was written just now gets no stamp.
            memory_digest: measured(&memory)?,
            state_digest: measured(&state)?,
            made_at: Timestamp::now(),
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
        };
        record::write(&making.finished().join(RECORD), &description)?;
        let held = shelf::publish(&making.finished(), &self.shelf(wanted), Existing::Replace)?;
        Ok(Template { held })
    }

    /// What one is of, in a few words.
    #[must_use]
    pub fn describe(directory: &Path) -> String {
        match record::read::<Description>(&directory.join(RECORD)) {
            Ok(Description { environment, vmm, mem_mib, .. }) => {
                format!("template of {environment} with {mem_mib} MiB on {vmm}")
            }
            Err(_) => "template".into(),
        }
    }

    /// Whether one may still fit a machine that boots one of these images.
    ///
    /// # Errors
    /// When the host's facts cannot be had.
    pub fn fits(
        &self,
        config: &Config,
        directory: &Path,
        has_image: impl FnOnce(Digest) -> bool,
    ) -> Result<bool> {
        let Ok(described) = record::read::<Description>(&directory.join(RECORD)) else {
            return Ok(false);
        };
        Ok(described.basis == basis(config, described.vmm)? && has_image(described.root_digest))
    }

    /// Forgets which were of no use: the next ones are made again.
    pub fn forget_failures(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "json") {
                // One that stays is believed a while longer.
                drop(fs::remove_file(path));
            }
        }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// What is wrong with a template's files.
fn check(directory: &Path, described: &Description) -> Result<(), verify::Fault> {
    let Saved { state, memory } = files(directory);
    verify::verify(&memory, described.memory_digest, u64::from(described.mem_mib) << 20)?;
    verify::verify_content(&state, described.state_digest)
}

fn measured<D: Measured>(file: &Path) -> Result<D> {
    verify::measure(file)
        .map_err(|error| Error::io(format!("cannot read {}", file.display()), error))
}

/// Takes what a VMM wrote for our own: for all VMMs to read and none to write.
fn own(file: &Path, bytes: std::ops::RangeInclusive<u64>) -> Result<()> {
    let refused = |error| Error::io(format!("cannot take {} from the VMM", file.display()), error);
    let open = File::options()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
        .open(file)
        .map_err(refused)?;
    let meta = open.metadata().map_err(refused)?;
    if !meta.is_file() || !bytes.contains(&meta.len()) {
        let message = format!("the VMM left {} bytes in {}", meta.len(), file.display());
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    let (user, group) = (geteuid(), getegid());
    if meta.uid() != user.as_raw() {
        fchown(&open, Some(user), Some(group)).map_err(|errno| refused(errno.into()))?;
    }
    open.set_permissions(Permissions::from_mode(0o444)).map_err(refused)
}
