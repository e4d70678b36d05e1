//! Guests that are tasks of this process, behind an endpoint of their own.

use pyro::Deadlines;
use pyro::agent::AgentClient;
use pyro_agent::{Guest, Phase, serve_connection};
use pyro_protocol::handshake::{GENERATION, MAGIC};
use pyro_protocol::{Call, FrameKind, FrameReader, FrameWriter, Hello, Welcome};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

/// A hostile guest's connection that was greeted and has read its call.
pub async fn called(
    stream: UnixStream,
) -> (FrameReader<OwnedReadHalf>, FrameWriter<OwnedWriteHalf>) {
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
    let _: Hello = reader.expect(FrameKind::Hello).await.unwrap();
    let welcome = Welcome {
        magic: MAGIC,
        generation: GENERATION,
        agent_version: String::new(),
        clock_ns: 0,
        activated: true,
    };
    writer.send(FrameKind::Welcome, &welcome).await.unwrap();
    let _: Call = reader.expect(FrameKind::Call).await.unwrap();
    (reader, writer)
}

/// A guest and the way to it. Gone when dropped.
pub struct Served {
    pub agent: AgentClient,
    /// What stands for `/workspace`, if the agent is the real one.
    workspace: TempDir,
    _endpoint: TempDir,
    serving: JoinHandle<()>,
}

impl Served {
    /// The real agent.
    pub fn honest() -> Self {
        let workspace = tempfile::tempdir().unwrap();
        let guest = Guest::in_process(workspace.path(), Phase::Activated);
        Self::with(workspace, Deadlines::default(), move |stream| {
            let guest = Arc::clone(&guest);
            serve_connection(stream, guest)
        })
    }

    /// Any other.
    pub fn hostile<F: Future<Output = ()> + Send + 'static>(
        answer: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> Self {
        Self::with(tempfile::tempdir().unwrap(), Deadlines::default(), answer)
    }

    /// Any other, and a host that soon runs out of patience.
    pub fn stalling<F: Future<Output = ()> + Send + 'static>(
        answer: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> Self {
        let short = Duration::from_millis(500);
        let deadlines = Deadlines { reply: short, silence: short, ..Deadlines::default() };
        Self::with(tempfile::tempdir().unwrap(), deadlines, answer)
    }

    fn with<F: Future<Output = ()> + Send + 'static>(
        workspace: TempDir,
        deadlines: Deadlines,
        answer: impl Fn(UnixStream) -> F + Send + 'static,
    ) -> Self {
        let endpoint = tempfile::tempdir().unwrap();
        let listener =
            pyro::vsock::endpoint::listen(&File::open(endpoint.path()).unwrap()).unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut byte = 0;
                while byte != b'\n' {
                    byte = stream.read_u8().await.unwrap();
                }
                stream.write_all(b"OK 1\n").await.unwrap();
                tokio::spawn(answer(stream));
            }
        });
        let agent = AgentClient::new(endpoint.path(), deadlines).unwrap();
        Self { agent, workspace, _endpoint: endpoint, serving }
    }

    pub fn workspace(&self) -> &Path {
        self.workspace.path()
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.workspace.path().join(path)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
