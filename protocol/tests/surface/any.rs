//! Any value of each type that crosses the wire.

mod diff;
mod egress;
mod export;
mod inspect;
mod secret;
mod service;
mod shell;

pub use diff::{apply_patch, diff, diff_records, diff_summary, patch_applied};
pub use egress::open_gateway;
pub use export::{export, export_end, export_entry, exporting};
pub use inspect::{copy_end, copy_progress, inspect_call, tree_measured};
pub use secret::set_secrets;
pub use service::{
    http_url, log_chunk, readiness, service, service_call, service_counts, service_list,
    service_logging, service_name, tcp_address,
};
pub use shell::{
    shell_attached, shell_call, shell_closed, shell_id, shell_list, shell_opened, shell_read,
    shell_resized, shell_signaled, shell_written, terminal_size,
};

use proptest::prelude::*;
use proptest::{collection::vec, option};
use pyro_protocol::file::{
    Disposition, Edit, FileDelete, FileEdit, FileEdited, FileEntry, FileList, FileListed, FileMove,
    FileRead, FileReadEnd, FileSearch, FileSearched, FileStat, FileTime, FileType, FileWrite,
    FileWritten, Match, MatchedLine, Occurrences, Pattern, ReadRange, SearchCursor, SearchTally,
};
use pyro_protocol::handshake::Announcement;
use pyro_protocol::kept::{
    FollowEnd, FollowProcess, ForgetProcess, KeepProcess, KeptProcess, ListProcesses, OutputStream,
    PollProcess, PollUntil, ProcessForgotten, ProcessId, ProcessKept, ProcessList, ProcessPolled,
    ProcessState, ProcessWritten, SignalProcess, Skipped, Slice, WriteProcess,
};
use pyro_protocol::power::{Activate, Activated, Ping, PowerOff, ShiftClock, SyncDisk};
use pyro_protocol::process::{Exit, Outcome, ProcessStarted, Signal, StartProcess, StdinTaken};
use pyro_protocol::push::{
    Push, PushAction, PushChange, PushCompared, PushContent, PushEnd, PushEntry, PushKind,
};
use pyro_protocol::{
    AgentError, AgentErrorKind, ByteString, Call, Generation, GuestPath, Hello, Welcome,
};

pub fn byte_string() -> impl Strategy<Value = ByteString> {
    vec(any::<u8>(), 0..40).prop_map(ByteString)
}

pub fn guest_path() -> impl Strategy<Value = GuestPath> {
    vec(1..=u8::MAX, 1..40).prop_map(|bytes| GuestPath::new(bytes).expect("no NUL in it"))
}

fn generation() -> impl Strategy<Value = Generation> {
    any::<u16>().prop_map(Generation)
}

pub fn hello() -> impl Strategy<Value = Hello> {
    (any::<[u8; 4]>(), generation()).prop_map(|(magic, generation)| Hello { magic, generation })
}

pub fn welcome() -> impl Strategy<Value = Welcome> {
    (any::<[u8; 4]>(), generation(), ".{0,20}", any::<i64>(), any::<bool>()).prop_map(
        |(magic, generation, agent_version, clock_ns, activated)| Welcome {
            magic,
            generation,
            agent_version,
            clock_ns,
            activated,
        },
    )
}

pub fn announcement() -> impl Strategy<Value = Announcement> {
    (any::<[u8; 4]>(), generation(), any::<u64>())
        .prop_map(|(magic, generation, uptime_us)| Announcement { magic, generation, uptime_us })
}

pub fn activate() -> impl Strategy<Value = Activate> {
    (byte_string(), any::<i64>(), ".{0,20}", ".{0,40}", any::<bool>()).prop_map(
        |(entropy, clock_offset_ns, hostname, machine_id, seeded)| Activate {
            entropy,
            clock_offset_ns,
            hostname,
            machine_id,
            seeded,
        },
    )
}

pub fn activated() -> impl Strategy<Value = Activated> {
    any::<u64>().prop_map(|took_us| Activated { took_us })
}

pub fn start_process() -> impl Strategy<Value = StartProcess> {
    (
        vec(byte_string(), 0..5),
        option::of(guest_path()),
        vec((byte_string(), byte_string()), 0..4),
        option::of(".{0,10}"),
        any::<bool>(),
        option::of(any::<u64>()),
    )
        .prop_map(|(argv, cwd, env, user, stdin, timeout_ms)| StartProcess {
            argv,
            cwd,
            env,
            user,
            stdin,
            timeout_ms,
        })
}

pub fn process_started() -> impl Strategy<Value = ProcessStarted> {
    any::<u32>().prop_map(|pid| ProcessStarted { pid })
}

pub fn stdin_taken() -> impl Strategy<Value = StdinTaken> {
    any::<u32>().prop_map(|bytes| StdinTaken { bytes })
}

pub fn signal() -> impl Strategy<Value = Signal> {
    any::<u8>().prop_map(|number| Signal { number })
}

pub fn exit() -> impl Strategy<Value = Exit> {
    let outcome = prop_oneof![
        any::<u8>().prop_map(|code| Outcome::Exited { code }),
        any::<u8>().prop_map(|signal| Outcome::Signaled { signal }),
        Just(Outcome::TimedOut),
    ];
    (outcome, any::<u64>()).prop_map(|(outcome, took_us)| Exit { outcome, took_us })
}

pub fn process_id() -> impl Strategy<Value = ProcessId> {
    any::<[u8; 6]>().prop_map(ProcessId)
}

pub fn process_kept() -> impl Strategy<Value = ProcessKept> {
    (process_id(), any::<u32>()).prop_map(|(id, pid)| ProcessKept { id, pid })
}

fn process_state() -> impl Strategy<Value = ProcessState> {
    prop_oneof![
        any::<u32>().prop_map(|pid| ProcessState::Running { pid }),
        exit().prop_map(|exit| ProcessState::Ended { exit }),
        Just(ProcessState::Lost),
    ]
}

fn kept_process() -> impl Strategy<Value = KeptProcess> {
    let bytes = any::<(u64, u64)>();
    (process_id(), vec(byte_string(), 0..4), any::<i64>(), process_state(), bytes).prop_map(
        |(id, argv, started_at_ns, state, (stdout_bytes, stderr_bytes))| KeptProcess {
            id,
            argv,
            started_at_ns,
            state,
            stdout_bytes,
            stderr_bytes,
        },
    )
}

pub fn process_list() -> impl Strategy<Value = ProcessList> {
    vec(kept_process(), 0..4).prop_map(|processes| ProcessList { processes })
}

fn slice() -> impl Strategy<Value = Slice> {
    (any::<u64>(), any::<u64>(), byte_string(), any::<u64>())
        .prop_map(|(oldest, start, data, end)| Slice { oldest, start, data, end })
}

pub fn process_polled() -> impl Strategy<Value = ProcessPolled> {
    (process_state(), slice(), slice()).prop_map(|(state, stdout, stderr)| ProcessPolled {
        state,
        stdout,
        stderr,
    })
}

pub fn process_written() -> impl Strategy<Value = ProcessWritten> {
    any::<(u32, bool)>().prop_map(|(taken, ended)| ProcessWritten { taken, ended })
}

pub fn process_forgotten() -> impl Strategy<Value = ProcessForgotten> {
    process_state().prop_map(|state| ProcessForgotten { state })
}

fn output_stream() -> impl Strategy<Value = OutputStream> {
    prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)]
}

pub fn skipped() -> impl Strategy<Value = Skipped> {
    (output_stream(), any::<u64>()).prop_map(|(stream, bytes)| Skipped { stream, bytes })
}

pub fn follow_end() -> impl Strategy<Value = FollowEnd> {
    process_state().prop_map(|state| FollowEnd { state })
}

fn poll_process() -> impl Strategy<Value = PollProcess> {
    let until = prop_oneof![Just(PollUntil::Output), Just(PollUntil::End)];
    (process_id(), any::<(u64, u64, u32, u32)>(), until).prop_map(
        |(id, (stdout_cursor, stderr_cursor, max_bytes, wait_ms), until)| PollProcess {
            id,
            stdout_cursor,
            stderr_cursor,
            max_bytes,
            wait_ms,
            until,
        },
    )
}

fn follow_process() -> impl Strategy<Value = FollowProcess> {
    (process_id(), any::<(u64, u64)>()).prop_map(|(id, (stdout_cursor, stderr_cursor))| {
        FollowProcess { id, stdout_cursor, stderr_cursor }
    })
}

fn write_process() -> impl Strategy<Value = WriteProcess> {
    (process_id(), byte_string(), any::<(bool, u32)>())
        .prop_map(|(id, data, (end, wait_ms))| WriteProcess { id, data, end, wait_ms })
}

pub const ERROR_KINDS: [AgentErrorKind; 16] = [
    AgentErrorKind::InvalidArgument,
    AgentErrorKind::WrongState,
    AgentErrorKind::ProgramNotFound,
    AgentErrorKind::ProgramNotExecutable,
    AgentErrorKind::DirectoryNotFound,
    AgentErrorKind::UserNotFound,
    AgentErrorKind::OutOfResources,
    AgentErrorKind::Unsupported,
    AgentErrorKind::Protocol,
    AgentErrorKind::System,
    AgentErrorKind::NotFound,
    AgentErrorKind::AlreadyExists,
    AgentErrorKind::WrongFileType,
    AgentErrorKind::OutOfTree,
    AgentErrorKind::Conflict,
    AgentErrorKind::TooLarge,
];

pub fn agent_error() -> impl Strategy<Value = AgentError> {
    (proptest::sample::select(&ERROR_KINDS), ".{0,60}")
        .prop_map(|(kind, message)| AgentError::new(kind, message))
}

pub fn file_time() -> impl Strategy<Value = FileTime> {
    (any::<i64>(), any::<u32>())
        .prop_map(|(seconds, nanoseconds)| FileTime { seconds, nanoseconds })
}

pub fn file_type() -> impl Strategy<Value = FileType> {
    proptest::sample::select(&FILE_TYPES)
}

pub const FILE_TYPES: [FileType; 6] = [
    FileType::File,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::Device,
];

pub fn file_entry() -> impl Strategy<Value = FileEntry> {
    (
        (guest_path(), file_type(), any::<u64>(), any::<u32>(), file_time()),
        (any::<u32>(), any::<u32>(), any::<u32>(), option::of(byte_string())),
    )
        .prop_map(
            |((path, file_type, size_bytes, mode, modified), (links, uid, gid, link_target))| {
                FileEntry {
                    path,
                    file_type,
                    size_bytes,
                    mode,
                    modified,
                    links,
                    uid,
                    gid,
                    link_target,
                }
            },
        )
}

pub fn file_list() -> impl Strategy<Value = FileList> {
    (guest_path(), any::<bool>(), option::of(guest_path()), any::<u32>())
        .prop_map(|(path, recursive, after, limit)| FileList { path, recursive, after, limit })
}

pub fn file_listed() -> impl Strategy<Value = FileListed> {
    (vec(file_entry(), 0..4), option::of(guest_path()), any::<u32>())
        .prop_map(|(entries, next, too_deep)| FileListed { entries, next, too_deep })
}

pub fn file_read() -> impl Strategy<Value = FileRead> {
    let range = prop_oneof![
        any::<u64>().prop_map(|offset| ReadRange::From { offset }),
        (any::<u64>(), any::<Option<u64>>())
            .prop_map(|(first, count)| ReadRange::Lines { first, count }),
    ];
    (guest_path(), range, any::<Option<u64>>()).prop_map(|(path, range, max_bytes)| FileRead {
        path,
        range,
        max_bytes,
    })
}

pub fn file_read_end() -> impl Strategy<Value = FileReadEnd> {
    (any::<u64>(), any::<bool>(), any::<Option<u64>>())
        .prop_map(|(offset, truncated, next_offset)| FileReadEnd { offset, truncated, next_offset })
}

pub fn file_write() -> impl Strategy<Value = FileWrite> {
    let disposition = prop_oneof![
        Just(Disposition::Replace),
        Just(Disposition::Append),
        Just(Disposition::CreateNew)
    ];
    (guest_path(), disposition, any::<Option<u32>>())
        .prop_map(|(path, disposition, mode)| FileWrite { path, disposition, mode })
}

pub fn file_written() -> impl Strategy<Value = FileWritten> {
    (any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>()).prop_map(
        |(size_bytes, bytes_written, mode, created)| FileWritten {
            size_bytes,
            bytes_written,
            mode,
            created,
        },
    )
}

pub fn file_edit() -> impl Strategy<Value = FileEdit> {
    let occurrences =
        prop_oneof![any::<u32>().prop_map(Occurrences::Exactly), Just(Occurrences::All)];
    let edit = (byte_string(), byte_string(), occurrences)
        .prop_map(|(old, new, occurrences)| Edit { old, new, occurrences });
    (guest_path(), vec(edit, 0..4)).prop_map(|(path, edits)| FileEdit { path, edits })
}

pub fn file_edited() -> impl Strategy<Value = FileEdited> {
    (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(replacements, first_line, size_bytes)| {
        FileEdited { replacements, first_line, size_bytes }
    })
}

fn search_cursor() -> impl Strategy<Value = SearchCursor> {
    (guest_path(), any::<Option<u64>>()).prop_map(|(path, line)| SearchCursor { path, line })
}

pub fn file_search() -> impl Strategy<Value = FileSearch> {
    let pattern = (".{0,10}", any::<bool>(), any::<bool>())
        .prop_map(|(text, literal, ignore_case)| Pattern { text, literal, ignore_case });
    (
        (guest_path(), option::of(pattern), vec(".{0,10}", 0..3), vec(".{0,10}", 0..3)),
        (any::<bool>(), option::of(search_cursor()), any::<u32>(), any::<u64>()),
    )
        .prop_map(
            |((path, pattern, include, exclude), (git, after, limit, max_file_bytes))| FileSearch {
                path,
                pattern,
                include,
                exclude,
                git,
                after,
                limit,
                max_file_bytes,
            },
        )
}

pub fn file_searched() -> impl Strategy<Value = FileSearched> {
    let line = (any::<u64>(), any::<u64>(), byte_string(), any::<bool>())
        .prop_map(|(number, start, text, cut)| MatchedLine { number, start, text, cut });
    let found = (guest_path(), option::of(line)).prop_map(|(path, line)| Match { path, line });
    let tally = any::<[u64; 4]>().prop_map(|[files, binary, too_large, unreadable]| SearchTally {
        files,
        binary,
        too_large,
        unreadable,
    });
    (vec(found, 0..4), option::of(search_cursor()), tally)
        .prop_map(|(matches, next, tally)| FileSearched { matches, next, tally })
}

fn push() -> impl Strategy<Value = Push> {
    (guest_path(), any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(dest, delete, dry_run, checksum)| Push { dest, delete, dry_run, checksum })
}

pub fn push_entry() -> impl Strategy<Value = PushEntry> {
    let kind = prop_oneof![
        any::<u64>().prop_map(|size_bytes| PushKind::File { size_bytes }),
        Just(PushKind::Directory),
        byte_string().prop_map(PushKind::Symlink),
        (byte_string(), any::<u64>()).prop_map(|(path, file)| PushKind::HardLink { path, file }),
    ];
    (byte_string(), any::<u32>(), file_time(), kind)
        .prop_map(|(path, mode, modified, kind)| PushEntry { path, mode, modified, kind })
}

pub fn push_compared() -> impl Strategy<Value = PushCompared> {
    (any::<u64>(), any::<u64>()).prop_map(|(entries, open)| PushCompared { entries, open })
}

pub fn push_content() -> impl Strategy<Value = PushContent> {
    (any::<u64>(), any::<u32>(), file_time()).prop_map(|(number, mode, modified)| PushContent {
        number,
        mode,
        modified,
    })
}

pub fn push_change() -> impl Strategy<Value = PushChange> {
    let action = proptest::sample::select(&[
        PushAction::Created,
        PushAction::Updated,
        PushAction::Attributes,
        PushAction::Deleted,
    ]);
    (guest_path(), action).prop_map(|(path, action)| PushChange { path, action })
}

pub fn push_end() -> impl Strategy<Value = PushEnd> {
    any::<[u64; 5]>().prop_map(|[created, updated, attributes, deleted, bytes_written]| PushEnd {
        created,
        updated,
        attributes,
        deleted,
        bytes_written,
    })
}

pub fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        Just(Call::Ping(Ping)),
        activate().prop_map(Call::Activate),
        any::<u32>().prop_map(|grace_ms| Call::PowerOff(PowerOff { grace_ms })),
        start_process().prop_map(Call::StartProcess),
        start_process().prop_map(|program| Call::KeepProcess(KeepProcess { program })),
        Just(Call::ListProcesses(ListProcesses)),
        poll_process().prop_map(Call::PollProcess),
        follow_process().prop_map(Call::FollowProcess),
        write_process().prop_map(Call::WriteProcess),
        (process_id(), any::<u8>())
            .prop_map(|(id, number)| Call::SignalProcess(SignalProcess { id, number })),
        process_id().prop_map(|id| Call::ForgetProcess(ForgetProcess { id })),
        guest_path().prop_map(|path| Call::FileStat(FileStat { path })),
        file_list().prop_map(Call::FileList),
        file_read().prop_map(Call::FileRead),
        file_write().prop_map(Call::FileWrite),
        file_edit().prop_map(Call::FileEdit),
        (guest_path(), any::<bool>())
            .prop_map(|(path, recursive)| Call::FileDelete(FileDelete { path, recursive })),
        (guest_path(), guest_path(), any::<bool>())
            .prop_map(|(from, to, replace)| Call::FileMove(FileMove { from, to, replace })),
        file_search().prop_map(Call::FileSearch),
        export().prop_map(Call::Export),
        push().prop_map(Call::Push),
        diff().prop_map(Call::Diff),
        apply_patch().prop_map(Call::ApplyPatch),
        any::<i64>().prop_map(|offset_ns| Call::ShiftClock(ShiftClock { offset_ns })),
        service_call(),
        open_gateway().prop_map(Call::OpenGateway),
        shell_call(),
        prop_oneof![set_secrets().prop_map(Call::SetSecrets), Just(Call::SyncDisk(SyncDisk))],
        inspect_call(),
    ]
}
