//! An export that goes nowhere but to its caller, as bytes: a file's content, or
//! an archive.

use super::stream::Sink;
use super::tar::write_zeros;
use crate::error::{Error, Result};
use pyro_protocol::export::ExportEntry;
use std::io::{self, BufWriter, Write};
use tokio::sync::mpsc;

/// How much is told at a time: few events for a gigabyte, and little memory.
const CHUNK: usize = 256 * 1024;

/// Chunks on their way; then the guest waits.
const CHUNKS_MAX: usize = 2;

/// Where bytes go in.
pub(super) struct Pipe(mpsc::Sender<Vec<u8>>);

/// Both ends of a way out.
pub(super) fn pipe() -> (Pipe, mpsc::Receiver<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    (Pipe(sender), receiver)
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        match self.0.blocking_send(chunk.to_vec()) {
            Ok(()) => Ok(chunk.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file's bytes, and nothing else of it.
pub(super) struct Content<W: Write>(BufWriter<W>);

impl<W: Write> Content<W> {
    pub(super) fn new(into: W) -> Self {
        Self(BufWriter::with_capacity(CHUNK, into))
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.0.flush().map_err(refused)
    }
}

impl<W: Write> Sink for Content<W> {
    fn entry(&mut self, _: &ExportEntry) -> Result<()> {
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(refused)
    }

    fn hole(&mut self, length: u64) -> Result<()> {
        write_zeros(&mut self.0, length).map_err(refused)
    }

    fn end(&mut self, _: u64) -> Result<()> {
        // It ends where it ended.
        Ok(())
    }
}

fn refused(error: io::Error) -> Error {
    Error::io("cannot pass the export on", error)
}
