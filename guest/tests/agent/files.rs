//! Files of the workspace, one at a time.

use crate::host::{Host, guest_path};
use pyro_protocol::file::{
    Disposition, Edit, FileDelete, FileEdit, FileMove, FileRead, FileReadEnd, FileStat, FileType,
    FileWrite, FileWritten, Occurrences, ReadRange,
};
use pyro_protocol::{AgentError, AgentErrorKind, ByteString, FrameKind};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

async fn read(host: &Host, path: &str) -> Result<Vec<u8>, AgentError> {
    read_range(host, path, ReadRange::From { offset: 0 }, None).await.map(|read| read.0)
}

async fn read_range(
    host: &Host,
    path: &str,
    range: ReadRange,
    max_bytes: Option<u64>,
) -> Result<(Vec<u8>, FileReadEnd), AgentError> {
    let call = FileRead { path: guest_path(path), range, max_bytes };
    host.fetch(call).await.map(|(_, bytes, end)| (bytes, end))
}

fn replace(path: &str) -> FileWrite {
    FileWrite { path: guest_path(path), disposition: Disposition::Replace, mode: None }
}

async fn write(host: &Host, path: &str, content: &[u8]) -> Result<FileWritten, AgentError> {
    host.give(replace(path), content).await
}

async fn edit(host: &Host, path: &str, old: &str, new: &str) -> Result<u64, AgentError> {
    let edit = Edit { old: old.into(), new: new.into(), occurrences: Occurrences::Exactly(1) };
    let call = FileEdit { path: guest_path(path), edits: vec![edit] };
    host.call(call).await.map(|edited| edited.first_line)
}

async fn delete(host: &Host, path: &str, recursive: bool) -> Result<(), AgentError> {
    let call = FileDelete { path: guest_path(path), recursive };
    host.call(call).await.map(drop)
}

async fn rename(host: &Host, from: &str, to: &str, replace: bool) -> Result<(), AgentError> {
    let call = FileMove { from: guest_path(from), to: guest_path(to), replace };
    host.call(call).await.map(drop)
}

fn kind<T: std::fmt::Debug>(result: Result<T, AgentError>) -> AgentErrorKind {
    result.expect_err("it is refused").kind
}

/// Two trees: the workspace, and one beside it that nothing may reach.
fn with_secret() -> (Host, tempfile::TempDir) {
    let (host, outside) = (Host::new(), tempfile::tempdir().expect("a directory"));
    fs::write(outside.path().join("secret"), "secret").expect("written");
    symlink(outside.path(), host.at("out")).expect("a link");
    symlink(outside.path().join("secret"), host.at("leak")).expect("a link");
    symlink("../../../../../../etc", host.at("up")).expect("a link");
    (host, outside)
}

#[tokio::test]
async fn what_was_written_is_read() {
    let host = Host::new();
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let written = write(&host, "deep/er/file", &content).await.expect("written");
    assert_eq!(
        (written.size_bytes, written.created, written.mode),
        (content.len() as u64, true, 0o644)
    );
    assert!(read(&host, "/workspace/deep/er/file").await.expect("read") == content);
    // Nothing else is left of it.
    assert_eq!(fs::read_dir(host.at("deep/er")).expect("a directory").count(), 1);
}

#[tokio::test]
async fn r5_a_write_keeps_the_mode() {
    let host = Host::new();
    for (mode, name) in [(0o755, "run.sh"), (0o600, "key"), (0o4711, "set")] {
        host.write(name, "old", mode);
        let written = write(&host, name, b"new").await.expect("written");
        assert_eq!((written.mode, written.created), (mode, false));
        let meta = fs::metadata(host.at(name)).expect("there");
        assert_eq!(meta.permissions().mode() & 0o7777, mode);
        assert_eq!(read(&host, name).await.expect("read"), b"new");
    }
    let call = FileWrite { mode: Some(0o711), ..replace("run.sh") };
    assert_eq!(host.give(call, b"x").await.expect("written").mode, 0o711);
}

#[tokio::test]
async fn a_write_may_have_to_be_of_a_new_file() {
    let host = Host::new();
    let call = FileWrite { disposition: Disposition::CreateNew, ..replace("new/one") };
    host.give(call.clone(), b"first").await.expect("written");
    assert_eq!(kind(host.give(call, b"second").await), AgentErrorKind::AlreadyExists);
    assert_eq!(read(&host, "new/one").await.expect("read"), b"first");
}

#[tokio::test]
async fn an_append_adds() {
    let host = Host::new();
    for part in [b"one ".as_slice(), b"two"] {
        let call = FileWrite { disposition: Disposition::Append, ..replace("log") };
        host.give(call, part).await.expect("written");
    }
    assert_eq!(read(&host, "log").await.expect("read"), b"one two");
}

#[tokio::test]
async fn r2_appends_at_once_overwrite_nothing() {
    let host = std::sync::Arc::new(Host::new());
    host.write("log", "", 0o644);
    let mut appends = tokio::task::JoinSet::new();
    for number in 0..16_u8 {
        let host = host.clone();
        appends.spawn(async move {
            let call = FileWrite { disposition: Disposition::Append, ..replace("log") };
            host.give(call, &vec![number; 200_000]).await.expect("written");
        });
    }
    appends.join_all().await;
    let content = read(&host, "log").await.expect("read");
    let mut parts: Vec<_> = content.chunks(200_000).map(|part| part[0]).collect();
    assert!(content.chunks(200_000).all(|part| part.iter().all(|byte| *byte == part[0])));
    parts.sort_unstable();
    assert_eq!(parts, (0..16).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_write_that_is_cut_off_counts_for_nothing() {
    let host = Host::new();
    host.write("file", "old", 0o644);
    for disposition in [Disposition::Replace, Disposition::Append] {
        for path in ["file", "made/for/it"] {
            let mut connection = host.connect().await;
            let call = FileWrite { path: guest_path(path), disposition, mode: None };
            connection.send(FrameKind::Call, &pyro_protocol::Call::from(call)).await;
            connection.writer.send_raw(FrameKind::Data, b"half").await.expect("sent");
            drop(connection.writer);
            while connection.reader.next().await.is_ok() {}
        }
    }
    assert_eq!(fs::read(host.at("file")).expect("read"), b"old");
    assert_eq!(fs::read_dir(host.workspace.path()).expect("listed").count(), 1);
}

#[tokio::test]
async fn a_link_is_written_through_and_other_names_keep_their_content() {
    let host = Host::new();
    host.write("real", "old", 0o644);
    fs::hard_link(host.at("real"), host.at("other")).expect("linked");
    symlink("real", host.at("link")).expect("linked");
    symlink("fresh/file", host.at("dangling")).expect("linked");
    write(&host, "link", b"new").await.expect("written");
    write(&host, "dangling", b"made").await.expect("written");
    assert!(fs::symlink_metadata(host.at("link")).expect("there").is_symlink());
    assert_eq!(fs::read(host.at("real")).expect("read"), b"new");
    assert_eq!(fs::read(host.at("other")).expect("read"), b"old");
    assert_eq!(fs::read(host.at("fresh/file")).expect("read"), b"made");
}

#[tokio::test]
async fn s8_links_that_leave_the_tree_lead_nowhere() {
    let (host, outside) = with_secret();
    for path in
        ["out/secret", "leak", "up/passwd", "../x", "/etc/passwd", "/workspace/../etc/passwd"]
    {
        assert_eq!(kind(read(&host, path).await), AgentErrorKind::OutOfTree, "{path}");
        assert_eq!(kind(write(&host, path, b"x").await), AgentErrorKind::OutOfTree, "{path}");
        assert_eq!(
            kind(edit(&host, path, "secret", "x").await),
            AgentErrorKind::OutOfTree,
            "{path}"
        );
    }
    for path in ["out/secret", "up/passwd", "../x", "/etc/passwd"] {
        let stat = host.call(FileStat { path: guest_path(path) }).await;
        assert_eq!(kind(stat), AgentErrorKind::OutOfTree, "{path}");
        assert_eq!(kind(delete(&host, path, true).await), AgentErrorKind::OutOfTree, "{path}");
        assert_eq!(
            kind(rename(&host, path, "in", true).await),
            AgentErrorKind::OutOfTree,
            "{path}"
        );
    }
    host.write("file", "x", 0o644);
    assert_eq!(kind(rename(&host, "file", "out/new", true).await), AgentErrorKind::OutOfTree);
    assert_eq!(kind(write(&host, "out/new/file", b"x").await), AgentErrorKind::OutOfTree);
    assert_eq!(fs::read(outside.path().join("secret")).expect("still there"), b"secret");
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 1);
    // The links themselves are the workspace's own.
    delete(&host, "out", false).await.expect("deleted");
    rename(&host, "leak", "moved", false).await.expect("moved");
    assert_eq!(fs::read(outside.path().join("secret")).expect("still there"), b"secret");
}

#[tokio::test]
async fn s8_links_within_the_tree_work_also_when_they_are_absolute() {
    let host = Host::new();
    fs::create_dir_all(host.at("a/b")).expect("made");
    host.write("a/b/file", "found", 0o644);
    symlink("/workspace/a", host.at("absolute")).expect("a link");
    symlink("absolute/b", host.at("chained")).expect("a link");
    symlink("../../absolute/b/file", host.at("a/b/up")).expect("a link");
    symlink("/workspace/a/b/up", host.at("far")).expect("a link");
    for path in ["absolute/b/file", "chained/file", "a/b/up", "far", "absolute/../a/b/file"] {
        assert_eq!(read(&host, path).await.expect(path), b"found");
    }
    write(&host, "chained/new", b"x").await.expect("written");
    assert_eq!(fs::read(host.at("a/b/new")).expect("read"), b"x");
    symlink("/workspace/loop", host.at("loop")).expect("a link");
    symlink("/workspace/absolute/../../etc", host.at("sly")).expect("a link");
    assert_eq!(kind(read(&host, "loop").await), AgentErrorKind::InvalidArgument);
    assert_eq!(kind(read(&host, "sly/passwd").await), AgentErrorKind::OutOfTree);
}

#[tokio::test]
async fn what_is_no_file_is_not_read() {
    let host = Host::new();
    let fifo = host.at("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).expect("a FIFO");
    drop(std::os::unix::net::UnixListener::bind(host.at("socket")).expect("a socket"));
    fs::create_dir(host.at("directory")).expect("made");
    for path in ["fifo", "socket", "directory", "."] {
        assert_eq!(kind(read(&host, path).await), AgentErrorKind::WrongFileType, "{path}");
    }
    assert_eq!(kind(read(&host, "absent").await), AgentErrorKind::NotFound);
    assert_eq!(kind(write(&host, "directory", b"x").await), AgentErrorKind::WrongFileType);
    assert_eq!(kind(write(&host, "fifo", b"x").await), AgentErrorKind::WrongFileType);
    assert_eq!(kind(write(&host, ".", b"x").await), AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn ranges_of_bytes_and_lines() {
    let host = Host::new();
    host.write("file", "one\ntwo\nthree\nfour", 0o644);
    let bytes = |offset| ReadRange::From { offset };
    let lines = |first, count| ReadRange::Lines { first, count };
    let cases = [
        (bytes(4), Some(3), "two", 4, true, Some(7)),
        (bytes(14), None, "four", 14, false, None),
        (bytes(14), Some(4), "four", 14, false, None),
        (bytes(100), None, "", 100, false, None),
        (bytes(0), Some(0), "", 0, true, Some(0)),
        (lines(2, Some(2)), None, "two\nthree\n", 4, false, Some(14)),
        (lines(2, Some(2)), Some(5), "two\nt", 4, true, Some(9)),
        (lines(4, None), None, "four", 14, false, None),
        (lines(9, Some(1)), None, "", 18, false, None),
        (lines(1, Some(0)), None, "", 0, false, Some(0)),
    ];
    for (range, max, expected, offset, truncated, next_offset) in cases {
        let (read, end) = read_range(&host, "file", range, max).await.expect("read");
        assert_eq!(String::from_utf8_lossy(&read), expected, "{range:?} {max:?}");
        assert_eq!(end, FileReadEnd { offset, truncated, next_offset }, "{range:?} {max:?}");
    }
    let zero = read_range(&host, "file", lines(0, None), None).await;
    assert_eq!(kind(zero), AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn lines_are_found_across_reads() {
    let host = Host::new();
    let content: String = (1..=40_000).map(|number| format!("line {number}\n")).collect();
    host.write("long", &content, 0o644);
    let range = ReadRange::Lines { first: 39_999, count: Some(1) };
    let (read, _) = read_range(&host, "long", range, None).await.expect("read");
    assert_eq!(String::from_utf8_lossy(&read), "line 39999\n");
}

#[tokio::test]
async fn an_edit_is_exact() {
    let host = Host::new();
    host.write("file", b"a b\r\na b\r\n\xff c\r\n", 0o750);
    let error = edit(&host, "file", "a", "x").await.expect_err("there are two");
    assert_eq!(error.kind, AgentErrorKind::Conflict);
    assert!(error.message.contains("2 times, at lines 1, 2; 1 expected"), "{}", error.message);
    let error = edit(&host, "file", "b\na", "x").await.expect_err("lines end otherwise");
    assert!(error.message.contains("end in \\r\\n"), "{}", error.message);
    assert_eq!(kind(edit(&host, "file", "", "x").await), AgentErrorKind::InvalidArgument);
    assert_eq!(edit(&host, "file", "c\r\n", "d\r\n").await.expect("edited"), 3);
    let every = Edit { old: "a b".into(), new: "é".into(), occurrences: Occurrences::All };
    let seen = Edit { old: "é".into(), new: "e".into(), occurrences: Occurrences::Exactly(2) };
    let call = FileEdit { path: guest_path("file"), edits: vec![every, seen] };
    let edited = host.call(call).await.expect("edited");
    assert_eq!((edited.replacements, edited.first_line), (4, 1));
    assert_eq!(fs::read(host.at("file")).expect("read"), b"e\r\ne\r\n\xff d\r\n");
    let meta = fs::metadata(host.at("file")).expect("there");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o750);
}

#[tokio::test]
async fn s4_an_edit_takes_little_memory_and_has_an_end() {
    let host = Host::new();
    host.write("file", vec![b'a'; 4 << 20], 0o644);
    let all = |count: usize| {
        let edit = Edit {
            old: ByteString(b"a".to_vec()),
            new: ByteString(b"b".to_vec()),
            occurrences: Occurrences::All,
        };
        FileEdit { path: guest_path("file"), edits: vec![edit; count] }
    };
    assert_eq!(host.call(all(1)).await.expect("edited").replacements, 4 << 20);
    assert!(fs::read(host.at("file")).expect("read").iter().all(|byte| *byte == b'b'));
    assert_eq!(kind(host.call(all(1001)).await), AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn edits_are_all_or_nothing() {
    let host = Host::new();
    host.write("file", "one two", 0o644);
    let exactly =
        |old: &str| Edit { old: old.into(), new: "x".into(), occurrences: Occurrences::Exactly(1) };
    let call = FileEdit { path: guest_path("file"), edits: vec![exactly("one"), exactly("three")] };
    assert_eq!(kind(host.call(call).await), AgentErrorKind::Conflict);
    assert_eq!(fs::read(host.at("file")).expect("read"), b"one two");
}

#[tokio::test]
async fn thirty_two_edits_of_one_file_at_once_are_all_made() {
    let host = Host::new();
    let words: Vec<String> = (0..32).map(|number| format!("<{number}>")).collect();
    host.write("file", words.concat(), 0o644);
    let edits = words.iter().map(|word| edit(&host, "file", word, "."));
    for edited in futures::future::join_all(edits).await {
        edited.expect("edited");
    }
    assert_eq!(fs::read(host.at("file")).expect("read"), ".".repeat(32).as_bytes());
}

#[tokio::test]
async fn deleting_takes_no_more_than_it_says() {
    let (host, outside) = with_secret();
    fs::create_dir_all(host.at("tree/a/b/c")).expect("made");
    fs::create_dir(host.at("empty")).expect("made");
    for index in 0..100 {
        host.write(&format!("tree/a/{index}"), "x", 0o400);
    }
    symlink(outside.path(), host.at("tree/a/b/out")).expect("a link");
    assert_eq!(kind(delete(&host, "tree", false).await), AgentErrorKind::WrongFileType);
    delete(&host, "tree", true).await.expect("deleted");
    delete(&host, "empty", false).await.expect("deleted");
    assert_eq!(kind(delete(&host, "tree", true).await), AgentErrorKind::NotFound);
    for path in [".", "/workspace", "/workspace/", "out/.."] {
        assert_eq!(
            kind(delete(&host, path, true).await),
            AgentErrorKind::InvalidArgument,
            "{path}"
        );
    }
    assert!(outside.path().join("secret").exists());
}

#[tokio::test]
async fn moving_replaces_only_when_told() {
    let host = Host::new();
    host.write("a", "a", 0o644);
    host.write("b", "b", 0o644);
    fs::create_dir(host.at("directory")).expect("made");
    assert_eq!(kind(rename(&host, "a", "b", false).await), AgentErrorKind::AlreadyExists);
    assert_eq!(kind(rename(&host, "a", "directory", true).await), AgentErrorKind::WrongFileType);
    assert_eq!(kind(rename(&host, "absent", "new/c", false).await), AgentErrorKind::NotFound);
    assert!(!host.at("new").exists(), "nothing is made for what is not there");
    rename(&host, "a", "b", true).await.expect("moved");
    rename(&host, "b", "new/dir/c", false).await.expect("moved");
    assert_eq!(fs::read(host.at("new/dir/c")).expect("read"), b"a");
    let into_itself = rename(&host, "new", "new/dir/x", false).await;
    assert_eq!(kind(into_itself), AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn between_two_names_of_a_file_one_goes() {
    let host = Host::new();
    host.write("a", "x", 0o644);
    fs::hard_link(host.at("a"), host.at("b")).expect("linked");
    rename(&host, "a", "a", true).await.expect("nothing to do");
    rename(&host, "a", "b", true).await.expect("moved");
    assert!(!host.at("a").exists());
    assert_eq!(fs::read(host.at("b")).expect("read"), b"x");
}

#[tokio::test]
async fn an_entry_says_all_about_it() {
    let host = Host::new();
    host.write("file", "12345", 0o4750);
    fs::hard_link(host.at("file"), host.at("again")).expect("linked");
    symlink("../no/where", host.at("link")).expect("linked");
    let stat = |path: &str| host.call(FileStat { path: guest_path(path) });
    let file = stat("./file").await.expect("there");
    let meta = fs::metadata(host.at("file")).expect("there");
    assert_eq!(file.path, guest_path("/workspace/file"));
    assert_eq!((file.file_type, file.size_bytes, file.mode), (FileType::File, 5, 0o4750));
    assert_eq!((file.links, file.uid, file.gid), (2, meta.uid(), meta.gid()));
    let nanoseconds = i64::from(file.modified.nanoseconds);
    assert_eq!((file.modified.seconds, nanoseconds), (meta.mtime(), meta.mtime_nsec()));
    let link = stat("link").await.expect("there");
    assert_eq!((link.file_type, link.link_target), (FileType::Symlink, Some("../no/where".into())));
    assert_eq!(stat(".").await.expect("there").path, guest_path("/workspace"));
    assert_eq!(kind(stat("file/below").await), AgentErrorKind::WrongFileType);
}

#[tokio::test]
async fn a_host_that_stops_reading_holds_up_nobody_else() {
    let host = Host::new();
    host.write("large", vec![7; 8 * 1024 * 1024], 0o644);
    let mut slow = host.connect().await;
    let range = ReadRange::From { offset: 0 };
    let call = FileRead { path: guest_path("large"), range, max_bytes: None };
    slow.call(call).await.expect("it begins");
    assert_eq!(read(&host, "large").await.expect("read").len(), 8 * 1024 * 1024);
    let (rest, _) = slow.transfer::<FileReadEnd>().await.expect("the slow one gets it too");
    assert_eq!(rest.len(), 8 * 1024 * 1024);
}

#[tokio::test]
async fn hosts_that_stop_reading_keep_no_process_waiting() {
    let host = Host::new();
    host.write("large", vec![7; 8 * 1024 * 1024], 0o644);
    let mut stalled = Vec::new();
    // As many as there are turns, and some that wait for one.
    for _ in 0..12 {
        let range = ReadRange::From { offset: 0 };
        let call = FileRead { path: guest_path("large"), range, max_bytes: None };
        let mut connection = host.connect().await;
        connection.send(FrameKind::Call, &pyro_protocol::Call::from(call)).await;
        stalled.push(connection);
    }
    assert_eq!(host.script("echo on").await.text(), "on\n");
    // Whoever hangs up makes room.
    drop(stalled);
    assert_eq!(read(&host, "large").await.expect("read").len(), 8 * 1024 * 1024);
}
