//! A reader that comes to an end, whatever it reads from.

use std::io::{self, Read};
use tokio_util::sync::CancellationToken;

/// Fails rather than give more than so many bytes, or any that nobody wants any
/// more.
pub struct Limited<'a, R> {
    pub input: R,
    /// How much it may still give; none is left when it was too much.
    pub left: u64,
    pub cancel: &'a CancellationToken,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 && !buffer.is_empty() {
            return Err(io::Error::other("there is too much"));
        }
        let count = self.input.read(&mut buffer[..wanted])?;
        self.left -= count as u64;
        Ok(count)
    }
}
