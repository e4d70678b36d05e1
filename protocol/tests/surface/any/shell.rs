use super::{byte_string, exit, guest_path, slice};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pyro_protocol::Call;
use pyro_protocol::shell::{
    AttachShell, CloseShell, ListShells, OpenShell, ReadShell, ReadUntil, ResizeShell, Shell,
    ShellAttached, ShellClosed, ShellId, ShellList, ShellOpened, ShellRead, ShellResized,
    ShellSignaled, ShellState, ShellWritten, SignalShell, TerminalSize, WriteShell,
};

pub fn shell_id() -> impl Strategy<Value = ShellId> {
    any::<[u8; 6]>().prop_map(ShellId)
}

pub fn terminal_size() -> impl Strategy<Value = TerminalSize> {
    any::<(u16, u16)>().prop_map(|(cols, rows)| TerminalSize { cols, rows })
}

fn shell() -> impl Strategy<Value = Shell> {
    let state = prop_oneof![
        any::<u32>().prop_map(|pid| ShellState::Running { pid }),
        (exit(), any::<i64>())
            .prop_map(|(exit, ended_at_ns)| ShellState::Ended { exit, ended_at_ns }),
    ];
    (shell_id(), guest_path(), terminal_size(), any::<(i64, u64)>(), state).prop_map(
        |(id, cwd, size, (started_at_ns, output_bytes), state)| Shell {
            id,
            cwd,
            size,
            started_at_ns,
            state,
            output_bytes,
        },
    )
}

fn open_shell() -> impl Strategy<Value = OpenShell> {
    (
        vec(byte_string(), 0..4),
        option::of(guest_path()),
        vec((byte_string(), byte_string()), 0..4),
        option::of(".{0,10}"),
        terminal_size(),
        any::<bool>(),
    )
        .prop_map(|(argv, cwd, env, user, size, joined)| OpenShell {
            argv,
            cwd,
            env,
            user,
            size,
            joined,
        })
}

fn read_shell() -> impl Strategy<Value = ReadShell> {
    let until =
        prop_oneof![Just(ReadUntil::Output), any::<u32>().prop_map(|ms| ReadUntil::Idle { ms })];
    (shell_id(), any::<(u64, u32, u32)>(), until).prop_map(
        |(id, (cursor, max_bytes, wait_ms), until)| ReadShell {
            id,
            cursor,
            max_bytes,
            wait_ms,
            until,
        },
    )
}

pub fn shell_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        open_shell().prop_map(Call::OpenShell),
        Just(Call::ListShells(ListShells)),
        read_shell().prop_map(Call::ReadShell),
        (shell_id(), byte_string(), any::<u32>())
            .prop_map(|(id, data, wait_ms)| Call::WriteShell(WriteShell { id, data, wait_ms })),
        (shell_id(), any::<u8>())
            .prop_map(|(id, number)| Call::SignalShell(SignalShell { id, number })),
        (shell_id(), terminal_size())
            .prop_map(|(id, size)| Call::ResizeShell(ResizeShell { id, size })),
        shell_id().prop_map(|id| Call::CloseShell(CloseShell { id })),
        (shell_id(), any::<u64>(), option::of(terminal_size()))
            .prop_map(|(id, cursor, size)| Call::AttachShell(AttachShell { id, cursor, size })),
    ]
}

pub fn shell_opened() -> impl Strategy<Value = ShellOpened> {
    shell().prop_map(|shell| ShellOpened { shell })
}

pub fn shell_list() -> impl Strategy<Value = ShellList> {
    vec(shell(), 0..4).prop_map(|shells| ShellList { shells })
}

pub fn shell_read() -> impl Strategy<Value = ShellRead> {
    (shell(), slice(), any::<bool>()).prop_map(|(shell, output, idle)| ShellRead {
        shell,
        output,
        idle,
    })
}

pub fn shell_written() -> impl Strategy<Value = ShellWritten> {
    (shell(), any::<u32>()).prop_map(|(shell, taken)| ShellWritten { shell, taken })
}

pub fn shell_signaled() -> impl Strategy<Value = ShellSignaled> {
    shell().prop_map(|shell| ShellSignaled { shell })
}

pub fn shell_resized() -> impl Strategy<Value = ShellResized> {
    shell().prop_map(|shell| ShellResized { shell })
}

pub fn shell_closed() -> impl Strategy<Value = ShellClosed> {
    shell().prop_map(|shell| ShellClosed { shell })
}

pub fn shell_attached() -> impl Strategy<Value = ShellAttached> {
    shell().prop_map(|shell| ShellAttached { shell })
}
