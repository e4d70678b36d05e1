//! Bytes that arrive a few at a time.

use std::io;
use std::iter::Cycle;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// A reader that gives its bytes in pieces of these sizes, over and over.
pub struct Pieces {
    bytes: io::Cursor<Vec<u8>>,
    sizes: Cycle<std::vec::IntoIter<usize>>,
}

impl Pieces {
    pub fn new(bytes: Vec<u8>, sizes: Vec<usize>) -> Self {
        Self { bytes: io::Cursor::new(bytes), sizes: sizes.into_iter().cycle() }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wanted = self.sizes.next().unwrap_or(1).min(buffer.remaining());
        let read = io::Read::read(&mut self.bytes, buffer.initialize_unfilled_to(wanted))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}
