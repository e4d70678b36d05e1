//! Environments: named, immutable things to boot.
//!
//! An environment is a recipe, or an image that others made and that was pulled or
//! imported; what was built from it lies in the cache:
//!
//! ```text
//! environments/debian_12.json        which image it boots now
//! images/<digest>/root.erofs         an image, and manifest.json beside it
//! trees/<key>/root.tar               its packages, before the agent went in
//! blobs/<sha256>/blob                a layer that was pulled
//! partial/<sha256>                   as much of one as came before it broke off
//! kernels/{tuned,stock}.json         which kernel is booted now
//! kernels/{tuned,stock}/<digest>/    a kernel
//! kernels/initrd/<digest>/           the initrd of a kernel that has modules
//! staging/                           what is being made
//! ```
//!
//! Images and kernels are named by their content and never change. A workspace
//! pins its image by digest for life; building again makes another one.

mod adopt;
mod blobs;
mod build;
mod failure;
mod import;
mod kernel;
mod known;
mod manifest;
mod prune;
mod pull;
mod recipe;
mod script;

pub use build::BuildOptions;
pub use import::Import;
pub use kernel::Kernel;
pub use manifest::{BakedAgent, How, Manifest, Origin, Package};
pub use prune::{Pins, PruneOptions, Pruned, Removed, pinned_digests};
pub use pull::Pull;
pub use recipe::{Defaults, Name, Recipe};

use crate::config::Config;
use crate::digest::Digest;
use crate::error::{ErrorKind, Result};
use crate::store::record::{self, RecordError};
use crate::store::shelf::{self, Held};
use crate::store::verify;
use crate::vmm::KernelFlavor;
use jiff::Timestamp;
use known::Known;
use manifest::Current;
use schemars::JsonSchema;
use script::Scripts;
use serde::Serialize;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The root image in its directory.
const IMAGE: &str = "root.erofs";
/// What is known about it, beside it.
const MANIFEST: &str = "manifest.json";

/// Where distributions keep programs that unprivileged users' PATH often lacks.
const MORE_PROGRAMS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The environments that this host knows, and what is built of them.
#[derive(Debug, Clone)]
pub struct Environments {
    config: Arc<Config>,
    recipes: Arc<[Recipe]>,
    scripts: Arc<Scripts>,
    kernels: kernel::Kernels,
    free_bytes: fn(&Path) -> Result<u64>,
}

/// All that a guest boots from; it stays in the cache while this lives.
#[derive(Debug, Clone)]
pub struct Bootable {
    /// The environment's name.
    pub environment: String,
    /// The read-only root image.
    pub root_image: PathBuf,
    /// Its content.
    pub root_digest: Digest,
    /// The kernel to boot it with.
    pub kernel: Kernel,
    /// What a program gets that does not ask for anything else.
    pub defaults: Defaults,
    _held: Held,
}

/// A named, immutable thing to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Environment {
    /// Such as `debian:12`.
    pub name: String,
    /// What it is good for, in one line.
    pub description: String,
    /// Such as `debian`.
    pub distribution: String,
    /// Such as `12`.
    pub distribution_version: String,
    /// The packages it adds to the distribution's essential ones.
    pub packages: Vec<String>,
    /// Where the image comes from that it was made of; null when it has a recipe.
    pub origin: Option<Origin>,
    /// What a program gets that does not ask for anything else.
    pub defaults: Defaults,
    /// What there is on this host and boots; null while nothing is.
    pub installed: Option<Installed>,
    /// Why what there is does not boot; null when nothing is wrong.
    pub problem: Option<String>,
}

/// The files of an environment on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Installed {
    /// The read-only root image.
    pub root_image: PathBuf,
    /// Its digest.
    #[schemars(with = "String")]
    pub root_digest: Digest,
    /// Its size in bytes.
    pub root_bytes: u64,
    /// When it was built, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub built_at: Timestamp,
    /// The version of the pyro that built it.
    pub built_by: String,
    /// The digest of the agent in it.
    #[schemars(with = "String")]
    pub agent_digest: Digest,
    /// How many packages are installed in it; its manifest lists them.
    pub package_count: usize,
    /// Why `build` would make another one; it boots all the same.
    pub outdated: Vec<Outdated>,
    /// The kernel that boots it.
    pub kernel: PathBuf,
    /// Whose configuration the kernel has.
    pub kernel_flavor: KernelFlavor,
    /// The kernel's release, such as `6.12.117`.
    pub kernel_version: String,
    /// The kernel's digest.
    #[schemars(with = "String")]
    pub kernel_digest: Digest,
}

/// How an image differs from what would be built now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outdated {
    /// Its packages come from another recipe or script.
    Tree,
    /// It has another agent in it.
    Agent,
}

/// How closely to look at an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// At its length.
    Glance,
    /// At all of it, unless that was done before.
    Verify,
}

impl Environments {
    /// The environments that come with pyro.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::with(config, Recipe::built_in(), Scripts::embedded())
    }

    /// Environments from other recipes and scripts.
    fn with(config: &Config, recipes: Vec<Recipe>, scripts: Scripts) -> Self {
        Self {
            kernels: kernel::Kernels::new(&config.cache_dir),
            config: Arc::new(config.clone()),
            recipes: recipes.into(),
            scripts: Arc::new(scripts),
            free_bytes: crate::store::free_bytes,
        }
    }

    /// What a name is made from.
    ///
    /// # Errors
    /// `NotFound`, with the names there are; `InvalidInput` when it was made of an
    /// image.
    pub fn recipe(&self, name: &str) -> Result<&Recipe> {
        match self.known(name)? {
            Known::Recipe(recipe) => Ok(recipe),
            Known::Image(current) => Err(match &current.origin {
                Some(origin) => failure::no_recipe(&current.environment, origin),
                None => failure::unknown(name, &[]),
            }),
        }
    }

    /// Every environment with what there is of it, as far as the lengths of
    /// files show.
    ///
    /// # Errors
    /// When the configuration names a kernel that there cannot be. What is wrong
    /// with an environment is part of the answer.
    pub fn list(&self) -> Result<Vec<Environment>> {
        self.wanted_flavor()?;
        let recipes = self.recipes.iter().map(Known::Recipe);
        let images = self.adopted().into_iter().map(|current| Known::Image(Box::new(current)));
        Ok(recipes.chain(images).map(|known| self.look_at(&known, Look::Glance)).collect())
    }

    /// One environment with what there is of it. Blocks while it reads an image
    /// that is new or was changed.
    ///
    /// # Errors
    /// `NotFound` when there is no such environment. What is wrong with one that
    /// there is, is part of the answer.
    pub fn inspect(&self, name: &str) -> Result<Environment> {
        self.wanted_flavor()?;
        Ok(self.look_at(&self.known(name)?, Look::Verify))
    }

    /// What the image of an environment is and was made from, with the version
    /// of every package in it.
    ///
    /// # Errors
    /// As [`Environments::resolve`].
    pub fn manifest(&self, name: &str) -> Result<Manifest> {
        self.manifest_of(&self.known(name)?)
    }

    fn manifest_of(&self, known: &Known<'_>) -> Result<Manifest> {
        match self.read_current(known.name()) {
            Ok(manifest) => Ok(manifest),
            Err(RecordError::Missing { .. }) => Err(failure::not_built(known.name())),
            Err(error) => Err(failure::corrupt_record(error, &known.repair())),
        }
    }

    fn look_at(&self, known: &Known<'_>, look: Look) -> Environment {
        let manifest = self.manifest_of(known);
        let defaults = known.defaults(manifest.as_ref().ok());
        let found = manifest.and_then(|manifest| self.installed(known, &manifest, look));
        let (installed, problem) = match found {
            Ok(installed) => (Some(installed), None),
            Err(error) if error.kind() == ErrorKind::EnvironmentMissing => (None, None),
            Err(error) => (None, Some(error.chain())),
        };
        let name = known.name().to_string();
        match known {
            Known::Recipe(recipe) => Environment {
                name,
                description: recipe.description.clone(),
                distribution: recipe.distribution.clone(),
                distribution_version: recipe.distribution_version.clone(),
                packages: recipe.packages.clone(),
                origin: None,
                defaults,
                installed,
                problem,
            },
            Known::Image(current) => Environment {
                name,
                description: current.origin.as_ref().map(Origin::told).unwrap_or_default(),
                distribution: String::new(),
                distribution_version: String::new(),
                packages: Vec::new(),
                origin: current.origin.clone(),
                defaults,
                installed,
                problem,
            },
        }
    }

    fn installed(&self, known: &Known<'_>, manifest: &Manifest, look: Look) -> Result<Installed> {
        let root_image = self.image_dir(manifest.root_digest).join(IMAGE);
        match look {
            Look::Verify => drop(self.open_image(manifest, &known.repair())?),
            Look::Glance => verify::glance(&root_image, manifest.root_size)
                .map_err(|fault| failure::corrupt(&root_image, fault, &known.repair()))?,
        }
        let kernel = self.kernel()?;
        Ok(Installed {
            root_image,
            root_digest: manifest.root_digest,
            root_bytes: manifest.root_size,
            built_at: manifest.built_at,
            outdated: self.outdated(known, manifest, self.config.agent.digest().ok()),
            built_by: manifest.built_by.clone(),
            agent_digest: manifest.agent.digest,
            package_count: manifest.packages.len(),
            kernel: kernel.vmlinux,
            kernel_flavor: kernel.flavor,
            kernel_version: kernel.version,
            kernel_digest: kernel.digest,
        })
    }

    /// What to boot for a name. Takes well under a millisecond; blocks for as
    /// long as it takes to read a file that is new or was changed.
    ///
    /// # Errors
    /// `NotFound` when there is no such environment, `EnvironmentMissing` when it
    /// is not built, `EnvironmentCorrupt` when a file is not what it was.
    pub fn resolve(&self, name: &str) -> Result<Bootable> {
        let known = self.known(name)?;
        let current = || record::read_field(&self.current_path(known.name()), "root_digest").ok();
        loop {
            let before = current();
            let found = self.manifest_of(&known).and_then(|manifest| {
                let defaults = known.defaults(Some(&manifest));
                self.bootable(known.name().as_str(), &manifest, defaults, &known.repair())
            });
            // Built again and pruned meanwhile: what went is not what is wanted.
            if found.is_ok() || current() == before {
                return found;
            }
        }
    }

    /// What to boot for a workspace that pinned its image: the environment may
    /// have another one by now.
    ///
    /// # Errors
    /// `EnvironmentMissing` when the image is gone, `EnvironmentCorrupt` when it
    /// is not what it was.
    pub fn resolve_pinned(&self, name: &str, root_digest: Digest) -> Result<Bootable> {
        let manifest = self.pinned(name, root_digest)?;
        let defaults = self.defaults(name, root_digest)?;
        // Nothing can be done about an image whose environment there is no more.
        let repair = self.known(name).map(|known| known.repair()).unwrap_or_default();
        self.bootable(name, &manifest, defaults, &repair)
    }

    fn bootable(
        &self,
        name: &str,
        manifest: &Manifest,
        defaults: Defaults,
        repair: &str,
    ) -> Result<Bootable> {
        let held = self.open_image(manifest, repair)?;
        Ok(Bootable {
            environment: name.to_owned(),
            root_image: held.path().join(IMAGE),
            root_digest: manifest.root_digest,
            kernel: self.kernel()?,
            defaults,
            _held: held,
        })
    }

    /// Holds and verifies an image.
    fn open_image(&self, manifest: &Manifest, repair: &str) -> Result<Held> {
        let dir = self.image_dir(manifest.root_digest);
        let file = dir.join(IMAGE);
        let corrupt = |fault| failure::corrupt(&file, fault, repair);
        let held = shelf::hold(&dir)?.ok_or_else(|| corrupt(verify::Fault::Missing))?;
        verify::verify(&file, manifest.root_digest, manifest.root_size).map_err(corrupt)?;
        Ok(held)
    }

    /// Why an image is not what would be built now. An agent that is not there
    /// could not be baked in either.
    fn outdated(
        &self,
        known: &Known<'_>,
        manifest: &Manifest,
        agent: Option<Digest>,
    ) -> Vec<Outdated> {
        let mut reasons = Vec::new();
        match known {
            Known::Recipe(recipe) if manifest.tree_key != self.tree_key(recipe) => {
                reasons.push(Outdated::Tree);
            }
            // What an image is made of does not change with pyro.
            Known::Recipe(_) | Known::Image(_) => {}
        }
        if agent.is_some_and(|agent| agent != manifest.agent.digest) {
            reasons.push(Outdated::Agent);
        }
        reasons
    }

    /// The manifest of the image that an environment boots now; `Missing` when
    /// it was never built.
    fn read_current(&self, name: &Name) -> Result<Manifest, RecordError> {
        let path = self.current_path(name);
        let current: Current = record::read(&path)?;
        let manifest = self.image_dir(current.root_digest).join(MANIFEST);
        match record::read(&manifest) {
            Err(RecordError::Missing { path: image }) => {
                let source = format!("it refers to {}, which is not there", image.display());
                Err(RecordError::Damaged { path, source: source.into() })
            }
            answer => answer,
        }
    }

    fn environment_dir(&self) -> PathBuf {
        self.config.cache_dir.join("environments")
    }

    fn current_path(&self, name: &Name) -> PathBuf {
        self.environment_dir().join(format!("{}.json", name.file_stem()))
    }

    fn images_dir(&self) -> PathBuf {
        self.config.cache_dir.join("images")
    }

    fn image_dir(&self, digest: Digest) -> PathBuf {
        self.images_dir().join(digest.hex())
    }

    fn trees_dir(&self) -> PathBuf {
        self.config.cache_dir.join("trees")
    }

    fn tree_dir(&self, key: Digest) -> PathBuf {
        self.trees_dir().join(key.hex())
    }

    fn blobs_dir(&self) -> PathBuf {
        self.config.cache_dir.join("blobs")
    }

    fn partial_dir(&self) -> PathBuf {
        self.config.cache_dir.join("partial")
    }

    pub(crate) fn staging_dir(&self) -> PathBuf {
        self.config.cache_dir.join("staging")
    }

    /// Where build scripts find programs.
    fn program_path(&self) -> OsString {
        let dirs = self.config.path.iter().map(PathBuf::as_path);
        let dirs = dirs.chain(MORE_PROGRAMS.map(Path::new));
        // A directory with a colon in its name cannot be in PATH at all.
        std::env::join_paths(dirs).unwrap_or_default()
    }

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.config.find_program(name).or_else(|| {
            MORE_PROGRAMS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
        })
    }
}

#[cfg(test)]
mod tests;
