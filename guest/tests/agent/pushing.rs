//! Pushes, frame by frame, with a program in between.

use crate::host::{Host, guest_path};
use pyro_protocol::file::FileTime;
use pyro_protocol::piece::PieceSink;
use pyro_protocol::push::{Push, PushContent, PushEntry, PushKind};
use pyro_protocol::{AgentError, AgentErrorKind, ByteString, Call, FrameKind};
use std::convert::Infallible;
use std::fs;
use std::path::Path;

/// Pieces in memory.
struct Memory {
    bytes: Vec<u8>,
    length: usize,
}

impl Memory {
    fn new() -> Self {
        Self { bytes: vec![0; 64 * 1024], length: 0 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl PieceSink for Memory {
    type Error = Infallible;

    fn spare(&mut self) -> Result<&mut [u8], Infallible> {
        Ok(&mut self.bytes[self.length..])
    }

    fn advance(&mut self, length: usize) {
        self.length += length;
    }
}

/// Pushes `kept`, which is there already, and nothing else; a program does
/// something once everything is compared.
async fn push(delete: bool, program: impl FnOnce(&Path)) -> (Host, Result<(), AgentError>) {
    let host = Host::new();
    host.write("kept", "same", 0o644);
    host.write("old", "x", 0o644);
    fs::create_dir(host.at("directory")).expect("made");
    let modified = FileTime { seconds: 1, nanoseconds: 0 };
    let mut entries = Memory::new();
    for (path, mode, kind) in
        [("", 0o755, PushKind::Directory), ("kept", 0o755, PushKind::File { size_bytes: 4 })]
    {
        let path = ByteString(path.into());
        let Ok(()) = entries.entry(&PushEntry { path, mode, modified, kind });
    }
    let mut contents = Memory::new();
    let Ok(()) = contents.entry(&PushContent { number: 0, mode: 0o755, modified });
    let Ok(()) = contents.keep();
    let mut connection = host.connect().await;
    let call = Push { dest: guest_path("."), delete, dry_run: false, checksum: false };
    connection.send(FrameKind::Call, &Call::from(call)).await;
    connection.writer.send_raw(FrameKind::Data, entries.bytes()).await.expect("sent");
    connection.writer.send_raw(FrameKind::DataEnd, &[]).await.expect("sent");
    assert_eq!(connection.next().await.kind, FrameKind::Reply);
    while connection.next().await.kind == FrameKind::Data {}
    program(host.workspace.path());
    connection.writer.send_raw(FrameKind::Data, contents.bytes()).await.expect("sent");
    connection.writer.send_raw(FrameKind::DataEnd, &[]).await.expect("sent");
    let done = loop {
        let frame = connection.next().await;
        if frame.kind == FrameKind::Error {
            break Err(frame.decode(FrameKind::Error).expect("an error"));
        }
        if frame.kind != FrameKind::Data {
            break Ok(());
        }
    };
    (host, done)
}

#[tokio::test]
async fn r2_what_a_program_changes_meanwhile_is_not_taken_for_the_same() {
    let (host, pushed) = push(true, |_| {}).await;
    pushed.expect("nothing has changed");
    assert_eq!(fs::read_dir(host.workspace.path()).expect("listed").count(), 1);
    type Program = fn(&Path);
    let programs: [(Program, &str); 4] = [
        (|tree| fs::write(tree.join("kept"), "SAME").expect("written"), "kept"),
        (|tree| fs::write(tree.join("old"), "longer").expect("written"), "old"),
        (
            |tree| {
                fs::remove_file(tree.join("old")).expect("removed");
                fs::create_dir(tree.join("old")).expect("made");
            },
            "old",
        ),
        (
            |tree| {
                fs::remove_dir(tree.join("directory")).expect("removed");
                fs::write(tree.join("directory"), "new").expect("written");
            },
            "directory",
        ),
    ];
    for (program, name) in programs {
        let (host, pushed) = push(true, program).await;
        let error = pushed.expect_err("a program was faster");
        assert_eq!(error.kind, AgentErrorKind::Conflict, "{error}");
        assert!(error.message.contains(&format!("/workspace/{name} meanwhile")), "{error}");
        assert_eq!(fs::read_dir(host.workspace.path()).expect("listed").count(), 3);
    }
}
