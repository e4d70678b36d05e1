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
use tempfile::spooled_tempfile_in;
use tokio_util::sync::CancellationToken;

/// How many changes are told one by one.
const TOLD_MAX: usize = 1000;

/// How much an agent may delete and tell of: more than a workspace of its size
/// holds.
const DELETED_MAX: u64 = 4_000_000;

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
            let mut sender = Sender { wanted, dry_run, outgoing, scratch: &scratch };
            sender.walk(&source, &cancel)
        }
    };
    let first = connection.upload(sending).await?;
    let most = manifest.entry_count() + DELETED_MAX;
    let taking = move |incoming| changes(incoming, most);
    let (changes, end) = connection.download(Some(first), cancel, taking).await?;
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
    /// How many other files come under the same path before it.
    occurrence: u64,
    /// Of what is there, if that has the same size.
    digest: Option<[u8; DIGEST_LEN]>,
}

/// What is asked for of the files that come under a path.
#[derive(Debug, Default)]
struct Under {
    /// How many have come.
    seen: u64,
    /// What is still to come; in an archive that may be several.
    asked: Vec<Asked>,
}

/// The files that are asked for, by the paths under which they come.
type Wanted = HashMap<RelPath, Under>;

/// Takes an answer for each file.
fn answers(mut incoming: Incoming, manifest: &Manifest) -> Result<Wanted> {
    let mut bytes = Stream { incoming: &mut incoming, chunk: Vec::new(), taken: 0 };
    let (mut wanted, mut number) = (Wanted::new(), 0);
    for Whence { path, occurrence } in manifest.files() {
        let digest = match bytes.take::<1>()? {
            [ANSWER_SAME] => continue,
            [ANSWER_SEND] => None,
            [ANSWER_COMPARE] => Some(bytes.take()?),
            [_] => return Err(hostile("gave an unknown answer")),
        };
        let under = wanted.entry(path.clone()).or_default();
        under.asked.push(Asked { number, occurrence, digest });
        number += 1;
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
    /// A directory for what is too large for memory.
    scratch: &'a Path,
}

impl Visitor for Sender<'_> {
    fn root(&mut self, _: u32, _: Mtime) -> Result<()> {
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        let Kind::File { size } = entry.kind else { return Ok(()) };
        let Some(under) = self.wanted.get_mut(&entry.path) else { return Ok(()) };
        let seen = under.seen;
        under.seen += 1;
        let this = under.asked.iter().position(|asked| asked.occurrence == seen);
        let Some(this) = this else { return Ok(()) };
        // What is gone is not begun: nothing was said of it yet.
        content.begin().map_err(|error| unread(entry, error))?;
        let Asked { number, digest, .. } = under.asked.swap_remove(this);
        if under.asked.is_empty() {
            self.wanted.remove(&entry.path);
        }
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
    fn walk(&mut self, source: &Source, cancel: &CancellationToken) -> Result<()> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let around = Surroundings { avoid: None, scratch: self.scratch };
        source.walk(&mut Walk::new(self, cancel), around)?;
        match self.wanted.keys().next() {
            None => Ok(()),
            Some(path) => {
                let message = format!("`{path}` vanished while it was pushed");
                Err(Error::new(ErrorKind::Conflict, message).hint("push again"))
            }
        }
    }

    fn send(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        let failed = |error| unread(entry, error);
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
        let failed = |error| unread(entry, error);
        let mut kept = spooled_tempfile_in(KEPT_MAX, self.scratch);
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

fn unread(entry: &Entry, error: std::io::Error) -> Error {
    Error::io(format!("cannot read `{}`", entry.path), error)
}

/// Takes what was changed, which is so much at most.
fn changes(incoming: Incoming, most: u64) -> Result<Vec<Change>> {
    let mut pieces = incoming.pieces::<PushChange>();
    let (mut told, mut count) = (Vec::new(), 0);
    loop {
        match pieces.piece() {
            Ok(Some(Piece::Entry(PushChange { path, action }))) => {
                count += 1;
                if count > most {
                    return Err(hostile("told of more changes than there can be"));
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_protocol::transfer::{Taken, incoming, outgoing};
    use pyro_protocol::{Frame, FrameKind, GuestPath};

    #[tokio::test]
    async fn s4_changes_without_end_end() {
        let (mut stream, mut outlet) = outgoing(1);
        let path = GuestPath::new("/workspace/file").expect("a path");
        let (incoming, inlet) = incoming();
        let taking = tokio::task::spawn_blocking(move || changes(incoming, 10_000));
        let sending = tokio::task::spawn_blocking(move || {
            let change = PushChange { path, action: PushAction::Deleted };
            while stream.entry(&change).is_ok() {}
        });
        while let Some(frame) = outlet.next().await {
            let payload = frame[pyro_protocol::io::FRAME_ROOM..].to_vec();
            match inlet.take(Frame { kind: FrameKind::Data, payload }).await {
                Taken::More => {}
                Taken::Last(_) | Taken::ByNobody => break,
            }
        }
        drop(outlet);
        sending.await.expect("ended");
        let error = taking.await.expect("ended").expect_err("too many");
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}
