//! Out of the guest, onto the host: a file, a directory, a symlink, or all of it
//! as a tar; or to the caller, as a stream of bytes.
//!
//! The guest is hostile. What it sends is a stream of pieces with a bounded
//! decoder; `stream` lets through nothing but a tree in order, without names
//! that climb, special files, or entries below what is no directory; `tree`
//! makes that below a private directory beside the output, reaching everything
//! by descriptors that follow no link; one rename puts it in place.

pub mod image;
mod staging;
mod stream;
mod streamed;
mod tar;
mod tree;

pub use stream::{ENTRIES_MAX, Limits};

use crate::agent::transfer::blocking;
use crate::agent::{AgentClient, Channel, Connection};
use crate::context::Admitted;
use crate::disk::room::{Room, Taker};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events, Stream};
use crate::guest_text;
use pyro_protocol::GuestPath;
use pyro_protocol::export::{Export, ExportEnd, ExportEntry, Exporting};
use pyro_protocol::file::FileType;
use pyro_protocol::guest_path::PATH_MAX;
use pyro_protocol::transfer::Incoming;
use staging::Staging;
use std::path::Path;
use stream::Counts;
use tokio_util::sync::CancellationToken;

/// What to export, and whereto.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What, in the guest.
    pub path: GuestPath,
    /// Where, on the host.
    pub output: Admitted,
    /// As what.
    pub format: Format,
    /// What becomes of what is there already.
    pub existing: Existing,
    /// How much the contents may be.
    pub limits: Limits,
    /// Whether owners, set-id bits and extended attributes go along, into an
    /// archive.
    pub attributes: bool,
}

/// As what something is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As what it is.
    Tree,
    /// As a tar archive.
    Tar,
}

/// What becomes of what lies where an export is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the export is refused.
    Refuse,
    /// It goes, once the export is complete.
    Replace,
}

/// An export that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What was exported.
    pub file_type: FileType,
    /// How many files, directories and links.
    pub entry_count: u64,
    /// How many bytes their contents have.
    pub bytes_written: u64,
    /// What was left out or changed meanwhile, a line each, not too many.
    pub warnings: Vec<String>,
}

/// Exports something. The output is there when this returns, complete and on the
/// disk, or not at all. When it was cancelled, what there was of it is gone: so
/// whoever cancels waits for the answer.
///
/// # Errors
/// When it is not there in the guest, when the output is there already, or when
/// what the guest sends is no tree or too much.
pub async fn export(
    agent: &AgentClient,
    wanted: Wanted,
    cancel: &CancellationToken,
) -> Result<Exported> {
    let Wanted { path, output, format, existing, limits, attributes } = wanted;
    if existing == Existing::Refuse && output.is_there() {
        return Err(there_already(output.path()));
    }
    let (mut connection, exporting) = begin(agent, &path, attributes, cancel).await?;
    let staging = blocking(move || Staging::beside(&output)).await?;
    let expected = exporting.file_type;
    let name = last_name(&path);
    let ((staging, counts), end): (_, ExportEnd) = connection
        .download(None, cancel, move |incoming| {
            let counts = receive(&staging, expected, &name, format, limits, incoming)?;
            Ok((staging, counts))
        })
        .await
        .map_err(|error| if cancel.is_cancelled() { cancelled() } else { error })?;
    blocking(move || staging.settle(existing)).await?;
    Ok(Exported {
        file_type: expected,
        entry_count: counts.entries,
        bytes_written: counts.bytes,
        warnings: warnings(&end),
    })
}

/// Exports something to whoever hears the events, as [`Event::Output`]: a file's
/// content, or else an archive. What was heard cannot be taken back, so only the result
/// says whether it is complete.
///
/// # Errors
/// When it is not there in the guest, or when what the guest sends is no tree or
/// too much.
pub async fn stream(
    agent: &AgentClient,
    path: GuestPath,
    format: Format,
    limits: Limits,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Exported> {
    let (mut connection, exporting) = begin(agent, &path, false, cancel).await?;
    let expected = exporting.file_type;
    let name = last_name(&path);
    let (pipe, mut chunks) = streamed::pipe();
    let receiving = connection.download(None, cancel, move |incoming| {
        let pieces = incoming.pieces::<ExportEntry>();
        match (format, expected) {
            (Format::Tree, FileType::File) => {
                let mut content = streamed::Content::new(pipe);
                let counts = stream::receive(pieces, expected, limits, &mut content)?;
                content.finish()?;
                Ok(counts)
            }
            (Format::Tree | Format::Tar, _) => {
                let mut tar = tar::Tar::new(pipe, Room::endless(), &name);
                let counts = stream::receive(pieces, expected, limits, &mut tar)?;
                tar.finish()?;
                Ok(counts)
            }
        }
    });
    let telling = async {
        while let Some(bytes) = chunks.recv().await {
            events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
        }
    };
    let (received, ()) = tokio::join!(receiving, telling);
    let (counts, end): (Counts, ExportEnd) =
        received.map_err(|error| if cancel.is_cancelled() { cancelled() } else { error })?;
    Ok(Exported {
        file_type: expected,
        entry_count: counts.entries,
        bytes_written: counts.bytes,
        warnings: warnings(&end),
    })
}

async fn begin(
    agent: &AgentClient,
    path: &GuestPath,
    attributes: bool,
    cancel: &CancellationToken,
) -> Result<(Connection<Channel>, Exporting)> {
    tokio::select! {
        begun = agent.begin(Export { path: path.clone(), attributes }) => begun,
        () = cancel.cancelled() => Err(cancelled()),
    }
}

fn receive(
    staging: &Staging,
    expected: FileType,
    name: &[u8],
    format: Format,
    limits: Limits,
    incoming: Incoming,
) -> Result<Counts> {
    let pieces = incoming.pieces::<ExportEntry>();
    let room = Room::of(staging.top(), Taker::Export)?;
    match format {
        Format::Tree => {
            let mut tree = tree::Tree::new(staging.top(), room)?;
            let counts = stream::receive(pieces, expected, limits, &mut tree)?;
            tree.finish()?;
            Ok(counts)
        }
        Format::Tar => {
            let mut tar = tar::Tar::new(staging.create()?, room, name);
            let counts = stream::receive(pieces, expected, limits, &mut tar)?;
            tar.finish()?;
            Ok(counts)
        }
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "cancelled; nothing was exported")
}

fn there_already(output: &Path) -> Error {
    Error::new(ErrorKind::Conflict, format!("{} is there already", output.display()))
        .hint("choose another output, or replace it with `--force`")
}

/// The last name of a path in the guest, to be a member's name in an archive.
fn last_name(path: &GuestPath) -> Vec<u8> {
    let name = path.as_bytes().split(|byte| *byte == b'/').rfind(|name| !name.is_empty());
    name.filter(|name| !matches!(*name, b"." | b"..")).unwrap_or(b"workspace").to_vec()
}

fn warnings(end: &ExportEnd) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut count = |number: u64, what: &str| {
        if number > 0 {
            warnings.push(format!("{number} {what}"));
        }
    };
    count(end.special, "sockets, FIFOs or devices were left out");
    count(end.torn, "files changed while they were read");
    count(end.unattributed, "entries have no extended attributes: they had too many");
    count(end.too_deep, "directories were left out because their paths are too long");
    if !warnings.is_empty() {
        let shown = |path: &GuestPath| guest_text::escaped(&path.to_string(), PATH_MAX);
        let examples: Vec<_> = end.examples.iter().map(shown).collect();
        warnings.push(format!("such as {}", examples.join(", ")));
    }
    warnings
}
