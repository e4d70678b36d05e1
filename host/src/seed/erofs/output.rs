//! Blocks on their way into the image: one thread fills buffers, another hashes
//! and writes them.

use super::format::BLOCK;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::SEED_DEVICE_BYTES;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

/// How much is hashed and written at a time.
pub const BATCH: usize = 1 << 20;

/// How many buffers there are: one is filled while another is written, and some
/// for when the two take turns at being slow.
const BATCHES: usize = 6;

const _: () = assert!(BATCH.is_multiple_of(BLOCK));

/// The image from its second block on, in order.
pub struct Output {
    /// The block that the next byte goes to is the one after `batch`.
    block: u32,
    batch: Vec<u8>,
    full: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    made: usize,
    /// What messages call the image.
    what: &'static str,
    writer: Option<JoinHandle<std::io::Result<blake3::Hash>>>,
}

impl Output {
    /// Starts the writer. The first block is left for the superblock.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn new(file: File, what: &'static str) -> Result<Self> {
        let (full, filled) = sync_channel(BATCHES);
        let (emptied, empty) = channel();
        let writer = std::thread::Builder::new()
            .name("seed-writer".to_owned())
            .spawn(move || write(&file, &filled, &emptied))
            .map_err(|error| Error::io("cannot start a thread", error))?;
        Ok(Self {
            block: 1,
            batch: Vec::with_capacity(BATCH),
            full: Some(full),
            empty,
            made: 1,
            what,
            writer: Some(writer),
        })
    }

    /// The block that the next byte goes to.
    ///
    /// # Errors
    /// When the device has no such block.
    pub fn position(&mut self) -> Result<u32> {
        self.align();
        let block = u64::from(self.block) + (self.batch.len() / BLOCK) as u64;
        if block >= SEED_DEVICE_BYTES / BLOCK as u64 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the {} is larger than its device of {} GiB",
                    self.what,
                    SEED_DEVICE_BYTES >> 30
                ),
            )
            .hint("leave out what the guest does not need"));
        }
        u32::try_from(block)
            .map_err(|error| Error::new(ErrorKind::Internal, "a block too far").because(error))
    }

    /// Fills the last block up with zeros.
    pub fn align(&mut self) {
        self.batch.resize(self.batch.len().next_multiple_of(BLOCK), 0);
    }

    /// Room for so many bytes, a multiple of the block size and at most a
    /// batch, to be filled in and then kept with [`Output::keep`] or not.
    pub fn room(&mut self, bytes: usize) -> Result<&mut [u8]> {
        self.align();
        if self.batch.len() + bytes > BATCH {
            self.flush()?;
        }
        let start = self.batch.len();
        self.batch.resize(start + bytes, 0);
        Ok(&mut self.batch[start..])
    }

    /// Gives back the end of the room that was made last.
    pub fn give_back(&mut self, bytes: usize) {
        self.batch.truncate(self.batch.len() - bytes);
    }

    /// Appends bytes, without regard to blocks.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.batch.len() == BATCH {
                self.flush()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BATCH - self.batch.len()));
            self.batch.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let next = if self.made < BATCHES {
            self.made += 1;
            Some(Vec::with_capacity(BATCH))
        } else {
            self.empty.recv().ok()
        };
        let batch = std::mem::replace(&mut self.batch, next.unwrap_or_default());
        // Whole blocks of a device whose blocks 32 bits count.
        self.block += (batch.len() / BLOCK) as u32;
        if self.full.as_ref().is_some_and(|full| full.send(batch).is_ok()) {
            return Ok(());
        }
        // The writer ended early: it says why.
        self.join().and(Err(Error::new(
            ErrorKind::Internal,
            format!("the {}'s writer ended early", self.what),
        )))
    }

    /// Waits until all is written. Gives the digest and the number of blocks,
    /// the first included.
    ///
    /// # Errors
    /// When the image cannot be written.
    pub fn finish(mut self) -> Result<(blake3::Hash, u32)> {
        self.align();
        self.flush()?;
        let hash = self.join()?;
        Ok((hash, self.block))
    }

    fn join(&mut self) -> Result<blake3::Hash> {
        self.full = None;
        let writer = self.writer.take();
        match writer.map(JoinHandle::join) {
            Some(Ok(Ok(hash))) => Ok(hash),
            Some(Ok(Err(error))) => {
                Err(Error::io(format!("cannot write the {}", self.what), error))
            }
            Some(Err(_)) | None => {
                Err(Error::new(ErrorKind::Internal, format!("the {}'s writer failed", self.what)))
            }
        }
    }
}

/// Whoever gives up does not leave a thread behind.
impl Drop for Output {
    fn drop(&mut self) {
        // The error that matters is on its way already.
        drop(self.join());
    }
}

fn write(
    file: &File,
    filled: &Receiver<Vec<u8>>,
    emptied: &Sender<Vec<u8>>,
) -> std::io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut at = BLOCK as u64;
    while let Ok(mut batch) = filled.recv() {
        file.write_all_at(&batch, at)?;
        start_writeback(file, at, batch.len());
        hasher.update(&batch);
        at += batch.len() as u64;
        batch.clear();
        // Nobody needs it any more at the end.
        drop(emptied.send(batch));
    }
    Ok(hasher.finalize())
}

/// Asks the kernel to begin writing to the disk what is in its cache, so that
/// the flush at the end has less to wait for.
fn start_writeback(file: &File, at: u64, length: usize) {
    let (Ok(at), Ok(length)) = (i64::try_from(at), i64::try_from(length)) else { return };
    // SAFETY: it takes numbers only, and the descriptor is open. Whether it did
    // anything does not matter.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), at, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
