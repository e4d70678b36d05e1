//! Bytes without calls: what a benchmark compares the calls with.

use pyro_protocol::channel::STREAM_UNIT;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What is moved at once.
const CHUNK: usize = STREAM_UNIT;

/// Sends back what comes.
pub(super) async fn echo<R, W>(mut reader: R, mut writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = reader.read(&mut chunk).await?;
        if length == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(chunk.get(..length).unwrap_or_default()).await?;
        writer.flush().await?;
    }
}

/// Sends as many zero bytes as the peer asks for by a u64, again and again.
pub(super) async fn source<R, W>(mut reader: R, mut writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let chunk = vec![0; CHUNK];
    loop {
        let mut left = reader.read_u64_le().await?;
        while left > 0 {
            let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            writer.write_all(chunk.get(..length).unwrap_or_default()).await?;
            writer.flush().await?;
            left -= length as u64;
        }
    }
}

/// Takes as many bytes as the peer says by a u64 and says so by one byte, again
/// and again.
pub(super) async fn sink<R, W>(mut reader: R, mut writer: W) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut left = reader.read_u64_le().await?;
        while left > 0 {
            let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let length = reader.read(chunk.get_mut(..length).unwrap_or_default()).await?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= length as u64;
        }
        writer.write_all(&[1]).await?;
        writer.flush().await?;
    }
}
