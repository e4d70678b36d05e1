//! Contents of the workspace's files.

use super::AgentClient;
use crate::error::{Error, Result};
use pyro_protocol::FrameKind;
use pyro_protocol::file::{FileRead, FileReadEnd, FileReading, FileWrite, FileWritten};
use pyro_protocol::piece::PieceSink;
use pyro_protocol::transfer::Outgoing;
use std::io::Read;
use tokio::io::AsyncRead;

impl AgentClient {
    /// Reads a file, and hands its bytes to `hear` as they come. While `hear`
    /// waits, so does the guest.
    pub async fn read_file<H: Future<Output = Result<()>>>(
        &self,
        request: FileRead,
        mut hear: impl FnMut(Vec<u8>) -> H,
    ) -> Result<(FileReading, FileReadEnd)> {
        let (mut connection, reading) = self.begin(request).await?;
        loop {
            let frame = connection.next().await?;
            if frame.kind != FrameKind::Data {
                return Ok((reading, super::reply(frame, FrameKind::DataEnd)?));
            }
            hear(frame.payload).await?;
        }
    }

    /// Writes a file. Nothing of it is to be seen before all of it is there.
    pub async fn write_file(
        &self,
        request: FileWrite,
        content: impl AsyncRead + Unpin,
    ) -> Result<FileWritten> {
        self.connect().await?.call_with_content(request, content).await
    }

    /// The same with a content that is read on a thread that may block.
    pub async fn write_file_from(
        &self,
        request: FileWrite,
        mut content: impl Read + Send + 'static,
    ) -> Result<FileWritten> {
        let feed = move |outgoing: &mut Outgoing| loop {
            match content.read(outgoing.spare()?) {
                Ok(0) => return Ok(()),
                Ok(length) => outgoing.advance(length),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("cannot read the content", error)),
            }
        };
        self.connect().await?.call_with(request, feed).await
    }
}
