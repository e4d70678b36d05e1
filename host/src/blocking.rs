//! Work that blocks, off the thread that everything else shares.

use crate::error::{Error, ErrorKind, Result};
use tokio::task::{JoinError, spawn_blocking};

/// Does something on a thread that may block. It goes on when nobody waits for
/// it any more.
///
/// # Errors
/// Those of the work, and when it panics.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    joined(spawn_blocking(work).await)
}

/// What a thread came to.
///
/// # Errors
/// Those of its work, and when it panicked.
pub fn joined<T>(thread: Result<Result<T>, JoinError>) -> Result<T> {
    thread.unwrap_or_else(|gone| {
        Err(Error::new(ErrorKind::Internal, "a thread failed").because(gone))
    })
}
