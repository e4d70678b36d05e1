//! Any value of each type that crosses the wire.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pyro_protocol::handshake::Announcement;
use pyro_protocol::kept::{
    FollowEnd, FollowProcess, ForgetProcess, KeepProcess, KeptProcess, ListProcesses, OutputStream,
    PollProcess, PollUntil, ProcessForgotten, ProcessId, ProcessKept, ProcessList, ProcessPolled,
    ProcessState, ProcessWritten, SignalProcess, Skipped, Slice, WriteProcess,
};
use pyro_protocol::power::{Activate, Activated, Ping, PowerOff};
use pyro_protocol::process::{Exit, Outcome, ProcessStarted, Signal, StartProcess, StdinTaken};
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

pub fn skipped() -> impl Strategy<Value = Skipped> {
    let stream = prop_oneof![Just(OutputStream::Stdout), Just(OutputStream::Stderr)];
    (stream, any::<u64>()).prop_map(|(stream, bytes)| Skipped { stream, bytes })
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
    ]
}
