//! Layers in the cache: each under its digest, whole or not there, and held by
//! whoever makes an image of it. As much of one as came before it broke off waits
//! to be gone on with.

use super::build::Task;
use crate::blocking::blocking;
use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::oci::document::Descriptor;
use crate::oci::registry::Registry;
use crate::store::lock::{Lock, Mode};
use crate::store::private_dir;
use crate::store::shelf::{self, Existing, Held};
use crate::store::verify;
use std::fs;
use std::path::PathBuf;

/// The file in a blob's directory.
pub(super) const BLOB: &str = "blob";

/// The 64 hexadecimal digits of a digest.
pub(super) fn hex(digest: Sha256) -> String {
    let text = digest.to_string();
    text.rsplit(':').next().unwrap_or_default().to_owned()
}

impl Task<'_> {
    /// Where a blob that is here lies, and what keeps it there.
    pub(super) async fn cached(&self, digest: Sha256) -> Result<Option<Held>> {
        let dir = self.environments.blobs_dir().join(hex(digest));
        let Some(held) = shelf::hold(&dir)? else { return Ok(None) };
        let file = dir.join(BLOB);
        let is_whole = blocking(move || Ok(verify::verify_content(&file, digest).is_ok())).await?;
        Ok(is_whole.then_some(held))
    }

    /// Fetches a blob that is not here.
    pub(super) async fn fetch(
        &self,
        registry: &mut Registry<'_>,
        what: &Descriptor,
        told: &str,
    ) -> Result<Held> {
        let name = hex(what.digest);
        let partial_dir = self.environments.partial_dir();
        private_dir(&partial_dir)?;
        let partial = partial_dir.join(&name);
        // Whoever fetches the same is waited for: then it is here.
        let lock = self.lock(&partial_dir.join(format!("{name}.lock")), told).await?;
        if let Some(held) = self.cached(what.digest).await? {
            return Ok(held);
        }
        registry.blob(what, &partial, told).await?;
        let held = self.keep(what.digest, partial).await?;
        drop(lock);
        Ok(held)
    }

    async fn keep(&self, digest: Sha256, partial: PathBuf) -> Result<Held> {
        let name = hex(digest);
        let made = self.staging.path().join(format!("blob-{name}"));
        let to = self.environments.blobs_dir().join(name);
        blocking(move || {
            private_dir(&made)?;
            let file = made.join(BLOB);
            fs::rename(&partial, &file)
                .map_err(|error| Error::io(format!("cannot keep {}", partial.display()), error))?;
            shelf::publish(&made, &to, Existing::Replace)
        })
        .await
    }
}

/// What is left of downloads that nobody goes on with at the moment, each with its
/// lock.
pub(super) fn partials(dir: &std::path::Path) -> Vec<(PathBuf, Lock)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none())
        .filter_map(|path| {
            let lock = Lock::try_take(&path.with_extension("lock"), Mode::Exclusive).ok()??;
            Some((path, lock))
        })
        .collect()
}
