//! Arguments that operations share. Each type defines once what it accepts:
//! for the command line, for JSON and in the schema.

mod chosen_command;
mod command_line;
mod host_path;
mod label;
mod network;
mod number;
mod path;
mod patience;
mod port;
mod process;
mod rule;
mod secret;
mod service;
mod shell;
mod signal;
mod snapshot;
mod variable;
mod workspace;

pub use chosen_command::ChosenCommand;
pub use command_line::{CommandLine, TTY};
pub use host_path::HostPath;
pub use label::{Label, Labels};
pub use network::WantedNetwork;
pub use number::{
    DiskMib, DiskMibPerSecond, DiskOpsPerSecond, MemMib, NetworkConnections, NetworkKibPerSecond,
    Number, OutOfBounds, OutputLimit, TimeoutSeconds, TtlSeconds, VcpuCount,
};
pub(crate) use number::{maybe_count, whole};
pub use path::PathInGuest;
pub use patience::Patience;
pub use port::{NoPort, PortMapping};
pub use process::{NoProcess, ProcessRef};
pub use rule::{NetworkRule, NetworkRuleRef, NoRule};
pub(in crate::operation) use secret::read_secret;
pub use secret::{FileOfSecret, NewSecrets, SecretVariables};
pub use service::ServiceRef;
pub use shell::{Cols, NoShell, Rows, ShellRef, terminal_size};
pub use signal::{NoSignal, SignalRef};
pub use snapshot::{ForkOf, NoForkOf};
pub use variable::{Variable, Variables};
pub use workspace::WorkspaceRef;
