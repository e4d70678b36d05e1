//! Images that lie on the host: a directory of the OCI's layout, an archive of
//! `docker save` or of such a directory, a tar of a root file system, or one that
//! is unpacked already.

mod archive;

use super::document::{
    self, BYTES_MAX, BadDocument, Descriptor, Document, ImageConfig, LAYERS_MAX, Manifest,
};
use super::layer::Layer;
use crate::context::Admitted;
use crate::digest::Sha256;
use crate::error::{Error, ErrorKind, Result};
use archive::Extracted;
use rustix::fs::OFlags;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// How many indexes may lead to one another.
const INDEXES_MAX: usize = 4;

/// What says that a directory is of the OCI's layout, and what begins it.
const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";
/// What begins an archive of `docker save`.
const DOCKER: &str = "manifest.json";

/// By which annotations an image of a layout has a name, the fuller one first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An image with its layers open.
#[derive(Debug)]
pub struct Image {
    /// What it calls itself, if it does.
    pub name: Option<String>,
    /// What its manifest hashes to, if it has one with digests in it.
    pub digest: Option<Sha256>,
    /// What its configuration says.
    pub config: ImageConfig,
    /// The same as it was written.
    pub config_text: Vec<u8>,
    /// The lowest first.
    pub layers: Vec<Layer>,
}

/// What lies at a path.
#[derive(Debug)]
pub enum Found {
    /// An image, or one layer that is a whole root file system.
    Image(Box<Image>),
    /// A directory with a root file system.
    Tree(Admitted),
}

/// Where what has to be unpacked is put.
#[derive(Debug, Clone, Copy)]
pub struct Scratch<'a> {
    /// A directory that is there and empty.
    pub dir: &'a Path,
    /// How many bytes it has room for.
    pub room: u64,
}

/// Looks what lies at a path.
///
/// # Errors
/// When there is nothing, or nothing of a form that is taken, or it holds several
/// images and none is `wanted` by its name; and when there is no room for its parts.
pub fn find(
    place: &Admitted,
    wanted: Option<&str>,
    scratch: Scratch<'_>,
    cancel: &CancellationToken,
) -> Result<Found> {
    let shown = place.path().display().to_string();
    let opened = place.open(OFlags::RDONLY | OFlags::NONBLOCK).map(File::from);
    let file = opened.map_err(|error| Error::unreadable(place.path(), error))?;
    let meta = file.metadata().map_err(|error| Error::unreadable(place.path(), error))?;
    if meta.is_dir() {
        if !place.join(MARK).is_there() {
            return Ok(Found::Tree(place.clone()));
        }
        let parts = Parts { shown: &shown, within: Within::Directory(place) };
        return parts.layout(wanted).map(Box::new).map(Found::Image);
    }
    if !meta.is_file() {
        let message = format!("{shown} is neither a directory nor a file");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    let whole = Layer { name: shown.clone(), file, diff_id: None };
    let Some(extracted) = archive::extract(&whole, scratch, cancel)? else {
        let config_text = b"{}\n".to_vec();
        let config = ImageConfig::default();
        let layers = vec![whole];
        let image = Image { name: None, digest: None, config, config_text, layers };
        return Ok(Found::Image(Box::new(image)));
    };
    let is_docker = extracted.has(DOCKER);
    let parts = Parts { shown: &shown, within: Within::Archive(&extracted) };
    let image = if is_docker { parts.docker(wanted) } else { parts.layout(wanted) };
    image.map(Box::new).map(Found::Image)
}

/// Where the parts of an image are.
enum Within<'a> {
    Directory(&'a Admitted),
    Archive(&'a Extracted),
}

struct Parts<'a> {
    shown: &'a str,
    within: Within<'a>,
}

/// One image of an archive of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Parts<'_> {
    fn layout(&self, wanted: Option<&str>) -> Result<Image> {
        let index = self.read(INDEX)?;
        let Document::Index(entries) = self.parsed(INDEX, Document::parse(&index))? else {
            return Err(self.refused("its index is none"));
        };
        let entry = self.one_of(&entries, wanted)?;
        let name = name_of(entry).map(str::to_owned);
        let (digest, manifest) = self.manifest(entry.clone())?;
        let config_text = self.verified(&manifest.config)?;
        let config = self.parsed("its configuration", ImageConfig::parse(&config_text))?;
        self.check_count(manifest.layers.len(), &config)?;
        let layers = manifest
            .layers
            .iter()
            .zip(&config.diff_ids)
            .map(|(layer, diff_id)| self.layer(&blob(layer.digest), *diff_id));
        let layers = layers.collect::<Result<_>>()?;
        Ok(Image { name, digest: Some(digest), config, config_text, layers })
    }

    /// Chooses by name, if there is a choice of names, and then by platform.
    fn one_of<'e>(
        &self,
        entries: &'e [Descriptor],
        wanted: Option<&str>,
    ) -> Result<&'e Descriptor> {
        let names: BTreeSet<_> = entries.iter().filter_map(name_of).collect();
        let has_name = |entry: &&Descriptor, name: &str| {
            NAMES.iter().any(|key| entry.annotations.get(*key).is_some_and(|its| its == name))
        };
        let named: Vec<Descriptor> = match wanted {
            Some(name) => entries.iter().filter(|entry| has_name(entry, name)).cloned().collect(),
            None if names.len() > 1 => Vec::new(),
            None => entries.to_vec(),
        };
        if named.is_empty() && (wanted.is_some() || names.len() > 1) {
            return Err(self.choose_hint(wanted, names.into_iter()));
        }
        let chosen = match named.as_slice() {
            [one] => one,
            several => self.parsed("its index", document::choose(several))?,
        };
        entries
            .iter()
            .find(|entry| *entry == chosen)
            .ok_or_else(|| self.refused("its index is empty"))
    }

    fn choose_hint<'n>(&self, wanted: Option<&str>, names: impl Iterator<Item = &'n str>) -> Error {
        let names: Vec<_> =
            names.take(16).map(|name| crate::seed::entry::readable(name.as_bytes())).collect();
        let message = match wanted {
            Some(wanted) => format!("{} has no image {wanted:?}", self.shown),
            None => format!("{} has several images", self.shown),
        };
        let hint = match names.as_slice() {
            [] => "its images have no names: leave `--image` out".to_owned(),
            names => format!("name one with `--image`: {}", names.join(", ")),
        };
        Error::new(ErrorKind::InvalidInput, message).hint(hint)
    }

    /// Follows indexes to a manifest for the guests' platform.
    fn manifest(&self, mut entry: Descriptor) -> Result<(Sha256, Manifest)> {
        for _ in 0..INDEXES_MAX {
            let text = self.verified(&entry)?;
            match self.parsed("a document of it", Document::parse(&text))? {
                Document::Manifest(manifest) => return Ok((entry.digest, manifest)),
                Document::Index(entries) => {
                    entry = self.parsed("its index", document::choose(&entries))?.clone();
                }
            }
        }
        Err(self.refused("its indexes lead to one another"))
    }

    fn docker(&self, wanted: Option<&str>) -> Result<Image> {
        let text = self.read(DOCKER)?;
        let saved: Vec<Saved> = self.parsed(DOCKER, document::parse(&text))?;
        let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
        let found = match wanted {
            Some(name) => saved.iter().find(|saved| tags(saved).iter().any(|tag| tag == name)),
            None if saved.len() == 1 => saved.first(),
            None => None,
        };
        let found = found.ok_or_else(|| {
            let names: Vec<_> = saved.iter().flat_map(tags).collect();
            self.choose_hint(wanted, names.iter().map(String::as_str))
        })?;
        let config_text = self.read(&found.config)?;
        let config = self.parsed("its configuration", ImageConfig::parse(&config_text))?;
        let names = found.layers.clone().unwrap_or_default();
        self.check_count(names.len(), &config)?;
        let layers = names.iter().zip(&config.diff_ids);
        let layers = layers.map(|(name, diff_id)| self.layer(name, *diff_id));
        let layers = layers.collect::<Result<_>>()?;
        let name = wanted.map(str::to_owned).or_else(|| tags(found).into_iter().next());
        Ok(Image { name, digest: None, config, config_text, layers })
    }

    fn check_count(&self, layers: usize, config: &ImageConfig) -> Result<()> {
        self.parsed("it", check_count(layers, config))
    }

    fn layer(&self, name: &str, diff_id: Sha256) -> Result<Layer> {
        let shown = format!("the layer {} of {}", readable(name), self.shown);
        Ok(Layer { name: shown, file: self.open(name)?, diff_id: Some(diff_id) })
    }

    fn verified(&self, what: &Descriptor) -> Result<Vec<u8>> {
        let text = self.read(&blob(what.digest))?;
        let is = Sha256::of(&text);
        if is != what.digest || text.len() as u64 != what.size {
            let message = format!("{} is damaged: {} is {is}", self.shown, what.digest);
            return Err(Error::new(ErrorKind::Untrusted, message));
        }
        Ok(text)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        let read = self.open(name)?.take(BYTES_MAX + 1).read_to_end(&mut text);
        read.map_err(|error| {
            Error::io(format!("cannot read {} of {}", readable(name), self.shown), error)
        })?;
        if text.len() as u64 > BYTES_MAX {
            return self.parsed(name, Err(BadDocument::TooLong));
        }
        Ok(text)
    }

    fn open(&self, name: &str) -> Result<File> {
        let missing = || self.refused(&format!("it has no {}", readable(name)));
        match &self.within {
            Within::Archive(extracted) => extracted.open(name)?.ok_or_else(missing),
            Within::Directory(place) => {
                // The name is one of ours, made from a digest.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
                let opened = place.join(name).open(flags).map(File::from);
                let file = opened.map_err(|error| missing().because(error))?;
                let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
                if is_file { Ok(file) } else { Err(missing()) }
            }
        }
    }

    fn parsed<T>(&self, what: &str, parsed: Result<T, BadDocument>) -> Result<T> {
        parsed.map_err(|bad| bad_document(&format!("{} of {}", readable(what), self.shown), bad))
    }

    fn refused(&self, why: &str) -> Error {
        Error::new(ErrorKind::Untrusted, format!("cannot use {}: {why}", self.shown))
    }
}

/// Compares how many layers a manifest and a configuration name.
///
/// # Errors
/// When they differ, or there are more than [`LAYERS_MAX`].
pub fn check_count(layers: usize, config: &ImageConfig) -> Result<(), BadDocument> {
    let known = config.diff_ids.len();
    if layers > LAYERS_MAX {
        Err(BadDocument::Layers(layers))
    } else if layers == known {
        Ok(())
    } else {
        Err(BadDocument::LayerCount { manifest: layers, config: known })
    }
}

/// Says what is wrong with a document, which `what` names.
pub fn bad_document(what: &str, bad: BadDocument) -> Error {
    let kind = match &bad {
        BadDocument::OtherPlatform(_) | BadDocument::NoImage(_) | BadDocument::Encrypted => {
            ErrorKind::Unsupported
        }
        BadDocument::Json { .. }
        | BadDocument::TooLong
        | BadDocument::FirstSchema
        | BadDocument::Neither
        | BadDocument::Layers(_)
        | BadDocument::LayerCount { .. }
        | BadDocument::LongWords
        | BadDocument::Word(_) => ErrorKind::Untrusted,
    };
    Error::new(kind, format!("cannot use {what}")).because(bad)
}

fn blob(digest: Sha256) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

fn name_of(entry: &Descriptor) -> Option<&str> {
    NAMES.iter().find_map(|key| entry.annotations.get(*key)).map(String::as_str)
}

fn readable(name: &str) -> String {
    crate::seed::entry::readable(name.as_bytes())
}
