//! A guest that only looks.

use crate::host::{Connection, Host, guest_path, sh};
use pyro_agent::{Guest, Phase};
use pyro_protocol::export::{Export, ExportEnd, ExportEntry, ExportKind};
use pyro_protocol::file::{
    Disposition, FileDelete, FileList, FileListed, FileRead, FileReading, FileStat, FileType,
    FileWrite, ReadRange,
};
use pyro_protocol::inspect::{CopyTree, Inspect, MeasureTree};
use pyro_protocol::kept::ListProcesses;
use pyro_protocol::piece::{Piece, PieceReader};
use pyro_protocol::power::{ENTROPY_LEN, Ping};
use pyro_protocol::{AgentErrorKind, ByteString, FrameKind};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

fn inspect() -> Inspect {
    Inspect { entropy: ByteString(vec![7; ENTROPY_LEN]), clock_offset_ns: 0, seeded: false }
}

/// A guest that has been told to look at a tree, whose top is the host's directory.
async fn looking() -> (Host, PathBuf) {
    let tree = tempfile::tempdir().expect("a directory of our own");
    let top = tree.path().to_owned();
    fs::create_dir_all(top.join("workspace/src")).expect("made");
    fs::create_dir_all(top.join("etc")).expect("made");
    fs::write(top.join("etc/hostname"), "lab\n").expect("written");
    let guest = Guest::in_process(top.join("workspace"), Phase::Waiting);
    let host = Host { guest, workspace: tree };
    host.call(inspect()).await.expect("it may look");
    (host, top)
}

async fn list(host: &Host, path: &str, recursive: bool) -> FileListed {
    let call = FileList { path: guest_path(path), recursive, after: None, limit: 1000 };
    host.call(call).await.expect("listed")
}

fn paths(listed: &FileListed) -> Vec<String> {
    listed.entries.iter().map(|entry| entry.path.to_string()).collect()
}

#[tokio::test]
async fn it_serves_what_reads_and_nothing_else() {
    let (host, top) = looking().await;
    host.call(Ping).await.expect("somebody is there");
    host.call(MeasureTree).await.expect("measured");
    let stat = FileStat { path: guest_path("src") };
    assert_eq!(host.call(stat).await.expect("there").file_type, FileType::Directory);
    assert_eq!(host.refusal(sh("touch ran")).await, AgentErrorKind::WrongState);
    let write =
        FileWrite { path: guest_path("new"), disposition: Disposition::CreateNew, mode: None };
    let delete = FileDelete { path: guest_path("src"), recursive: true };
    let refused = [
        host.call(write).await.map(drop),
        host.call(delete).await.map(drop),
        host.call(ListProcesses).await.map(drop),
        host.call(inspect()).await.map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.expect_err("it only looks").kind, AgentErrorKind::WrongState);
    }
    assert_eq!(fs::read_dir(top.join("workspace")).expect("there").count(), 1);
}

#[tokio::test]
async fn what_only_an_inspection_does_a_workspace_does_not() {
    let host = Host::new();
    for refused in [host.call(MeasureTree).await.map(drop), host.call(CopyTree).await.map(drop)] {
        assert_eq!(refused.expect_err("it works").kind, AgentErrorKind::WrongState);
    }
    let waiting = Host::in_phase(Phase::Waiting);
    let short = Inspect { entropy: ByteString(vec![1]), ..inspect() };
    let error = waiting.call(short).await.expect_err("too little");
    assert_eq!(error.kind, AgentErrorKind::InvalidArgument);
    waiting.call(inspect()).await.expect("that was put right");
}

#[tokio::test]
async fn paths_lie_anywhere_and_links_lead_nowhere_else() {
    let (host, top) = looking().await;
    symlink("/etc", top.join("workspace/absolute")).expect("linked");
    symlink("../../../../../etc/hostname", top.join("workspace/climbing")).expect("linked");
    for path in ["/etc/hostname", "absolute/hostname", "climbing", "../etc/hostname"] {
        let range = ReadRange::From { offset: 0 };
        let call = FileRead { path: guest_path(path), range, max_bytes: None };
        let reading: FileReading = host.call(call).await.expect(path);
        assert_eq!(reading.size_bytes, 4, "{path}");
    }
    assert_eq!(
        paths(&list(&host, "/", true).await),
        [
            "/etc",
            "/etc/hostname",
            "/workspace",
            "/workspace/absolute",
            "/workspace/climbing",
            "/workspace/src"
        ]
    );
    assert_eq!(paths(&list(&host, "src/..", false).await).len(), 3);
}

#[tokio::test]
async fn a_listing_of_everything_goes_on_where_it_ended() {
    let (host, _top) = looking().await;
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let call = FileList { path: guest_path("/"), recursive: true, after, limit: 1 };
        let page = host.call(call).await.expect("listed");
        seen.extend(paths(&page));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, ["/etc", "/etc/hostname", "/workspace", "/workspace/src"]);
}

#[tokio::test]
async fn names_are_bytes_and_targets_as_long_as_they_are() {
    let (host, top) = looking().await;
    let name = [b"a b\n\xff`$(x)".as_slice(), "é".as_bytes()].concat();
    fs::write(top.join("workspace/src").join(OsStr::from_bytes(&name)), "x").expect("written");
    let target = "t/".repeat(1000);
    symlink(&target, top.join("workspace/long")).expect("linked");
    let listed = list(&host, ".", true).await;
    let has = |name: &[u8]| listed.entries.iter().any(|e| e.path.as_bytes().ends_with(name));
    assert!(has(&name), "{listed:?}");
    let long = listed.entries.iter().find(|entry| entry.path.as_bytes().ends_with(b"/long"));
    let told = long.and_then(|long| long.link_target.as_ref()).expect("a target");
    assert_eq!(told.0, target.as_bytes());
}

#[tokio::test]
async fn p7_what_is_measured_is_content_and_not_holes() {
    let (host, top) = looking().await;
    let before = host.call(MeasureTree).await.expect("measured");
    let hole = fs::File::create(top.join("workspace/hole")).expect("made");
    hole.set_len(1 << 40).expect("long");
    fs::write(top.join("workspace/one"), vec![1; 1 << 20]).expect("written");
    fs::hard_link(top.join("workspace/one"), top.join("workspace/two")).expect("linked");
    fs::File::open(top.join("workspace/one")).and_then(|f| f.sync_all()).expect("there");
    let after = host.call(MeasureTree).await.expect("measured");
    assert_eq!(after.entries - before.entries, 3);
    let more = after.bytes - before.bytes;
    assert!((1 << 20..3 << 20).contains(&more), "{more}");
    assert!(after.free_bytes > 0);
}

/// All entries of an export, and its end.
async fn exported(mut connection: Connection) -> (Vec<ExportEntry>, ExportEnd) {
    let (mut reader, mut entries) = (PieceReader::<ExportEntry>::default(), Vec::new());
    loop {
        let frame = connection.next().await;
        if frame.kind == FrameKind::DataEnd {
            return (entries, frame.decode(FrameKind::DataEnd).expect("an end"));
        }
        let mut input = frame.payload.as_slice();
        while let Some(piece) = reader.next(&mut input).expect("pieces") {
            if let Piece::Entry(entry) = piece {
                entries.push(entry);
            }
        }
    }
}

#[tokio::test]
async fn r5_owners_and_attributes_go_along_when_they_are_asked_for() {
    let (host, top) = looking().await;
    let file = top.join("etc/hostname");
    let flags = rustix::fs::XattrFlags::empty();
    let has_attributes = rustix::fs::setxattr(&file, "user.note", b"n\0", flags).is_ok();
    for attributes in [true, false] {
        let mut connection = host.connect().await;
        let call = Export { path: guest_path("/"), attributes };
        connection.call(call).await.expect("it is there");
        let (entries, end) = exported(connection).await;
        assert_eq!((end.entries, end.unattributed), (5, 0));
        assert!(entries.iter().all(|entry| entry.attributes.is_some() == attributes));
        let hostname = entries.iter().find(|entry| entry.path.0 == b"etc/hostname");
        let hostname = hostname.expect("it is there");
        assert_eq!(hostname.kind, ExportKind::File { size_bytes: 4 });
        if let Some(of) = &hostname.attributes {
            assert_eq!(of.uid, file.metadata().expect("there").uid());
            let note = of.xattrs.iter().find(|xattr| xattr.name.0 == b"user.note");
            assert_eq!(
                note.map(|note| note.value.0.as_slice()),
                has_attributes.then_some(&b"n\0"[..])
            );
        }
    }
}

#[tokio::test]
async fn without_a_disk_to_copy_to_nothing_is_copied() {
    let (host, _top) = looking().await;
    let error = host.call(CopyTree).await.expect_err("there is none");
    assert_eq!(error.kind, AgentErrorKind::Unsupported);
}
