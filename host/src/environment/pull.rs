//! Environments from registries.

use super::adopt::{self, Adopted, Source};
use super::blobs::BLOB;
use super::build::{BuildOptions, Task};
use super::manifest::{How, Origin};
use super::recipe::Name;
use super::{Environment, Environments, failure};
use crate::context::unless_cancelled;
use crate::digest::Sha256;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Events;
use crate::fetch::Patience;
use crate::oci::document::{self, BadDocument, Document, Manifest};
use crate::oci::layout::{bad_document, check_count};
use crate::oci::registry::{Part, Plain, Registry};
use crate::oci::{ImageConfig, Layer, Reference};
use crate::store::record;
use crate::store::shelf::Held;
use std::fs::File;
use tokio_util::sync::CancellationToken;

/// How many indexes may lead to one another.
const INDEXES_MAX: usize = 4;

/// An image that is wanted from a registry.
#[derive(Debug, Clone)]
pub struct Pull {
    /// Its reference, as somebody wrote it.
    pub reference: String,
    /// What the environment is to be called; as the reference if not said.
    pub name: Option<String>,
    /// Whether the registry may prove nothing, wherever it is.
    pub plain: Plain,
    /// How long to bear with the registry.
    pub patience: Patience,
}

/// What a registry says an image is.
struct Resolved {
    digest: Sha256,
    manifest: Manifest,
    config: ImageConfig,
    config_text: Vec<u8>,
}

impl Environments {
    /// Makes an environment of an image in a registry. What is here already is not
    /// fetched again.
    ///
    /// # Errors
    /// When the reference is none, the registry does not give the image or gives
    /// another, it is none for the guests, there is no room, or it is cancelled.
    /// Then everything is as before, and as much as came of a layer is kept.
    pub async fn pull(
        &self,
        pull: Pull,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Environment> {
        let reference = adopt::reference(&pull.reference)?;
        let asked = pull.name.clone();
        let asked = asked.unwrap_or_else(|| adopt::name_of_reference(&pull.reference));
        let name = adopt::name(self, &asked)?;
        let mut task = Task::new(self, BuildOptions::default(), events, cancel)?;
        let _lock = task.lock_environment(&name).await?;
        let pulling = pull_into(&task, &pull, &reference, &name);
        unless_cancelled(cancel, pulling).await?;
        task.ensure_kernel().await?;
        self.inspect(name.as_str())
    }
}

/// Names what was to be pulled where only the way there is known to have failed.
fn unreachable(error: Error, reference: &Reference) -> Error {
    if error.kind() != ErrorKind::Network || error.next_step().is_some() {
        return error;
    }
    Error::new(ErrorKind::Network, format!("cannot pull {reference}")).because(error).hint(
        "see whether this host reaches the registry, and whether `HTTPS_PROXY` names the proxy if \
         there is one; `--insecure` is for a registry without TLS",
    )
}

async fn pull_into(task: &Task<'_>, pull: &Pull, reference: &Reference, name: &Name) -> Result<()> {
    let environments = task.environments;
    let agent = task.agent().await?;
    task.stage("resolving", &reference.to_string()).await;
    let config = &environments.config;
    let mut registry =
        Registry::connect(config, reference, pull.plain, pull.patience, task.events())
            .await
            .map_err(|error| unreachable(error, reference))?;
    let resolved =
        resolve(&mut registry, reference).await.map_err(|error| unreachable(error, reference))?;
    let origin =
        Origin { how: How::Pulled, source: reference.to_string(), digest: Some(resolved.digest) };
    if let Ok(manifest) = environments.read_current(name)
        && manifest.agent.digest == agent.digest
        && manifest.origin.as_ref().is_some_and(|its| its.digest == origin.digest)
        && task.intact_image(&manifest).await?
    {
        // The same image may have been asked for by another of its names.
        let path = environments.current_path(name);
        let mut current: super::manifest::Current = record::read(&path)?;
        current.origin = Some(origin);
        return record::write(&path, &current);
    }
    let (layers, _held) = fetch(task, &mut registry, &resolved, reference).await?;
    let Resolved { config, config_text, manifest, .. } = resolved;
    let blobs = manifest.layers.iter().map(|layer| layer.digest).collect();
    let adopted = Adopted { name: name.clone(), origin, config, config_text, blobs };
    adopted.settle(task, &agent, Source::Layers(layers)).await
}

/// Finds the image for the guests, and what its configuration says.
async fn resolve(registry: &mut Registry<'_>, reference: &Reference) -> Result<Resolved> {
    let wrong = |bad: BadDocument| bad_document(&reference.to_string(), bad);
    let (mut digest, mut text) = registry.resolve().await?;
    for _ in 0..INDEXES_MAX {
        let manifest = match Document::parse(&text).map_err(wrong)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(entries) => {
                let entry = document::choose(&entries).map_err(wrong)?;
                text = registry.document(Part::Manifest, entry).await?;
                digest = entry.digest;
                continue;
            }
        };
        let config_text = registry.document(Part::Blob, &manifest.config).await?;
        let config = ImageConfig::parse(&config_text).map_err(wrong)?;
        check_count(manifest.layers.len(), &config).map_err(wrong)?;
        return Ok(Resolved { digest, manifest, config, config_text });
    }
    Err(wrong(BadDocument::Neither))
}

/// Sees to it that all layers are here.
async fn fetch(
    task: &Task<'_>,
    registry: &mut Registry<'_>,
    resolved: &Resolved,
    reference: &Reference,
) -> Result<(Vec<Layer>, Vec<Held>)> {
    let descriptors = &resolved.manifest.layers;
    let mut held = Vec::new();
    let mut needed = 0_u64;
    for what in descriptors {
        let cached = task.cached(what.digest).await?;
        if cached.is_none() {
            needed = needed.saturating_add(what.size);
        }
        held.push(cached);
    }
    let cache = &task.environments.config.cache_dir;
    let free = (task.environments.free_bytes)(cache)?;
    if free < needed {
        let doing = format!("pulling {reference}");
        return Err(failure::no_room(&doing, cache, needed, free));
    }
    if needed > 0 {
        let subject = format!("{reference}, {} MiB", needed.div_ceil(1 << 20));
        task.stage("pulling", &subject).await;
    }
    let (mut layers, mut all) = (Vec::new(), Vec::new());
    for (index, (what, cached)) in descriptors.iter().zip(held).enumerate() {
        let told = format!("layer {} of {}", index + 1, descriptors.len());
        let held = match cached {
            Some(held) => held,
            None => task.fetch(registry, what, &told).await?,
        };
        let path = held.path().join(BLOB);
        let file = File::open(&path)
            .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        let diff_id = resolved.config.diff_ids.get(index).copied();
        layers.push(Layer { name: format!("{told} of {reference}"), file, diff_id });
        all.push(held);
    }
    Ok((layers, all))
}
