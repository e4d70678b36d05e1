//! A tree of the host's into the workspace, as far as it is not there already.
//!
//! The source is walked twice: once for what there is, once for the contents
//! that the agent asks for. What changes between the two is sent as it is then.

mod manifest;

use crate::agent::AgentClient;
use crate::agent::transfer::blocking;
use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use crate::seed::source::Surroundings;
use crate::seed::{Content, Entry, Kind, Mtime, RelPath, Source, Visitor, Walk};
use manifest::{Manifest, Whence, file_time};
use pyro_protocol::guest_path::PATH_MAX;
use pyro_protocol::piece::{Piece, PieceSink};
use pyro_protocol::push::{
    ANSWER_COMPARE, ANSWER_SAME, ANSWER_SEND, DIGEST_LEN, Push, PushAction, PushChange,
    PushContent, PushEnd,
};
use pyro_protocol::transfer::{Incoming, NoPiece, Outgoing};
use std::collections::HashMap;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use tempfile::SpooledTempFile;
use tokio_util::sync::CancellationToken;

/// How many changes are told one by one.
const TOLD_MAX: usize = 1000;

/// What is read at a time to find out whether it is to be sent.
const BUFFER: usize = 256 << 10;

/// A content of which that is not known yet is kept in memory up to this length.
const KEPT_MAX: usize = 1 << 20;

/// What a push came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// How many entries the source has, without its root.
    pub entry_count: u64,
    /// What was changed, or would be: how many of each.
    pub end: PushEnd,
    /// The first of the changes.
    pub changes: Vec<Change>,
    /// What was odd about the source, a line each, not too many.
    pub warnings: Vec<String>,
}

/// A change of something in the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path, fit to be shown.
    pub path: String,
    /// What became of it.
    pub action: PushAction,
}

/// Makes a directory of the workspace like the source; all of it or nothing.
/// What a source needs beside memory goes into `scratch`, and nothing stays.
///
/// # Errors
/// When the source cannot be read, or when something is in the way.
pub async fn push(
    agent: &AgentClient,
    source: Source,
    call: Push,
    scratch: &Path,
    cancel: &CancellationToken,
) -> Result<Pushed> {
    let dry_run = call.dry_run;
    let source = Arc::new(source);
    let manifest = Arc::new(
        blocking({
            let (source, scratch) = (source.clone(), scratch.to_owned());
            let cancel = cancel.clone();
            move || Manifest::of(&source, &scratch, &cancel)
        })
        .await?,
    );
    let mut connection = agent.connect().await?;
    let entries = manifest.clone();
    connection.call_with(call, move |outgoing| entries.send(outgoing)).await?;
    let asking = manifest.clone();
    let (asked, ()) =
        connection.download(None, cancel, move |incoming| answers(incoming, &asking)).await?;
    let wanted = asked;
    let sending = {
        let (scratch, cancel) = (scratch.to_owned(), cancel.clone());
        move |outgoing: &mut Outgoing| {
            let mut sender = Sender { wanted, dry_run, outgoing };
            sender.walk(&source, &scratch, &cancel)
        }
    };
    let first = connection.upload(sending).await?;
    let (changes, end) = connection.download(Some(first), cancel, changes).await?;
    Ok(Pushed {
        entry_count: manifest.entry_count(),
        end,
        changes,
        warnings: manifest.warnings().to_vec(),
    })
}

/// What the agent asks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    /// Its number among those that are asked for.
    number: u64,
    /// How many others come under the same path before it.
    occurrence: u64,
    /// Of what is there, if that has the same size.
    digest: Option<[u8; DIGEST_LEN]>,
}

/// The files that are asked for, by the paths under which they come.
type Wanted = HashMap<RelPath, Asked>;

/// Takes an answer for each file.
fn answers(mut incoming: Incoming, manifest: &Manifest) -> Result<Wanted> {
    let mut bytes = Stream { incoming: &mut incoming, chunk: Vec::new(), taken: 0 };
    let mut wanted = Wanted::new();
    for Whence { path, occurrence } in manifest.files() {
        let digest = match bytes.take::<1>()? {
            [ANSWER_SAME] => continue,
            [ANSWER_SEND] => None,
            [ANSWER_COMPARE] => Some(bytes.take()?),
            [_] => return Err(hostile("gave an unknown answer")),
        };
        let number = wanted.len() as u64;
        wanted.insert(path.clone(), Asked { number, occurrence, digest });
    }
    match bytes.is_at_end()? {
        true => Ok(wanted),
        false => Err(hostile("gave more answers than there are files")),
    }
}

/// Bytes of a transfer, some at a time.
struct Stream<'a> {
    incoming: &'a mut Incoming,
    chunk: Vec<u8>,
    taken: usize,
}

impl Stream<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            if self.is_at_end()? {
                return Err(hostile("gave too few answers"));
            }
            *byte = self.chunk[self.taken];
            self.taken += 1;
        }
        Ok(bytes)
    }

    fn is_at_end(&mut self) -> Result<bool> {
        while self.taken == self.chunk.len() {
            match self.incoming.bytes()? {
                Some(chunk) => (self.chunk, self.taken) = (chunk, 0),
                None => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// Sends the contents that are asked for, in the order of the walk.
struct Sender<'a> {
    /// What is still to be sent.
    wanted: Wanted,
    dry_run: bool,
    outgoing: &'a mut Outgoing,
}

impl Visitor for Sender<'_> {
    fn root(&mut self, _: u32, _: Mtime) -> Result<()> {
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        let Kind::File { size } = entry.kind else { return Ok(()) };
        match self.wanted.get_mut(&entry.path) {
            None => return Ok(()),
            Some(Asked { occurrence, .. }) if *occurrence > 0 => {
                *occurrence -= 1;
                return Ok(());
            }
            Some(_) => {}
        }
        let asked = self.wanted.remove(&entry.path);
        let Some(Asked { number, digest, .. }) = asked else { return Ok(()) };
        let modified = file_time(entry.mtime);
        self.outgoing.entry(&PushContent { number, mode: entry.mode, modified })?;
        match digest {
            None if self.dry_run => Ok(self.outgoing.end()?),
            None => self.send(entry, size, content),
            Some(digest) => self.send_unless(digest, entry, content),
        }
    }
}

impl Sender<'_> {
    fn walk(&mut self, source: &Source, scratch: &Path, cancel: &CancellationToken) -> Result<()> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        source.walk(&mut Walk::new(self, cancel), Surroundings { avoid: None, scratch })?;
        match self.wanted.keys().next() {
            None => Ok(()),
            Some(path) => {
                let message = format!("`{path}` vanished while it was pushed");
                Err(Error::new(ErrorKind::Conflict, message).hint("push again"))
            }
        }
    }

    fn send(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        let failed = |error| Error::io(format!("cannot read `{}`", entry.path), error);
        let mut left = size;
        while left > 0 {
            let zeros = content.zeros().map_err(failed)?.min(left);
            if zeros > 0 {
                content.skip_zeros(zeros);
                self.outgoing.hole(zeros)?;
                left -= zeros;
                continue;
            }
            let read = self.outgoing.bytes_from(left, |room| content.read(room))?;
            match read.map_err(failed)? {
                0 => break,
                length => left -= length as u64,
            }
        }
        if left > 0 { Ok(self.outgoing.torn()?) } else { Ok(self.outgoing.end()?) }
    }

    /// Sends a content unless it has the digest. It can be read once only, so
    /// what may yet have to be sent is kept in a file without a name.
    fn send_unless(
        &mut self,
        digest: [u8; DIGEST_LEN],
        entry: &Entry,
        content: &mut dyn Content,
    ) -> Result<()> {
        let failed = |error| Error::io(format!("cannot read `{}`", entry.path), error);
        let mut kept = SpooledTempFile::new(KEPT_MAX);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match content.read(&mut buffer).map_err(failed)? {
                0 => break,
                length => {
                    hasher.update(&buffer[..length]);
                    if !self.dry_run {
                        kept.write_all(&buffer[..length]).map_err(failed)?;
                    }
                }
            }
        }
        if *hasher.finalize().as_bytes() == digest {
            return Ok(self.outgoing.keep()?);
        }
        if self.dry_run {
            return Ok(self.outgoing.end()?);
        }
        kept.rewind().map_err(failed)?;
        loop {
            let read = self.outgoing.bytes_from(u64::MAX, |room| kept.read(room))?;
            if read.map_err(failed)? == 0 {
                return Ok(self.outgoing.end()?);
            }
        }
    }
}

/// Takes what was changed.
fn changes(incoming: Incoming) -> Result<Vec<Change>> {
    let mut pieces = incoming.pieces::<PushChange>();
    let mut told = Vec::new();
    loop {
        match pieces.piece() {
            Ok(Some(Piece::Entry(PushChange { path, action }))) => {
                if told.len() < TOLD_MAX {
                    let path = guest_text::escaped(&path.to_string(), PATH_MAX);
                    told.push(Change { path, action });
                }
            }
            Ok(None) => return Ok(told),
            Ok(Some(Piece::Bytes(_) | Piece::Hole(_) | Piece::End | Piece::Torn | Piece::Keep)) => {
                return Err(hostile("told of no change"));
            }
            Err(NoPiece::CutOff(cut_off)) => return Err(cut_off.into()),
            Err(NoPiece::Bad(bad)) => return Err(hostile("told of no change").because(bad)),
        }
    }
}

fn hostile(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the guest {what}"))
}
