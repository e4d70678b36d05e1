//! Makes an environment of an image that others made: a root image from its
//! layers, with the agent in it, and what its makers say programs get.

use super::build::{Agent, Task, settle};
use super::manifest::{BakedAgent, Current, Manifest, Origin};
use super::recipe::{Defaults, Name};
use super::{Environments, IMAGE, MANIFEST, failure};
use crate::blocking::blocking;
use crate::digest::{Digest, Sha256};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::oci::layer::{Layer, UNPACKED_MAX};
use crate::oci::merge::Merged;
use crate::oci::reference::BadReference;
use crate::oci::root::{Baked, Root};
use crate::oci::{ImageConfig, Reference};
use crate::seed::walk::Warnings;
use crate::store::private_dir;
use crate::store::record;
use jiff::Timestamp;
use pyro_protocol::GuestPath;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// What an image needs on the disk besides its content.
const IMAGE_ROOM: u64 = 64 << 20;

/// An image on its way into the catalog.
pub(super) struct Adopted {
    pub name: Name,
    pub origin: Origin,
    pub config: ImageConfig,
    pub config_text: Vec<u8>,
    /// What stays in the cache for the next time.
    pub blobs: Vec<Sha256>,
}

/// Where the content of a root image comes from.
pub(super) enum Source {
    /// From layers.
    Layers(Vec<Layer>),
    /// From a directory of the host: an image that has it all, and its tree.
    Tree(Box<Fill>),
}

/// Puts a tree into a root image.
pub(super) type Fill =
    dyn FnOnce(&mut Root, &CancellationToken) -> Result<(Merged, Warnings)> + Send;

/// The name of what is adopted: what was asked for, if that can be one and is
/// nobody else's.
pub(super) fn name(environments: &Environments, asked: &str) -> Result<Name> {
    let name = Name::try_from(asked.to_owned()).map_err(|why| {
        Error::new(ErrorKind::InvalidInput, format!("{asked:?} cannot be a name: {why}"))
            .hint("give one with `--name`")
    })?;
    let is_taken = environments.recipes.iter().any(|recipe| recipe.name == name);
    if is_taken { Err(failure::name_taken(&name)) } else { Ok(name) }
}

/// The name that a reference gives: as it was written, with the tag it means.
pub(super) fn name_of_reference(written: &str) -> String {
    let last = written.rsplit('/').next().unwrap_or(written);
    if last.contains([':', '@']) { written.to_owned() } else { format!("{written}:latest") }
}

/// What programs get by an image's configuration. Where it names no user it is
/// root by number: an image need not have a table of users.
pub(super) fn defaults(config: &ImageConfig) -> Result<Defaults> {
    let cwd = match config.working_dir.as_str() {
        "" => Defaults::default().cwd,
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    };
    GuestPath::new(cwd.as_str()).map_err(|error| {
        let message = format!("the image's directory {cwd:?} is none");
        Error::new(ErrorKind::Untrusted, message).because(error)
    })?;
    let user = if config.user.is_empty() { "0".to_owned() } else { config.user.clone() };
    Ok(Defaults {
        cwd,
        user,
        env: config.env.iter().cloned().collect(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
    })
}

impl Adopted {
    /// Makes the root image and lets the name mean it.
    pub(super) async fn settle(self, task: &Task<'_>, agent: &Agent, source: Source) -> Result<()> {
        let environments = task.environments;
        let defaults = defaults(&self.config)?;
        task.stage("making the image", self.name.as_str()).await;
        let made = task.staging.path().join("image");
        private_dir(&made)?;
        let making = Making {
            target: made.join(IMAGE),
            agent: agent.path.clone(),
            config_text: self.config_text,
            cwd: defaults.cwd.clone(),
            cache: environments.config.cache_dir.clone(),
            free_bytes: environments.free_bytes,
            cancel: task.cancellation().clone(),
        };
        let (content, warnings) = blocking(move || making.run(source)).await?;
        for warning in warnings.lines() {
            task.events().emit(Event::Warning(warning)).await;
        }
        let (digest, size) = settle(made.join(IMAGE)).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let manifest = Manifest {
            environment: self.name.clone(),
            root_digest: digest,
            root_size: size,
            tree_key: content,
            tree_digest: content,
            agent: BakedAgent { digest: agent.digest, version: version.clone() },
            builder: content,
            built_by: version,
            built_at: Timestamp::now(),
            packages: Vec::new(),
            origin: Some(self.origin.clone()),
            defaults: Some(defaults),
        };
        record::write(&made.join(MANIFEST), &manifest)?;
        let dir = environments.image_dir(digest);
        let held = task.shelve(&made, &dir, IMAGE, digest, size).await?;
        if made.exists() {
            record::write(&held.path().join(MANIFEST), &manifest)?;
        }
        let path = environments.current_path(&self.name);
        let (environment, origin, blobs) = (self.name, Some(self.origin), self.blobs);
        record::write(&path, &Current { environment, root_digest: digest, origin, blobs })
    }
}

/// A root image that is made on a thread of its own.
struct Making {
    target: PathBuf,
    agent: PathBuf,
    config_text: Vec<u8>,
    cwd: String,
    cache: PathBuf,
    free_bytes: fn(&Path) -> Result<u64>,
    cancel: CancellationToken,
}

impl Making {
    /// Makes it; gives what its content is known by.
    fn run(self, source: Source) -> Result<(Digest, Warnings)> {
        let mut root = Root::new(&self.target)?;
        match source {
            Source::Tree(walk) => {
                let (mut merged, warnings) = walk(&mut root, &self.cancel)?;
                root.bake(&mut merged, &self.baked())?;
                root.finish(&merged)?;
                Ok((Digest::of(b"a directory"), warnings))
            }
            Source::Layers(layers) => self.merge(root, layers),
        }
    }

    fn merge(&self, mut root: Root, mut layers: Vec<Layer>) -> Result<(Digest, Warnings)> {
        let (mut merged, mut warnings) = (Merged::new(), Warnings::default());
        let mut left = UNPACKED_MAX;
        let mut parts = Vec::new();
        for layer in &mut layers {
            let passed = layer.merge_into(&mut merged, left, &mut warnings, &self.cancel)?;
            left = left.saturating_sub(passed.bytes);
            // The second time it has to be what it was the first time.
            layer.diff_id = Some(passed.diff_id);
            parts.push(passed.diff_id.to_string());
        }
        let needed = merged.content_bytes().saturating_add(IMAGE_ROOM);
        let free = (self.free_bytes)(&self.cache)?;
        if free < needed {
            return Err(failure::no_room("making the image", &self.cache, needed, free));
        }
        root.bake(&mut merged, &self.baked())?;
        for (number, layer) in (1..).zip(&layers) {
            root.fill(&mut merged, number, layer, &self.cancel)?;
        }
        root.finish(&merged)?;
        Ok((Digest::of_parts(parts), warnings))
    }

    fn baked(&self) -> Baked<'_> {
        Baked { agent: &self.agent, config: &self.config_text, working_dir: &self.cwd }
    }
}

/// What is meant by a reference as somebody wrote it.
pub(super) fn reference(written: &str) -> Result<Reference> {
    written.parse().map_err(|bad: BadReference| {
        Error::new(ErrorKind::InvalidInput, format!("{written:?} is no image's reference"))
            .because(bad)
            .hint("it is like `alpine:3.20` or `ghcr.io/org/app:1.2`")
    })
}
