//! Generation 1, byte for byte. A change here is a change that an older host or
//! agent cannot understand: it needs a new call in a new generation.

mod inspect;
mod service;

use pyro_protocol::channel::{Before, Side, connect};
use pyro_protocol::diff::{
    ApplyPatch, Artifact, Diff, DiffContent, DiffDetail, DiffEntry, DiffRecord, DiffScope,
    DiffStarted, DiffStatus, DiffSummary, PatchApplied, Patched,
};
use pyro_protocol::egress::{GatewayOpened, OpenGateway};
use pyro_protocol::export::{Export, ExportEnd, ExportEntry, ExportKind, Exporting};
use pyro_protocol::file::{
    Disposition, Edit, FileDelete, FileDeleted, FileEdit, FileEdited, FileEntry, FileList,
    FileListed, FileMove, FileMoved, FileRead, FileReadEnd, FileReading, FileSearch, FileSearched,
    FileStat, FileTime, FileType, FileWrite, FileWritten, Match, MatchedLine, Occurrences, Pattern,
    ReadRange, SearchCursor, SearchTally,
};
use pyro_protocol::frame::header;
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::kept::{
    FollowEnd, FollowProcess, FollowingProcess, ForgetProcess, KeepProcess, KeptProcess,
    ListProcesses, OutputStream, PollProcess, PollUntil, ProcessForgotten, ProcessId, ProcessKept,
    ProcessList, ProcessPolled, ProcessSignaled, ProcessState, ProcessWritten, SignalProcess,
    Skipped, Slice, WriteProcess,
};
use pyro_protocol::power::{
    Activate, Activated, ClockShifted, DiskSynced, Ping, Pong, PowerOff, PoweringOff, ShiftClock,
    SyncDisk,
};
use pyro_protocol::process::{Exit, Outcome, ProcessStarted, Signal, StartProcess, StdinTaken};
use pyro_protocol::push::{
    Push, PushAction, PushChange, PushCompared, PushContent, PushEnd, PushEntry, PushKind,
};
use pyro_protocol::secret::{Secret, SecretsSet, SetSecrets};
use pyro_protocol::shell::{
    AttachShell, CloseShell, ListShells, OpenShell, ReadShell, ReadUntil, ResizeShell, Shell,
    ShellAttached, ShellClosed, ShellId, ShellList, ShellOpened, ShellRead, ShellResized,
    ShellSignaled, ShellState, ShellWritten, SignalShell, TerminalSize, WriteShell,
};
use pyro_protocol::{
    AgentError, AgentErrorKind, ByteString, Call, FrameKind, Generation, GuestPath, Hello, Welcome,
    codec,
};
use serde::Serialize;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded<T: Serialize>(value: &T) -> String {
    hex(&codec::encode(value).expect("it encodes"))
}

#[test]
fn headers() {
    let golden: Vec<_> = FrameKind::ALL
        .iter()
        .map(|kind| {
            format!("{} {} {}", kind.name(), kind.limit(), hex(&header(*kind, kind.limit())))
        })
        .collect();
    let expected = [
        "Hello 64 0100000040000000",
        "Welcome 1024 0200000000040000",
        "Call 4194304 0300000000004000",
        "Reply 1048576 0400000000001000",
        "Error 16384 0500000000400000",
        "Announcement 1024 0600000000040000",
        "Stdin 65536 1000000000000100",
        "StdinEnd 0 1100000000000000",
        "Stdout 65536 1200000000000100",
        "Stderr 65536 1300000000000100",
        "Exit 64 1400000040000000",
        "Signal 8 1500000008000000",
        "StdinTaken 8 1600000008000000",
        "Data 65536 1700000000000100",
        "DataEnd 65536 1800000000000100",
        "Skipped 16 1900000010000000",
        "Resize 8 1a00000008000000",
    ];
    assert_eq!(golden, expected);
}

#[test]
fn handshake() {
    let generation = Generation(1);
    assert_eq!(encoded(&Hello { magic: MAGIC, generation }), "7079726f01");
    let welcome = Welcome {
        magic: MAGIC,
        generation,
        agent_version: "0.1.0".to_owned(),
        clock_ns: 1_700_000_000_000_000_000,
        activated: true,
    };
    assert_eq!(encoded(&welcome), "7079726f0105302e312e30fd0000546cfc392f2f01");
    let announcement = Announcement { magic: MAGIC, generation, uptime_us: 640_000 };
    assert_eq!(encoded(&announcement), "7079726f01fc00c40900");
}

#[test]
fn calls() {
    let start = StartProcess {
        argv: vec!["sh".into(), ByteString(vec![0xff])],
        cwd: Some(GuestPath::new("src").expect("a path")),
        env: vec![("A".into(), "1".into())],
        user: Some("dev:dev".to_owned()),
        stdin: true,
        timeout_ms: Some(30_000),
    };
    let bare = StartProcess {
        argv: vec!["true".into()],
        cwd: None,
        env: Vec::new(),
        user: None,
        stdin: false,
        timeout_ms: None,
    };
    let activate = Activate {
        entropy: ByteString(vec![0xaa; 4]),
        clock_offset_ns: -1,
        hostname: "w".to_owned(),
        machine_id: "00".to_owned(),
        seeded: true,
    };
    assert_eq!(encoded(&Call::Ping(Ping)), "00");
    assert_eq!(encoded(&Call::Activate(activate)), "0104aaaaaaaa01017702303001");
    assert_eq!(encoded(&Call::PowerOff(PowerOff { grace_ms: 5000 })), "02fb8813");
    assert_eq!(
        encoded(&Call::StartProcess(start)),
        [
            "0302",
            "027368",
            "01ff",
            "0103737263",
            "0101410131",
            "01076465763a646576",
            "01",
            "01fb3075"
        ]
        .concat()
    );
    assert_eq!(encoded(&Call::StartProcess(bare)), "030104747275650000000000");
}

#[test]
fn calls_of_files() {
    let path = || GuestPath::new("a").expect("a path");
    let call = |call: Call| encoded(&call);
    assert_eq!(call(FileStat { path: path() }.into()), "0b0161");
    let list = FileList { path: path(), recursive: true, after: Some(path()), limit: 1000 };
    assert_eq!(call(list.into()), "0c016101010161fbe803");
    let range = ReadRange::Lines { first: 2, count: Some(3) };
    let read = FileRead { path: path(), range, max_bytes: Some(9) };
    assert_eq!(call(read.into()), "0d0161010201030109");
    let range = ReadRange::From { offset: 4 };
    let read = FileRead { path: path(), range, max_bytes: None };
    assert_eq!(call(read.into()), "0d0161000400");
    let write = FileWrite { path: path(), disposition: Disposition::CreateNew, mode: Some(0o755) };
    assert_eq!(call(write.into()), "0e01610201fbed01");
    let edit = |occurrences| Edit { old: "o".into(), new: "n".into(), occurrences };
    let edits = vec![edit(Occurrences::Exactly(1)), edit(Occurrences::All)];
    assert_eq!(call(FileEdit { path: path(), edits }.into()), "0f016102016f016e0001016f016e01");
    assert_eq!(call(FileDelete { path: path(), recursive: true }.into()), "10016101");
    assert_eq!(call(FileMove { from: path(), to: path(), replace: false }.into()), "110161016100");
    let search = FileSearch {
        path: path(),
        pattern: Some(Pattern { text: "x".to_owned(), literal: true, ignore_case: false }),
        include: vec!["*".to_owned()],
        exclude: Vec::new(),
        git: false,
        after: Some(SearchCursor { path: path(), line: Some(7) }),
        limit: 1,
        max_file_bytes: 2,
    };
    assert_eq!(
        call(search.into()),
        ["120161", "0101780100", "01012a", "00", "00", "0101610107", "01", "02"].concat()
    );
    assert_eq!(call(Export { path: path(), attributes: false }.into()), "13016100");
    let push = Push { dest: path(), delete: true, dry_run: false, checksum: true };
    assert_eq!(call(push.into()), "140161010001");
}

#[test]
fn of_files() {
    let path = || GuestPath::new("/a").expect("a path");
    let modified = FileTime { seconds: -1, nanoseconds: 5 };
    let entry = FileEntry {
        path: path(),
        file_type: FileType::Symlink,
        size_bytes: 1,
        mode: 0o777,
        modified,
        links: 1,
        uid: 0,
        gid: 0,
        link_target: Some("b".into()),
    };
    let bytes = ["022f61", "02", "01", "fbff01", "0105", "01", "00", "00", "010162"].concat();
    assert_eq!(encoded(&entry), bytes);
    let listed = FileListed { entries: vec![entry], next: None, too_deep: 3 };
    assert_eq!(encoded(&listed), format!("01{bytes}0003"));
    let types: Vec<_> = crate::any::FILE_TYPES.iter().map(encoded).collect();
    assert_eq!(types, ["00", "01", "02", "03", "04", "05"]);
    assert_eq!(encoded(&FileReading { size_bytes: 6 }), "06");
    let end = FileReadEnd { offset: 1, truncated: true, next_offset: Some(2) };
    assert_eq!(encoded(&end), "01010102");
    let written = FileWritten { size_bytes: 1, bytes_written: 2, mode: 3, created: true };
    assert_eq!(encoded(&written), "01020301");
    let edited = FileEdited { replacements: 1, first_line: 2, size_bytes: 3 };
    assert_eq!(encoded(&edited), "010203");
    assert_eq!(encoded(&FileDeleted), "");
    assert_eq!(encoded(&FileMoved), "");
    let line = MatchedLine { number: 1, start: 2, text: "x".into(), cut: true };
    let searched = FileSearched {
        matches: vec![Match { path: path(), line: Some(line) }],
        next: Some(SearchCursor { path: path(), line: None }),
        tally: SearchTally { files: 1, binary: 2, too_large: 3, unreadable: 4 },
    };
    assert_eq!(
        encoded(&searched),
        ["01", "022f61", "01", "0102", "0178", "01", "01", "022f61", "00", "01020304"].concat()
    );
}

#[test]
fn of_trees() {
    let modified = FileTime { seconds: 1, nanoseconds: 0 };
    let export = |kind| {
        let entry = ExportEntry { path: "a".into(), mode: 1, modified, kind, attributes: None };
        encoded(&entry)
    };
    assert_eq!(export(ExportKind::File { size_bytes: 9 }), "0161010200000900");
    assert_eq!(export(ExportKind::Directory), "01610102000100");
    assert_eq!(export(ExportKind::Symlink("b".into())), "016101020002016200");
    assert_eq!(export(ExportKind::HardLink("b".into())), "016101020003016200");
    assert_eq!(encoded(&Exporting { file_type: FileType::Directory }), "01");
    let path = GuestPath::new("/a").expect("a path");
    let examples = vec![path.clone()];
    let end = ExportEnd { entries: 1, special: 2, torn: 3, too_deep: 4, unattributed: 5, examples };
    assert_eq!(encoded(&end), "010203040501022f61");
    let push = |kind| encoded(&PushEntry { path: "a".into(), mode: 1, modified, kind });
    assert_eq!(push(PushKind::File { size_bytes: 9 }), "01610102000009");
    assert_eq!(push(PushKind::Directory), "016101020001");
    assert_eq!(push(PushKind::Symlink("b".into())), "0161010200020162");
    assert_eq!(push(PushKind::HardLink { path: "b".into(), file: 7 }), "016101020003016207");
    assert_eq!(encoded(&PushCompared { entries: 1, open: 2 }), "0102");
    assert_eq!(encoded(&PushContent { number: 3, mode: 1, modified }), "03010200");
    let actions =
        [PushAction::Created, PushAction::Updated, PushAction::Attributes, PushAction::Deleted];
    let changes: Vec<_> = actions
        .iter()
        .map(|action| encoded(&PushChange { path: path.clone(), action: *action }))
        .collect();
    assert_eq!(changes, ["022f6100", "022f6101", "022f6102", "022f6103"]);
    let end = PushEnd { created: 1, updated: 2, attributes: 3, deleted: 4, bytes_written: 5 };
    assert_eq!(encoded(&end), "0102030405");
}

#[test]
fn replies() {
    assert_eq!(encoded(&Pong), "");
    assert_eq!(encoded(&Activated { took_us: 250 }), "fa");
    assert_eq!(encoded(&PoweringOff), "");
    assert_eq!(encoded(&ClockShifted), "");
    assert_eq!(encoded(&ProcessStarted { pid: 70_000 }), "fc70110100");
    let error = AgentError::new(AgentErrorKind::UserNotFound, "who");
    assert_eq!(encoded(&error), "050377686f");
}

#[test]
fn of_a_clock() {
    let shift = |offset_ns| encoded(&Call::ShiftClock(ShiftClock { offset_ns }));
    assert_eq!(shift(1), "1702");
    assert_eq!(shift(-1), "1701");
}

#[test]
fn of_a_disk() {
    assert_eq!(encoded(&Call::SyncDisk(SyncDisk)), "2b");
    assert_eq!(encoded(&DiskSynced), "");
}

#[test]
fn of_a_network() {
    let expected = concat!(
        "210a707902fd7079726f0000000000000000000002",
        "0a707901fd7079726f0000000000000000000001fbdcff"
    );
    let encoded_call = |call| encoded(&Call::OpenGateway(call));
    assert_eq!(encoded_call(OpenGateway::usual()), format!("{expected}00"));
    assert_eq!(encoded_call(OpenGateway::over_nic()), format!("{expected}01027079726f02"));
    assert_eq!(encoded(&GatewayOpened), "");
}

#[test]
fn of_secrets() {
    let secret = Secret { name: "A".into(), value: "xy".into() };
    let call = Call::SetSecrets(SetSecrets { secrets: vec![secret] });
    assert_eq!(encoded(&call), "2a010141027879");
    assert_eq!(encoded(&SecretsSet), "");
    // Whoever prints a call prints no secret.
    assert!(!format!("{call:?}").contains("xy"));
}

#[test]
fn of_a_diff_and_a_patch() {
    let path = || GuestPath::new("x").expect("a path");
    let diff = Diff { scope: DiffScope::System, paths: vec![path()], detail: DiffDetail::Patch };
    assert_eq!(encoded(&Call::Diff(diff)), "150101017802");
    assert_eq!(encoded(&DiffStarted), "");
    let entry = DiffEntry {
        path: path(),
        old_path: Some(path()),
        status: DiffStatus::Renamed,
        artifact: Artifact::File,
        old_mode: Some(0o100_644),
        new_mode: None,
        content: DiffContent::Text { insertions: 1, deletions: 2 },
    };
    let records = vec![DiffRecord::Entry(entry), DiffRecord::Patch("p".into())];
    assert_eq!(encoded(&records), "02000178010178040001fba48100010102010170");
    let summary = DiffSummary { total: 300, renames_skipped: true, ..DiffSummary::default() };
    assert_eq!(encoded(&summary), "fb2c0100000000000000000100");
    let apply = ApplyPatch { strip: Some(1), dry_run: true, reverse: false };
    assert_eq!(encoded(&Call::ApplyPatch(apply)), "1601010100");
    let applied = PatchApplied {
        entries: vec![Patched { path: path(), status: DiffStatus::Added }],
        total: 1,
        added: 1,
        modified: 0,
        deleted: 0,
        renamed: 0,
    };
    assert_eq!(encoded(&applied), "010178000101000000");
}

#[test]
fn error_kinds() {
    let bytes: Vec<_> = crate::any::ERROR_KINDS.iter().map(encoded).collect();
    let expected: Vec<_> = (0..bytes.len()).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn of_a_process() {
    let exit = |outcome| encoded(&Exit { outcome, took_us: 1000 });
    assert_eq!(exit(Outcome::Exited { code: 3 }), "0003fbe803");
    assert_eq!(exit(Outcome::Signaled { signal: 9 }), "0109fbe803");
    assert_eq!(exit(Outcome::TimedOut), "02fbe803");
    assert_eq!(encoded(&Signal { number: 15 }), "0f");
    assert_eq!(encoded(&StdinTaken { bytes: 65_536 }), "fc00000100");
}

#[test]
fn calls_about_kept_processes() {
    let id = ProcessId([1, 2, 3, 4, 5, 6]);
    let program = StartProcess {
        argv: vec!["true".into()],
        cwd: None,
        env: Vec::new(),
        user: None,
        stdin: false,
        timeout_ms: None,
    };
    let poll = PollProcess {
        id,
        stdout_cursor: 7,
        stderr_cursor: 70_000,
        max_bytes: 16,
        wait_ms: 45_000,
        until: PollUntil::End,
    };
    let follow = FollowProcess { id, stdout_cursor: 7, stderr_cursor: 8 };
    let write = WriteProcess { id, data: "hi".into(), end: true, wait_ms: 10 };
    let cases = [
        (Call::KeepProcess(KeepProcess { program }), "040104747275650000000000"),
        (Call::ListProcesses(ListProcesses), "05"),
        (Call::PollProcess(poll), "0601020304050607fc7011010010fbc8af01"),
        (Call::FollowProcess(follow), "070102030405060708"),
        (Call::WriteProcess(write), "08010203040506026869010a"),
        (Call::SignalProcess(SignalProcess { id, number: 9 }), "0901020304050609"),
        (Call::ForgetProcess(ForgetProcess { id }), "0a010203040506"),
    ];
    for (call, expected) in cases {
        assert_eq!(encoded(&call), expected, "{}", call.name());
    }
}

#[test]
fn replies_about_kept_processes() {
    let id = ProcessId([1, 2, 3, 4, 5, 6]);
    let ended =
        ProcessState::Ended { exit: Exit { outcome: Outcome::Exited { code: 3 }, took_us: 9 } };
    let slice = |data: &str| Slice { oldest: 1, start: 2, data: data.into(), end: 4 };
    let kept = KeptProcess {
        id,
        argv: vec!["true".into()],
        started_at_ns: 1,
        state: ProcessState::Running { pid: 5 },
        stdout_bytes: 6,
        stderr_bytes: 7,
    };
    let polled = ProcessPolled { state: ended, stdout: slice("hi"), stderr: slice("") };
    assert_eq!(encoded(&ProcessKept { id, pid: 5 }), "01020304050605");
    assert_eq!(
        encoded(&ProcessList { processes: vec![kept] }),
        "010102030405060104747275650200050607"
    );
    assert_eq!(encoded(&polled), "0100030901020268690401020004");
    assert_eq!(encoded(&FollowingProcess), "");
    assert_eq!(encoded(&ProcessWritten { taken: 3, ended: true }), "0301");
    assert_eq!(encoded(&ProcessSignaled), "");
    assert_eq!(encoded(&ProcessForgotten { state: ProcessState::Lost }), "02");
    assert_eq!(encoded(&FollowEnd { state: ended }), "01000309");
    assert_eq!(encoded(&Skipped { stream: OutputStream::Stderr, bytes: 5 }), "0105");
}

#[test]
fn calls_about_shells() {
    let id = ShellId([1, 2, 3, 4, 5, 6]);
    let size = TerminalSize { cols: 120, rows: 30 };
    let open = OpenShell {
        argv: vec!["sh".into()],
        cwd: Some(GuestPath::new("src").expect("a path")),
        env: vec![("A".into(), "1".into())],
        user: Some("dev".to_owned()),
        size,
        joined: true,
    };
    let read = |until| ReadShell { id, cursor: 7, max_bytes: 16, wait_ms: 45_000, until };
    let write = WriteShell { id, data: "hi".into(), wait_ms: 10 };
    let cases = [
        (Call::OpenShell(open), "220102736801037372630101410131010364657678 1e 01"),
        (Call::ListShells(ListShells), "23"),
        (Call::ReadShell(read(ReadUntil::Output)), "24 010203040506 07 10 fbc8af 00"),
        (Call::ReadShell(read(ReadUntil::Idle { ms: 9 })), "24 010203040506 07 10 fbc8af 01 09"),
        (Call::WriteShell(write), "25 010203040506 026869 0a"),
        (Call::SignalShell(SignalShell { id, number: 9 }), "26 010203040506 09"),
        (Call::ResizeShell(ResizeShell { id, size }), "27 010203040506 78 1e"),
        (Call::CloseShell(CloseShell { id }), "28 010203040506"),
        (
            Call::AttachShell(AttachShell { id, cursor: 5, size: Some(size) }),
            "29 010203040506 05 01 78 1e",
        ),
    ];
    for (call, expected) in cases {
        assert_eq!(encoded(&call), expected.replace(' ', ""), "{}", call.name());
    }
}

#[test]
fn replies_about_shells() {
    let state = ShellState::Running { pid: 5 };
    let shell = |state| Shell {
        id: ShellId([1, 2, 3, 4, 5, 6]),
        cwd: GuestPath::new("/").expect("a path"),
        size: TerminalSize { cols: 120, rows: 30 },
        started_at_ns: 1,
        state,
        output_bytes: 6,
    };
    let exit = Exit { outcome: Outcome::Exited { code: 3 }, took_us: 9 };
    let running = "010203040506 012f 78 1e 02 00 05 06".replace(' ', "");
    let ended = "010203040506 012f 78 1e 02 01 00 03 09 04 06".replace(' ', "");
    assert_eq!(encoded(&ShellOpened { shell: shell(state) }), running);
    assert_eq!(encoded(&ShellSignaled { shell: shell(state) }), running);
    assert_eq!(encoded(&ShellResized { shell: shell(state) }), running);
    assert_eq!(encoded(&ShellAttached { shell: shell(state) }), running);
    let over = ShellState::Ended { exit, ended_at_ns: 2 };
    assert_eq!(encoded(&ShellClosed { shell: shell(over) }), ended);
    assert_eq!(encoded(&ShellList { shells: vec![shell(over)] }), format!("01{ended}"));
    assert_eq!(encoded(&ShellWritten { shell: shell(state), taken: 3 }), format!("{running}03"));
    let output = Slice { oldest: 1, start: 2, data: "hi".into(), end: 4 };
    let read = ShellRead { shell: shell(state), output, idle: true };
    assert_eq!(encoded(&read), format!("{running}010202686904 01").replace(' ', ""));
}

#[test]
fn opening_of_a_channel() {
    crate::pieces::block_on(async {
        let (mut raw, mut io) = tokio::io::duplex(256 * 1024);
        let side = Side::Host { nonce: 0x0102_0304_0506_0708, before: Before::Nothing };
        let opening = async {
            let mut sync = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut raw, &mut sync).await.expect("SYNC");
            tokio::io::AsyncWriteExt::write_all(&mut raw, &sync).await.expect("room");
            hex(&sync)
        };
        let (sync, channel) = tokio::join!(opening, connect(&mut io, side));
        assert!(channel.is_ok());
        assert_eq!(sync, "ff7079726f73796e0807060504030201");
    });
}
