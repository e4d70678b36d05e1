//! The official release of Firecracker that pyro runs: fetched once, compared
//! with pinned digests, kept in the cache.
//!
//! ```text
//! firecracker/<version>/{firecracker,jailer}   the programs      (*.verified: their stamps)
//! firecracker/<version>.lock                   held by whoever sets it up
//! ```

mod unpack;

use crate::blocking::blocking;
use crate::config::Config;
use crate::context::unless_cancelled;
use crate::digest::Sha256;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::fetch::{Fetcher, Patience, Url};
use crate::store::lock::{Lock, Mode};
use crate::store::private_dir;
use crate::store::shelf::{self, Existing};
use crate::store::staging::{self, Staging};
use crate::store::verify::{self, Fault};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How large the archive may be: far more than any release's was, debugging
/// symbols included.
const ARCHIVE_BYTES_MAX: u64 = 512 << 20;

/// How long to wait for another who sets the same up: as long as it may take to
/// fetch it, and some.
const OTHER_MAX: Duration = Duration::from_secs(70 * 60);

/// A release, and by what it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its version, such as `1.12.1`.
    pub version: &'static str,
    /// What `firecracker` hashes to.
    pub firecracker: Sha256,
    /// What `jailer` hashes to.
    pub jailer: Sha256,
}

/// The release that this version of pyro runs.
///
/// The digests are those of the two programs, not of the archive around them:
/// they are what runs, and where they come from does not matter then. They were
/// taken from a copy of the official x86-64 binaries that somebody else had
/// packaged, not from the project's archive and its published checksum, which
/// could not be reached when they were written down. Were that copy not what the
/// project publishes, the official archive would be refused.
pub const PINNED: Release = Release {
    version: "1.12.1",
    firecracker: Sha256::pinned("b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930"),
    jailer: Sha256::pinned("86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5"),
};

/// The programs of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Firecracker,
    Jailer,
}

impl Program {
    const ALL: [Self; 2] = [Self::Firecracker, Self::Jailer];

    const fn name(self) -> &'static str {
        match self {
            Self::Firecracker => "firecracker",
            Self::Jailer => "jailer",
        }
    }
}

/// Where the programs of a release are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The VMM.
    pub firecracker: PathBuf,
    /// What confines it.
    pub jailer: PathBuf,
}

/// Why there are no programs to run.
#[derive(Debug, thiserror::Error)]
#[error("{} is damaged: {fault}", path.display())]
pub struct Unfit {
    path: PathBuf,
    fault: Fault,
}

impl Unfit {
    /// Whether it was never set up.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.fault, Fault::Missing)
    }
}

/// From where an archive is taken.
#[derive(Debug)]
pub enum Origin {
    /// From the project's own releases.
    Official,
    /// From a copy of it.
    Url(Url),
    /// From a file that somebody fetched: its name, and the open file.
    File(PathBuf, File),
}

impl Release {
    /// The archive that the project publishes.
    #[must_use]
    pub fn url(&self) -> String {
        let version = self.version;
        format!(
            "https://github.com/firecracker-microvm/firecracker/releases/download/v{version}/firecracker-v{version}-x86_64.tgz"
        )
    }

    const fn digest(&self, program: Program) -> Sha256 {
        match program {
            Program::Firecracker => self.firecracker,
            Program::Jailer => self.jailer,
        }
    }

    /// What a program is called in the archive.
    fn member(&self, program: Program) -> String {
        let (version, name) = (self.version, program.name());
        format!("release-v{version}-x86_64/{name}-v{version}-x86_64")
    }

    fn title(&self) -> String {
        format!("Firecracker {}", self.version)
    }

    fn dir(&self, config: &Config) -> PathBuf {
        home(config).join(self.version)
    }

    /// The programs, if they are there and what they should be. They are hashed
    /// when they have changed since the last time.
    ///
    /// # Errors
    /// When one is missing or damaged.
    pub fn programs(&self, config: &Config) -> Result<Programs, Unfit> {
        let dir = self.dir(config);
        let verified = |program: Program| {
            let path = dir.join(program.name());
            match verify::verify_content(&path, self.digest(program)) {
                Ok(()) => Ok(path),
                Err(fault) => Err(Unfit { path, fault }),
            }
        };
        Ok(Programs {
            firecracker: verified(Program::Firecracker)?,
            jailer: verified(Program::Jailer)?,
        })
    }
}

/// The programs of [`PINNED`], if `pyro setup` has put them there and they are
/// still what they were.
#[must_use]
pub fn installed(config: &Config) -> Option<Programs> {
    PINNED.programs(config).ok()
}

fn home(config: &Config) -> PathBuf {
    config.cache_dir.join("firecracker")
}

/// What came of setting a release up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// Where the programs are.
    pub programs: Programs,
    /// Whether they had been there before.
    pub already_there: bool,
}

/// Sees to it that the programs of a release are there, both of them, by one
/// rename. What is there and whole is left alone, wherever it came from; what is
/// damaged is replaced.
///
/// # Errors
/// When the archive cannot be had or does not hold them, or when it is
/// cancelled. Then everything is as before.
pub async fn set_up(
    config: &Config,
    release: &Release,
    origin: Origin,
    patience: Patience,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<SetUp> {
    let there = |programs| SetUp { programs, already_there: true };
    match look(config, release).await? {
        Ok(programs) => return Ok(there(programs)),
        Err(unfit) if unfit.is_missing() => {}
        Err(unfit) => events.emit(Event::Warning(format!("{unfit}; it is set up again"))).await,
    }
    private_dir(&config.cache_dir)?;
    private_dir(&home(config))?;
    let _lock = lock(config, release, events, cancel).await?;
    if let Ok(programs) = look(config, release).await? {
        return Ok(there(programs));
    }
    let staging = home(config).join("staging");
    for left in staging::abandoned(&staging) {
        // What cannot be removed now is swept later.
        drop(left.remove());
    }
    let staging = Staging::new(&staging)?;
    let (name, archive) = match origin {
        Origin::File(path, file) => (path.display().to_string(), file),
        Origin::Official => {
            let url = release.url().parse().map_err(crate::fetch::FetchError::from)?;
            fetch(config, release, &url, patience, &staging, events, cancel).await?
        }
        Origin::Url(url) => {
            fetch(config, release, &url, patience, &staging, events, cancel).await?
        }
    };
    events.emit(Event::Stage { name: "unpacking", subject: release.title() }).await;
    let made = staging.path().join("made");
    let (to, unpacked, wanted) = (release.dir(config), made.clone(), release.clone());
    let stop = cancel.clone();
    blocking(move || {
        unpack::unpack(&name, archive, &wanted, &unpacked, &stop)?;
        shelf::publish(&unpacked, &to, Existing::Replace).map(drop)
    })
    .await?;
    match look(config, release).await? {
        Ok(programs) => Ok(SetUp { programs, already_there: false }),
        Err(unfit) => Err(Error::new(ErrorKind::Io, unfit.to_string()).because(unfit.fault)),
    }
}

/// Looks on a thread of its own: to hash them takes its time.
async fn look(config: &Config, release: &Release) -> Result<Result<Programs, Unfit>> {
    let (config, release) = (config.clone(), release.clone());
    blocking(move || Ok(release.programs(&config))).await
}

async fn lock(
    config: &Config,
    release: &Release,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Lock> {
    let path = home(config).join(format!("{}.lock", release.version));
    if let Some(lock) = Lock::try_take(&path, Mode::Exclusive)? {
        return Ok(lock);
    }
    let name = "waiting for another setup";
    events.emit(Event::Stage { name, subject: release.title() }).await;
    unless_cancelled(cancel, Lock::take(&path, Mode::Exclusive, OTHER_MAX)).await
}

/// Fetches the archive to where it goes with the rest of what is being made.
async fn fetch(
    config: &Config,
    release: &Release,
    url: &Url,
    patience: Patience,
    staging: &Staging,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<(String, File)> {
    let subject = format!("{} from {}", release.title(), url.origin());
    events.emit(Event::Stage { name: "fetching", subject }).await;
    let (file, same) = archive_in(staging.path())?;
    let fetcher = Fetcher::new(&config.network, patience);
    let fetching = async { Ok(fetcher.fetch(url, file, ARCHIVE_BYTES_MAX, events).await?) };
    unless_cancelled(cancel, fetching).await.map_err(|error| by_hand(error, release))?;
    Ok((url.to_string(), same))
}

/// A new file, for who writes it and for who then reads it.
fn archive_in(dir: &Path) -> Result<(File, File)> {
    let path = dir.join("archive.tgz");
    let opened = File::create_new(&path).and_then(|file| Ok((file, File::open(&path)?)));
    opened.map_err(|error| Error::io(format!("cannot make {}", path.display()), error))
}

/// Says how it goes without the network, where that is what is missing.
fn by_hand(error: Error, release: &Release) -> Error {
    if error.kind() != ErrorKind::Network {
        return error;
    }
    error.hint(format!(
        "set HTTPS_PROXY if there is a proxy; or fetch {} elsewhere, and then `pyro setup --from FILE`",
        release.url()
    ))
}

#[cfg(test)]
mod tests;
