//! Which environments there are: those with a recipe, and those made of images
//! that others made.

use super::manifest::{Current, How, Manifest};
use super::recipe::{Defaults, Name, Recipe};
use super::{Environments, failure};
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::Reference;
use crate::store::record::{self, RecordError};

/// An environment that there is.
#[derive(Debug, Clone)]
pub(super) enum Known<'a> {
    /// It has a recipe, and may not be built.
    Recipe(&'a Recipe),
    /// It was made of an image.
    Image(Box<Current>),
}

impl Known<'_> {
    pub(super) fn name(&self) -> &Name {
        match self {
            Self::Recipe(recipe) => &recipe.name,
            Self::Image(current) => &current.environment,
        }
    }

    /// What makes it again, whatever is wrong with it.
    pub(super) fn repair(&self) -> String {
        let name = self.name();
        match self {
            Self::Recipe(_) => failure::repair(name),
            Self::Image(current) => match &current.origin {
                Some(origin) => origin.way(name.as_str()),
                None => failure::repair(name),
            },
        }
    }

    /// What a program gets that does not ask for anything else.
    pub(super) fn defaults(&self, manifest: Option<&Manifest>) -> Defaults {
        let said = manifest.and_then(|manifest| manifest.defaults.clone());
        match self {
            Self::Recipe(recipe) => said.unwrap_or_else(|| recipe.defaults.clone()),
            Self::Image(_) => said.unwrap_or_default(),
        }
    }
}

impl Environments {
    /// The environment of a name, or of a reference that was pulled.
    pub(super) fn known(&self, name: &str) -> Result<Known<'_>> {
        if let Some(recipe) = self.recipes.iter().find(|recipe| recipe.name.as_str() == name) {
            return Ok(Known::Recipe(recipe));
        }
        let images = self.adopted();
        let is_named = |current: &&Current| current.environment.as_str() == name;
        if let Some(current) = images.iter().find(is_named) {
            return Ok(Known::Image(Box::new(current.clone())));
        }
        let whole = name.parse::<Reference>().ok().map(|reference| reference.to_string());
        let is_pulled = |current: &&Current| {
            current.origin.as_ref().is_some_and(|origin| {
                origin.how == How::Pulled && Some(&origin.source) == whole.as_ref()
            })
        };
        match images.iter().find(is_pulled) {
            Some(current) => Ok(Known::Image(Box::new(current.clone()))),
            None => {
                let recipes = self.recipes.iter().map(|recipe| recipe.name.as_str());
                let names = images.iter().map(|current| current.environment.as_str());
                Err(failure::unknown(name, &recipes.chain(names).collect::<Vec<_>>()))
            }
        }
    }

    /// What was made of images, by name. A record that cannot be read names nothing.
    pub(super) fn adopted(&self) -> Vec<Current> {
        let Ok(entries) = std::fs::read_dir(self.environment_dir()) else { return Vec::new() };
        let mut found: Vec<Current> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| record::read::<Current>(&path).ok())
            .filter(|current| current.origin.is_some())
            .collect();
        found.sort_by(|one, other| one.environment.cmp(&other.environment));
        found
    }

    /// What a program of a workspace gets that does not ask for anything else, by
    /// the environment and the image that the workspace has for life.
    ///
    /// # Errors
    /// `EnvironmentMissing` when the image is gone.
    pub fn defaults(&self, name: &str, root_digest: Digest) -> Result<Defaults> {
        match self.recipes.iter().find(|recipe| recipe.name.as_str() == name) {
            Some(recipe) => Ok(recipe.defaults.clone()),
            None => Ok(self.pinned(name, root_digest)?.defaults.unwrap_or_default()),
        }
    }

    /// What an environment says to run when nobody names a command, built or not.
    ///
    /// # Errors
    /// `NotFound` when there is no such environment, `EnvironmentCorrupt` when its
    /// image is damaged.
    pub fn command(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>> {
        let known = self.known(name)?;
        Ok(match &known {
            Known::Recipe(recipe) => recipe.defaults.command(),
            Known::Image(_) => known.defaults(Some(&self.manifest_of(&known)?)).command(),
        })
    }

    /// The manifest of an image that a workspace has for life.
    pub(super) fn pinned(&self, name: &str, root_digest: Digest) -> Result<Manifest> {
        let path = self.image_dir(root_digest).join(super::MANIFEST);
        record::read(&path).map_err(|error| match error {
            RecordError::Missing { .. } => failure::pinned_gone(name, root_digest),
            other @ (RecordError::Unreadable { .. }
            | RecordError::Damaged { .. }
            | RecordError::OtherVersion { .. }) => {
                let repair = self.known(name).map(|known| known.repair());
                failure::corrupt_record(other, &repair.unwrap_or_default())
            }
        })
    }
}
