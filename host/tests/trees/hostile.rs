//! Guests that lie. Whatever they send, nothing outside the output is written,
//! and nothing is left.

use crate::exporting::{names, wanted};
use crate::guest::{Served, called};
use proptest::collection::vec;
use proptest::prelude::*;
use pyro::ErrorKind;
use pyro::workspace::export::export;
use pyro_protocol::export::{ExportEnd, ExportEntry, ExportKind, Exporting};
use pyro_protocol::file::{FileTime, FileType};
use pyro_protocol::piece::PieceSink;
use pyro_protocol::{ByteString, FrameKind};
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// A stream in memory.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    spare: Vec<u8>,
}

impl PieceSink for Stream {
    type Error = Infallible;

    fn spare(&mut self) -> Result<&mut [u8], Infallible> {
        self.spare = vec![0; 4096];
        Ok(&mut self.spare)
    }

    fn advance(&mut self, length: usize) {
        self.bytes.extend_from_slice(&self.spare[..length]);
    }
}

impl Stream {
    fn with(mut self, path: &[u8], kind: ExportKind) -> Self {
        let (mode, modified) = (0o7777, FileTime { seconds: 1, nanoseconds: 1 });
        let path = ByteString(path.to_vec());
        let Ok(()) = self.entry(&ExportEntry { path, mode, modified, kind, attributes: None });
        self
    }

    fn file(self, path: &[u8], content: &[u8]) -> Self {
        let size_bytes = content.len() as u64;
        let mut this = self.with(path, ExportKind::File { size_bytes }).content(content);
        let Ok(()) = this.end();
        this
    }

    fn content(mut self, content: &[u8]) -> Self {
        let Ok(Ok(_)) = self.bytes_from(u64::MAX, |room| {
            room[..content.len()].copy_from_slice(content);
            Ok::<_, Infallible>(content.len())
        });
        self
    }

    fn directory(self, path: &[u8]) -> Self {
        self.with(path, ExportKind::Directory)
    }

    fn symlink(self, path: &[u8], target: &[u8]) -> Self {
        self.with(path, ExportKind::Symlink(ByteString(target.to_vec())))
    }

    fn link(self, path: &[u8], first: &[u8]) -> Self {
        self.with(path, ExportKind::HardLink(ByteString(first.to_vec())))
    }
}

/// Greets, and answers an export by these bytes.
async fn answer(stream: UnixStream, file_type: FileType, bytes: Vec<u8>) {
    let (mut reader, mut writer) = called(stream).await;
    writer.send(FrameKind::Reply, &Exporting { file_type }).await.unwrap();
    for chunk in bytes.chunks(FrameKind::Data.limit()) {
        if writer.send_raw(FrameKind::Data, chunk).await.is_err() {
            return;
        }
    }
    let end = ExportEnd {
        entries: 1,
        special: 0,
        torn: 0,
        too_deep: 0,
        unattributed: 0,
        examples: Vec::new(),
    };
    drop(writer.send(FrameKind::DataEnd, &end).await);
    // The host may still be reading.
    drop(reader.next().await);
}

/// What an export of these bytes comes to; nothing but its output is changed.
async fn attempt(file_type: FileType, bytes: Vec<u8>) -> Result<(), ErrorKind> {
    let served = Served::hostile(move |stream| answer(stream, file_type, bytes.clone()));
    let home = tempfile::tempdir().unwrap();
    let (inside, outside) = (home.path().join("in"), home.path().join("out"));
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let output = inside.join("output");
    let exported = export(&served.agent, wanted("x", &output), &CancellationToken::new()).await;
    assert_eq!(names(&outside), ["file"]);
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"untouched");
    assert_eq!(outside.join("file").metadata().unwrap().permissions().mode() & 0o7777, 0o644);
    match exported {
        Ok(_) => {
            assert_eq!(names(&inside), ["output"]);
            no_set_id(&output);
            Ok(())
        }
        Err(error) => {
            assert_eq!(names(&inside), [""; 0], "{error}");
            Err(error.kind())
        }
    }
}

use std::os::unix::fs::PermissionsExt;

fn no_set_id(path: &Path) {
    let meta = path.symlink_metadata().unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            no_set_id(&entry.unwrap().path());
        }
    }
    assert!(meta.is_symlink() || meta.permissions().mode() & 0o6000 == 0, "{}", path.display());
}

#[tokio::test]
async fn s1_s8_no_trick_leads_out_of_the_output() {
    let tree = || Stream::default().directory(b"");
    let tricks: Vec<(&str, Stream)> = vec![
        ("a name that climbs", tree().file(b"../out/file", b"x")),
        ("one that climbs later", tree().directory(b"a").file(b"a/../../out/file", b"x")),
        ("an absolute name", tree().file(b"/tmp/pyro-hostile", b"x")),
        ("a name with a NUL", tree().file(b"a\0b", b"x")),
        ("an empty name", tree().directory(b"a").file(b"a//b", b"x")),
        ("a dot", tree().file(b".", b"x")),
        ("two dots", tree().symlink(b"..", b"x")),
        ("a long name", tree().file(&[b'a'; 256], b"x")),
        ("a file through a symlink", tree().symlink(b"a", b"../../out").file(b"a/file", b"x")),
        ("a directory through one", tree().symlink(b"a", b"../../out").directory(b"a/b")),
        ("a directory that becomes one", tree().directory(b"a").symlink(b"a", b"../../out")),
        ("and is used", tree().directory(b"a").symlink(b"a", b"../../out").file(b"a/file", b"x")),
        ("a file twice", tree().file(b"a", b"1").file(b"a", b"2")),
        ("a file below a file", tree().file(b"a", b"1").file(b"a/b", b"2")),
        ("a file below nothing", tree().file(b"a/b", b"2")),
        ("a link to what is not there", tree().link(b"a", b"b")),
        ("a link that leads out", tree().link(b"a", b"../../out/file")),
        ("a link to an absolute path", tree().link(b"a", b"/etc/passwd")),
        ("a link through a symlink", tree().symlink(b"a", b"../../out").link(b"b", b"a/file")),
        ("a link to a symlink", tree().symlink(b"a", b"../../out/file").link(b"b", b"a")),
        ("a link to itself", tree().link(b"a", b"a")),
        ("back into a directory", tree().directory(b"b").file(b"a", b"x")),
        ("the root twice", tree().directory(b"")),
        ("no root", Stream::default().file(b"a", b"x")),
        ("nothing", Stream::default()),
        ("a symlink as the root", Stream::default().symlink(b"", b"../../out")),
        ("a link as the root", Stream::default().link(b"", b"")),
        ("a symlink to nothing", tree().symlink(b"a", b"")),
        ("a content of a directory", tree().directory(b"a").content(b"x")),
        ("more content than it says", {
            tree().with(b"a", ExportKind::File { size_bytes: 1 }).content(b"xx")
        }),
        ("less content than it says", {
            let mut tree = tree().with(b"a", ExportKind::File { size_bytes: 2 }).content(b"x");
            let Ok(()) = tree.end();
            tree
        }),
        ("a file without an end", tree().with(b"a", ExportKind::File { size_bytes: 2 })),
        ("a file longer than any", tree().with(b"a", ExportKind::File { size_bytes: u64::MAX })),
        ("a hole without end", {
            let mut tree = tree().with(b"a", ExportKind::File { size_bytes: 1 });
            let Ok(()) = tree.hole(u64::MAX);
            tree
        }),
        ("half a piece", Stream { bytes: vec![0, 9], ..Stream::default() }),
        ("no piece", Stream { bytes: vec![77; 100], ..Stream::default() }),
        ("an entry beyond the limit", {
            Stream { bytes: vec![0, 0xff, 0xff, 0xff, 0xff], ..Stream::default() }
        }),
    ];
    for (trick, stream) in tricks {
        let refused = attempt(FileType::Directory, stream.bytes).await;
        assert!(
            matches!(refused, Err(ErrorKind::Protocol | ErrorKind::GuestLost)),
            "{trick}: {refused:?}"
        );
    }
    assert!(!Path::new("/tmp/pyro-hostile").exists());
}

#[tokio::test]
async fn s8_symlinks_are_data_and_set_id_bits_stay_in_the_guest() {
    let stream = Stream::default()
        .directory(b"")
        .symlink(b"a", b"../../out/file")
        .directory(b"b")
        .file(b"b/tool", b"#!")
        .link(b"b/twin", b"b/tool");
    assert_eq!(attempt(FileType::Directory, stream.bytes).await, Ok(()));
}

#[tokio::test]
async fn s1_what_is_told_must_be_what_is_sent() {
    let file = Stream::default().file(b"", b"x").bytes;
    for told in [FileType::Directory, FileType::Symlink, FileType::Fifo, FileType::Device] {
        assert_eq!(attempt(told, file.clone()).await, Err(ErrorKind::Protocol), "{told:?}");
    }
    assert_eq!(attempt(FileType::File, file).await, Ok(()));
}

#[tokio::test]
async fn s4_a_tree_without_end_ends() {
    let served = Served::hostile(|stream| async move {
        let (_reader, mut writer) = called(stream).await;
        let file_type = FileType::Directory;
        writer.send(FrameKind::Reply, &Exporting { file_type }).await.unwrap();
        let mut stream = Stream::default().directory(b"");
        for number in 0_u64.. {
            stream = stream.symlink(format!("{number:020}").as_bytes(), b"x");
            if stream.bytes.len() > 60_000 {
                let bytes = std::mem::take(&mut stream.bytes);
                if writer.send_raw(FrameKind::Data, &bytes).await.is_err() {
                    return;
                }
            }
        }
    });
    let home = tempfile::tempdir().unwrap();
    let mut asked = wanted("x", &home.path().join("output"));
    asked.limits.entries = 20_000;
    let error =
        export(&served.agent, asked, &CancellationToken::new()).await.expect_err("it has no end");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(names(home.path()), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn s1_no_entries_whatever_lead_out(entries in vec(entry(), 0..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stream = entries.into_iter().fold(Stream::default().directory(b""), |stream, (path, kind)| {
            match kind {
                ExportKind::File { .. } => stream.file(&path, b"evil"),
                kind @ (ExportKind::Directory | ExportKind::Symlink(_) | ExportKind::HardLink(_)) => {
                    stream.with(&path, kind)
                }
            }
        });
        // Whether it is taken or not.
        let _ = runtime.block_on(attempt(FileType::Directory, stream.bytes));
    }
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::sample::select(&["a", "b", "..", ".", "", "out", "file", "\0"]);
    vec(name, 1..4).prop_map(|names| names.join("/").into_bytes())
}

fn entry() -> impl Strategy<Value = (Vec<u8>, ExportKind)> {
    let target = || {
        proptest::sample::select(&[
            "..",
            "../..",
            "../../out",
            "../../out/file",
            "/etc",
            "a",
            "b",
            ".",
        ])
        .prop_map(ByteString::from)
    };
    let kind = prop_oneof![
        Just(ExportKind::File { size_bytes: 4 }),
        Just(ExportKind::Directory),
        target().prop_map(ExportKind::Symlink),
        prop_oneof![target(), path().prop_map(ByteString)].prop_map(ExportKind::HardLink),
    ];
    (path(), kind)
}
