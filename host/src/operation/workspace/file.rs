//! Operations on a workspace's files.

mod delete;
mod edit;
mod list;
mod move_;
mod read;
mod search;
mod stat;
mod write;

pub use delete::{FileDelete, FileDeleteAnswer};
pub use edit::{FileEdit, FileEditAnswer};
pub(super) use list::Listing;
pub use list::{FileList, FileListAnswer};
pub use move_::{FileMove, FileMoveAnswer};
pub(super) use read::Reading;
pub use read::{FileRead, FileReadAnswer, ReadLimit};
pub use search::{FileSearch, FileSearchAnswer, FoundMatch};
pub use stat::{FileStat, FileStatAnswer};
pub use write::{FileWrite, FileWriteAnswer};

use crate::agent::AgentClient;
use crate::id::WorkspaceId;
use crate::operation::argument::PathInGuest;
use crate::secret::Redactor;
use crate::workspace::Live;
use crate::workspace::inspect::{AtRest, Inspection};
use crate::{Context, Error, ErrorKind, Result, guest_text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use pyro_protocol::file::{FileEntry, FileTime, FileType};
use pyro_protocol::guest_path::PATH_MAX;
use pyro_protocol::{GuestPath, Request};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;

/// How long the agent may take for one file.
const FILE_DEADLINE: Duration = Duration::from_secs(120);

/// How long it may take for a tree: to search a large one in a translated guest
/// takes minutes.
const TREE_DEADLINE: Duration = Duration::from_secs(600);

/// A guest in which a workspace's files are looked at: its own, or one that only
/// looks at its disk.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) id: WorkspaceId,
    pub(super) agent: &'a AgentClient,
    pub(super) redactor: &'a Redactor,
}

impl<'a> From<&'a Live> for View<'a> {
    fn from(live: &'a Live) -> Self {
        Self { id: live.id(), agent: live.agent(), redactor: live.redactor() }
    }
}

impl<'a> View<'a> {
    pub(super) fn of(at_rest: &'a AtRest, inspection: &'a Inspection) -> Self {
        Self { id: at_rest.id(), agent: inspection.agent(), redactor: at_rest.redactor() }
    }
}

/// A path in the guest, which need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GuestName {
    /// The path; what is not UTF-8 in it is replaced.
    pub path: String,
    /// The path's bytes in base64, when they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub path_base64: Option<String>,
}

impl GuestName {
    /// Without secrets.
    fn new(path: &GuestPath, redactor: &Redactor) -> Self {
        let path = redactor.path(path);
        let (path, path_base64) = lossy(path.as_bytes());
        Self { path, path_base64 }
    }

    /// For people.
    fn shown(&self) -> String {
        guest_text::escaped(&self.path, PATH_MAX)
    }
}

/// Bytes as text, and as they are when that loses something.
fn lossy(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character or block device.
    Device,
}

impl ArtifactType {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::Device => "device",
        }
    }
}

impl From<FileType> for ArtifactType {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::File => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Device => Self::Device,
        }
    }
}

/// Something in the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ListedFile {
    /// Where it is.
    #[serde(flatten)]
    pub name: GuestName,
    /// What it is.
    pub artifact_type: ArtifactType,
    /// A file's length, or that of a symlink's target; 0 for all else.
    pub size_bytes: u64,
    /// Its permissions, in octal.
    pub mode: String,
    /// When it was last modified, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub modified_at: Option<Timestamp>,
    /// Where a symlink points to; what is not UTF-8 in it is replaced.
    pub link_target: Option<String>,
}

impl ListedFile {
    fn of(entry: &FileEntry, redactor: &Redactor) -> Self {
        Self {
            name: GuestName::new(&entry.path, redactor),
            artifact_type: entry.file_type.into(),
            size_bytes: entry.size_bytes,
            mode: octal(entry.mode),
            modified_at: timestamp(entry.modified),
            link_target: entry
                .link_target
                .as_ref()
                .map(|target| lossy(&redactor.bytes(target.0.clone())).0),
        }
    }

    /// As a row of a list.
    fn row(&self) -> [String; 5] {
        let target = self.link_target.as_deref();
        let target = target.map(|target| format!(" -> {}", guest_text::escaped(target, PATH_MAX)));
        [
            self.artifact_type.as_str().into(),
            self.mode.clone(),
            self.size_bytes.to_string(),
            self.modified_at.map(super::summary::shown_time).unwrap_or_default(),
            self.name.shown() + &target.unwrap_or_default(),
        ]
    }
}

fn octal(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

fn timestamp(time: FileTime) -> Option<Timestamp> {
    Timestamp::new(time.seconds, i32::try_from(time.nanoseconds).ok()?).ok()
}

/// A path, or the workspace itself.
fn or_workspace(path: Option<PathInGuest>) -> Result<GuestPath> {
    match path {
        Some(PathInGuest(path)) => Ok(path),
        None => GuestPath::new(crate::workspace::GUEST_PATH).map_err(|bad| {
            Error::new(ErrorKind::Internal, "the workspace has no path").because(bad)
        }),
    }
}

/// Makes a call, unless the caller changes its mind.
async fn call<R: Request>(
    view: impl Into<View<'_>>,
    context: &Context,
    request: R,
    deadline: Duration,
) -> Result<R::Reply> {
    context.unless_cancelled(view.into().agent.call(request, deadline)).await
}

/// A cursor as callers carry it: opaque to them. A name in it may hold a secret,
/// which is to be seen in no base64 either.
fn cursor(bytes: &[u8]) -> String {
    STANDARD.encode(inverted(bytes))
}

fn from_cursor(cursor: &str) -> Result<Vec<u8>> {
    STANDARD.decode(cursor).map(|bytes| inverted(&bytes)).map_err(|_| no_cursor())
}

fn inverted(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

fn no_cursor() -> Error {
    Error::new(ErrorKind::InvalidInput, "there is no such cursor")
        .hint("give the `next_cursor` of an earlier answer, or none to begin anew")
}
