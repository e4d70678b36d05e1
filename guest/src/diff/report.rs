//! From the walk's changes to the frames that tell of them.

use super::layers::Node;
use super::pair::{Paired, pair};
use super::render::Renderer;
use super::scope::Scope;
use super::walk::{Change, Walk};
use crate::work::Cancel;
use pyro_protocol::diff::{
    DiffContent, DiffDetail, DiffEntry, DiffRecord, DiffStatus, DiffSummary,
};
use pyro_protocol::{ByteString, FrameKind, codec};
use std::cell::RefCell;
use std::io::{self, Write};

/// What changes may take that wait for their other halves to be found. With
/// more, all are told as they come, and none as renamed.
const WAITING_MAX: usize = 4 * 1024 * 1024;

/// What one change takes beside its paths.
const CHANGE: usize = size_of::<Change>() + 3 * 16;

/// A frame is sent when it has so much in it.
const FRAME_FULL: usize = 32 * 1024;

/// A patch is cut into pieces of so many bytes.
const PIECE: usize = 16 * 1024;

/// An entry's two paths and the rest of it.
const ENTRY_MAX: usize = 2 * pyro_protocol::guest_path::PATH_MAX + 64;

const _: () = assert!(FRAME_FULL + PIECE + ENTRY_MAX < FrameKind::Data.limit());

/// Compares, and hands out the payload of each frame.
pub(super) fn run(
    scope: &Scope,
    detail: DiffDetail,
    cancel: &Cancel,
    send: &mut dyn FnMut(Vec<u8>) -> io::Result<()>,
) -> io::Result<DiffSummary> {
    let spool = || scope.spool();
    let renderer = Renderer { layers: &scope.layers, spool: &spool, detail };
    let report = RefCell::new(Report {
        scope,
        renderer,
        cancel,
        frames: Frames { records: Vec::new(), held: 0, patch: Vec::new(), send },
        waiting: Some(Vec::new()),
        held: 0,
        summary: DiffSummary::default(),
    });
    let sink = |change: Change| report.borrow_mut().hear(change);
    let wanted = |path: &[u8]| scope.is_wanted(path);
    let walked = Walk { layers: &scope.layers, wanted: &wanted, cancel, sink }.run()?;
    let mut report = report.into_inner();
    report.finish()?;
    report.summary.too_deep = walked.too_deep;
    Ok(report.summary)
}

struct Report<'a> {
    scope: &'a Scope,
    renderer: Renderer<'a>,
    cancel: &'a Cancel,
    frames: Frames<'a>,
    /// `None` when there were too many.
    waiting: Option<Vec<Change>>,
    held: usize,
    summary: DiffSummary,
}

impl Report<'_> {
    fn hear(&mut self, change: Change) -> io::Result<()> {
        if !self.scope.is_told(&change.path) {
            return Ok(());
        }
        let Some(waiting) = &mut self.waiting else { return self.tell(change.into()) };
        let nodes = usize::from(change.old.is_some()) + usize::from(change.new.is_some());
        self.held += CHANGE + change.path.len() * (1 + nodes) + nodes * size_of::<Node>();
        waiting.push(change);
        if self.held <= WAITING_MAX {
            return Ok(());
        }
        self.summary.renames_skipped = true;
        let waiting = self.waiting.take().unwrap_or_default();
        waiting.into_iter().try_for_each(|change| self.tell(change.into()))
    }

    fn finish(&mut self) -> io::Result<()> {
        let waiting = self.waiting.take().unwrap_or_default();
        let paired = pair(self.renderer.layers, waiting, self.renderer.spool, self.cancel)?;
        paired.into_iter().try_for_each(|change| self.tell(change))?;
        self.frames.flush_frame()
    }

    fn tell(&mut self, mut change: Paired) -> io::Result<()> {
        self.cancel.check_errno()?;
        change.path = self.scope.shown(&change.path);
        change.old_path = change.old_path.map(|path| self.scope.shown(&path));
        let Some(rendered) = self.renderer.render(change)? else { return Ok(()) };
        count(&mut self.summary, &rendered.entry);
        self.frames.entry(rendered.entry.clone())?;
        if self.renderer.detail == DiffDetail::Patch {
            rendered.write(&mut self.frames)?;
            self.frames.end_piece()?;
        }
        Ok(())
    }
}

fn count(summary: &mut DiffSummary, entry: &DiffEntry) {
    summary.total += 1;
    *match entry.status {
        DiffStatus::Added => &mut summary.added,
        DiffStatus::Modified => &mut summary.modified,
        DiffStatus::Deleted => &mut summary.deleted,
        DiffStatus::TypeChanged => &mut summary.type_changed,
        DiffStatus::Renamed => &mut summary.renamed,
    } += 1;
    match entry.content {
        DiffContent::Text { .. } => summary.text_patched += 1,
        DiffContent::Unchanged | DiffContent::Binary => summary.non_text += 1,
        DiffContent::Omitted => {
            summary.non_text += 1;
            summary.omitted += 1;
        }
    }
}

/// Records, as many to a frame as fit.
struct Frames<'a> {
    records: Vec<DiffRecord>,
    held: usize,
    patch: Vec<u8>,
    send: &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>,
}

impl Frames<'_> {
    fn entry(&mut self, entry: DiffEntry) -> io::Result<()> {
        let old = entry.old_path.as_ref().map_or(0, |path| path.as_bytes().len());
        let size = 64 + entry.path.as_bytes().len() + old;
        self.push(DiffRecord::Entry(entry), size)
    }

    /// The patch so far is a record.
    fn end_piece(&mut self) -> io::Result<()> {
        if self.patch.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.patch);
        let size = piece.len() + 8;
        self.push(DiffRecord::Patch(ByteString(piece)), size)
    }

    fn push(&mut self, record: DiffRecord, size: usize) -> io::Result<()> {
        self.records.push(record);
        self.held += size;
        if self.held >= FRAME_FULL { self.flush_frame() } else { Ok(()) }
    }

    fn flush_frame(&mut self) -> io::Result<()> {
        if self.records.is_empty() {
            return Ok(());
        }
        let payload = codec::encode(&self.records).map_err(io::Error::other)?;
        self.records.clear();
        self.held = 0;
        (self.send)(payload)
    }
}

impl Write for Frames<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.patch.len());
        self.patch.extend_from_slice(&bytes[..taken]);
        if self.patch.len() == PIECE {
            self.end_piece()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
