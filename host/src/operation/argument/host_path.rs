use crate::blocking::blocking;
use crate::context::Admitted;
use crate::{Context, Error, ErrorKind, Result};
use clap::builder::{OsStringValueParser, TypedValueParser, ValueParserFactory};
use rustix::fs::OFlags;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A path on the host. Which of them a caller may name, its [`Context`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPath(PathBuf);

/// What is no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a path is needed")]
struct NoPath;

impl HostPath {
    fn new(word: OsString) -> Result<Self, NoPath> {
        let nul = word.as_encoded_bytes().contains(&0);
        if word.is_empty() || nul { Err(NoPath) } else { Ok(Self(word.into())) }
    }

    /// The way to it, if the caller may name it.
    ///
    /// # Errors
    /// `InvalidInput` when it lies outside the caller's roots.
    pub fn resolve(&self, context: &Context) -> Result<Admitted> {
        context.roots.admit(&self.0)
    }

    /// Opens a file that the caller may name, for reading. A person may name a
    /// pipe and wait for whoever writes it; a caller bound to roots gets regular
    /// files alone, for nobody could call it back from such a wait.
    ///
    /// # Errors
    /// `InvalidInput` when it lies outside the caller's roots or is no file;
    /// `Cancelled`; and when the host's system refuses.
    pub async fn open(&self, context: &Context) -> Result<File> {
        let path = self.resolve(context)?;
        let opening = blocking(move || {
            // Without a flag, to open a pipe waits for its writer.
            let flags = if path.is_bound() { OFlags::NONBLOCK } else { OFlags::empty() };
            let refused = |error| Error::unreadable(path.path(), error);
            let file = File::from(path.open(flags | OFlags::RDONLY).map_err(refused)?);
            let meta = file.metadata().map_err(refused)?;
            if meta.is_dir() || (path.is_bound() && !meta.is_file()) {
                let message = format!("{} is no regular file", path.path().display());
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            Ok(file)
        });
        context.unless_cancelled(opening).await
    }

    /// Whether it is `-`, which names the caller's standard output.
    #[must_use]
    pub fn is_stdout(&self) -> bool {
        self.0.as_os_str() == "-"
    }

    /// The path as it was given, for showing.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// For programs. What is no path is refused by the system that is to open it.
impl From<PathBuf> for HostPath {
    fn from(path: PathBuf) -> Self {
        Self(path)
    }
}

impl ValueParserFactory for HostPath {
    type Parser = clap::builder::ValueParser;

    fn value_parser() -> Self::Parser {
        OsStringValueParser::new().try_map(Self::new).into()
    }
}

impl<'de> Deserialize<'de> for HostPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?.into()).map_err(de::Error::custom)
    }
}

impl JsonSchema for HostPath {
    fn schema_name() -> Cow<'static, str> {
        "HostPath".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}
