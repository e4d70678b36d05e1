//! The JSON documents of images: indexes, manifests, configurations. Whoever
//! reads one has seen to it that it is no longer than [`BYTES_MAX`].

use crate::digest::Sha256;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// The longest document: what registries take for a manifest.
pub const BYTES_MAX: u64 = 4 << 20;

/// The most layers of an image; Docker makes no more than 127.
pub const LAYERS_MAX: usize = 512;

/// The most bytes that an image's variables and words may have: all Linux takes
/// of one argument.
const WORDS_BYTES_MAX: usize = 128 << 10;

/// The platform of the guests.
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";

/// How others name what is compressed in a manifest's layers is not asked: their
/// first bytes tell. What is encrypted says so only here.
const ENCRYPTED: &str = "+encrypted";

/// The media types of images' configurations. Charts and the like have others.
const CONFIGS: [&str; 3] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "",
];

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// It is no JSON of the form.
    #[error("line {line}, column {column} of it: {what}")]
    Json {
        /// Where.
        line: usize,
        /// Where in the line.
        column: usize,
        /// What.
        what: String,
    },
    /// It is longer than [`BYTES_MAX`].
    #[error("it is longer than {} MiB", BYTES_MAX >> 20)]
    TooLong,
    /// Docker's first format, without digests of what it names.
    #[error("it is of Docker's first format, which no registry needs any more")]
    FirstSchema,
    /// Neither an index nor a manifest, or both.
    #[error("it is neither an index nor a manifest")]
    Neither,
    /// Something else that a registry keeps, such as a chart.
    #[error("it is no image of a file system but {0:?}")]
    NoImage(String),
    /// There is none for the guests' processor.
    #[error("it has no image for {OS}/{ARCHITECTURE}, only for {0}")]
    OtherPlatform(String),
    /// See [`LAYERS_MAX`].
    #[error("it has {0} layers; {LAYERS_MAX} are taken")]
    Layers(usize),
    /// The configuration names other layers than the manifest.
    #[error("its manifest has {manifest} layers and its configuration {config}")]
    LayerCount {
        /// In the manifest.
        manifest: usize,
        /// In the configuration.
        config: usize,
    },
    /// A layer's media type says so.
    #[error("its layers are encrypted")]
    Encrypted,
    /// See [`WORDS_BYTES_MAX`].
    #[error("its variables and words have more than {} KiB", WORDS_BYTES_MAX >> 10)]
    LongWords,
    /// A variable, a word or a name that no program can be given.
    #[error("its {0} is nothing that Linux takes")]
    Word(&'static str),
}

/// What names another document or a layer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default, deserialize_with = "nullable")]
    pub media_type: String,
    /// What it hashes to.
    pub digest: Sha256,
    /// How long it is.
    pub size: u64,
    /// For whom an image of an index is.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// What else is said of it.
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// For whom an image is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    /// Which of them, such as `v8`.
    #[serde(default, deserialize_with = "nullable")]
    pub variant: String,
}

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Images for several platforms, or of several names.
    Index(Vec<Descriptor>),
    /// One image.
    Manifest(Manifest),
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadDocument> {
        let raw: Raw = parse(bytes)?;
        if raw.schema_version == Some(1) {
            return Err(BadDocument::FirstSchema);
        }
        match raw {
            Raw { manifests: Some(manifests), config: None, layers: None, .. } => {
                Ok(Self::Index(manifests))
            }
            Raw { manifests: None, config: Some(config), layers, .. } => {
                let layers = layers.unwrap_or_default();
                if layers.len() > LAYERS_MAX {
                    return Err(BadDocument::Layers(layers.len()));
                }
                if !CONFIGS.contains(&config.media_type.as_str()) {
                    return Err(BadDocument::NoImage(config.media_type));
                }
                if layers.iter().any(|layer| layer.media_type.ends_with(ENCRYPTED)) {
                    return Err(BadDocument::Encrypted);
                }
                Ok(Self::Manifest(Manifest { config, layers }))
            }
            Raw { .. } => Err(BadDocument::Neither),
        }
    }
}

/// Chooses the image of an index that the guests' processor runs. An entry that
/// names no platform will do if there is no better one.
///
/// # Errors
/// `OtherPlatform` when there is none.
pub fn choose(entries: &[Descriptor]) -> Result<&Descriptor, BadDocument> {
    let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(Platform::is_guests);
    let plain = |entry: &&Descriptor| {
        entry.platform.as_ref().is_some_and(|platform| platform.variant.is_empty())
    };
    let all = || entries.iter().filter(fits);
    all().find(plain).or_else(|| all().next()).or_else(|| silent(entries)).ok_or_else(|| {
        let mut platforms: Vec<_> = entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .map(Platform::told)
            .collect();
        platforms.sort_unstable();
        platforms.dedup();
        platforms.truncate(16);
        BadDocument::OtherPlatform(platforms.join(", "))
    })
}

fn silent(entries: &[Descriptor]) -> Option<&Descriptor> {
    entries.iter().find(|entry| entry.platform.is_none())
}

impl Platform {
    fn is_guests(&self) -> bool {
        self.os == OS && self.architecture == ARCHITECTURE
    }

    fn told(&self) -> String {
        crate::seed::entry::readable(format!("{}/{}", self.os, self.architecture).as_bytes())
    }
}

/// What an image's configuration says, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// What each layer unpacks to.
    pub diff_ids: Vec<Sha256>,
    /// Variables.
    pub env: Vec<(String, String)>,
    /// What a command's words are put behind; may be empty.
    pub entrypoint: Vec<String>,
    /// The words of the command that is run when none is given; may be empty.
    pub cmd: Vec<String>,
    /// `USER[:GROUP]`; empty is root.
    pub user: String,
    /// The directory that programs start in; empty if it does not say.
    pub working_dir: String,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    config: RawDefaults,
    #[serde(default, deserialize_with = "nullable")]
    rootfs: RawRootFs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawDefaults {
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    entrypoint: Words,
    #[serde(default, deserialize_with = "nullable")]
    cmd: Words,
    #[serde(default, deserialize_with = "nullable")]
    user: String,
    #[serde(default, deserialize_with = "nullable")]
    working_dir: String,
}

#[derive(Default, Deserialize)]
struct RawRootFs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Sha256>,
}

/// Words; old images have one as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    Many(Vec<String>),
    One(String),
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Words {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::Many(words) => words,
            Self::One(word) => vec![word],
        }
    }
}

impl ImageConfig {
    /// Reads the configuration that a manifest names.
    ///
    /// # Errors
    /// When it is none, for another platform, or says what no program can be
    /// given.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadDocument> {
        let raw: RawConfig = parse(bytes)?;
        let platform =
            Platform { architecture: raw.architecture, os: raw.os, variant: String::new() };
        let is_silent = platform.os.is_empty() && platform.architecture.is_empty();
        if !is_silent && !platform.is_guests() {
            return Err(BadDocument::OtherPlatform(platform.told()));
        }
        let defaults = raw.config;
        let env: Vec<_> = defaults
            .env
            .iter()
            .filter_map(|variable| variable.split_once('='))
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let config = Self {
            diff_ids: raw.rootfs.diff_ids,
            env,
            entrypoint: defaults.entrypoint.into_vec(),
            cmd: defaults.cmd.into_vec(),
            user: defaults.user,
            working_dir: defaults.working_dir,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), BadDocument> {
        let variables = self.env.iter().flat_map(|(name, value)| [name, value]);
        let words = self.entrypoint.iter().chain(&self.cmd);
        let texts: [(&str, Vec<&String>); 4] = [
            ("environment", variables.collect()),
            ("command", words.collect()),
            ("user", vec![&self.user]),
            ("directory", vec![&self.working_dir]),
        ];
        let mut bytes = 0;
        for (what, texts) in &texts {
            if texts.iter().any(|text| text.contains('\0')) {
                return Err(BadDocument::Word(what));
            }
            bytes += texts.iter().map(|text| text.len()).sum::<usize>();
        }
        if bytes > WORDS_BYTES_MAX { Err(BadDocument::LongWords) } else { Ok(()) }
    }
}

/// Reads JSON. What is wrong is told without what is in it, which may be long or
/// secret.
pub(super) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, BadDocument> {
    if bytes.len() as u64 > BYTES_MAX {
        return Err(BadDocument::TooLong);
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or not of its form",
            serde_json::error::Category::Eof => "it ends early",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => {
                "it is no JSON"
            }
        };
        BadDocument::Json { line: error.line(), column: error.column(), what: what.into() }
    })
}

/// Programs in Go write null for what is empty.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
