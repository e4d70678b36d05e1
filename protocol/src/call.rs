//! THE table of calls. A row never changes once shipped: a new need is a new
//! call in a new generation.

use crate::diff::{ApplyPatch, Diff, DiffStarted, PatchApplied};
use crate::egress::{GatewayOpened, OpenGateway};
use crate::export::{Export, Exporting};
use crate::file::{
    FileDelete, FileDeleted, FileEdit, FileEdited, FileEntry, FileList, FileListed, FileMove,
    FileMoved, FileRead, FileReading, FileSearch, FileSearched, FileStat, FileWrite, FileWritten,
};
use crate::handshake::Generation;
use crate::inspect::{CopyTree, CopyingTree, Inspect, Inspecting, MeasureTree, TreeMeasured};
use crate::kept::{
    FollowProcess, FollowingProcess, ForgetProcess, KeepProcess, ListProcesses, PollProcess,
    ProcessForgotten, ProcessKept, ProcessList, ProcessPolled, ProcessSignaled, ProcessWritten,
    SignalProcess, WriteProcess,
};
use crate::power::{
    Activate, Activated, ClockShifted, DiskSynced, Ping, Pong, PowerOff, PoweringOff, ShiftClock,
    SyncDisk,
};
use crate::process::{ProcessStarted, StartProcess};
use crate::push::{Push, PushCompared};
use crate::secret::{SecretsSet, SetSecrets};
use crate::service::{
    CountServices, ListServices, RemoveService, RestartService, Service, ServiceCounts,
    ServiceList, ServiceLogging, ServiceLogs, ServiceStatus, StartService, StopService,
};
use crate::shell::{
    AttachShell, CloseShell, ListShells, OpenShell, ReadShell, ResizeShell, ShellAttached,
    ShellClosed, ShellList, ShellOpened, ShellRead, ShellResized, ShellSignaled, ShellWritten,
    SignalShell, WriteShell,
};
use crate::tunnel::{ConnectPort, PortConnected};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A call as its caller sees it: what to send and what comes back.
pub trait Request: Serialize + Into<Call> {
    /// What the agent replies when all went well.
    type Reply: Serialize + DeserializeOwned + std::fmt::Debug;
    /// The call's name in errors and events.
    const NAME: &'static str;
    /// The first generation that has it.
    const SINCE: Generation;
}

macro_rules! calls {
    ($($request:ident -> $reply:ident, since $since:literal;)*) => {
        /// Everything that can be asked of the agent.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Call {
            $(
                #[doc = concat!("Answered by [`", stringify!($reply), "`].")]
                $request($request),
            )*
        }

        impl Call {
            /// The call's name in errors and events.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Call::$request(_) => stringify!($request),)* }
            }
        }

        $(
            impl From<$request> for Call {
                fn from(request: $request) -> Self {
                    Call::$request(request)
                }
            }

            impl Request for $request {
                type Reply = $reply;
                const NAME: &'static str = stringify!($request);
                const SINCE: Generation = Generation($since);
            }
        )*

        /// The surface as data: each call with the schemas of what it sends
        /// and gets back.
        #[cfg(feature = "schema")]
        pub const TABLE: &[(&str, &str, u16, fn() -> (schemars::Schema, schemars::Schema))] = &[
            $((
                stringify!($request),
                stringify!($reply),
                $since,
                || (schemars::schema_for!($request), schemars::schema_for!($reply)),
            ),)*
        ];
    };
}

calls! {
    Ping -> Pong, since 1;
    Activate -> Activated, since 1;
    PowerOff -> PoweringOff, since 1;
    StartProcess -> ProcessStarted, since 1;
    KeepProcess -> ProcessKept, since 1;
    ListProcesses -> ProcessList, since 1;
    PollProcess -> ProcessPolled, since 1;
    FollowProcess -> FollowingProcess, since 1;
    WriteProcess -> ProcessWritten, since 1;
    SignalProcess -> ProcessSignaled, since 1;
    ForgetProcess -> ProcessForgotten, since 1;
    FileStat -> FileEntry, since 1;
    FileList -> FileListed, since 1;
    FileRead -> FileReading, since 1;
    FileWrite -> FileWritten, since 1;
    FileEdit -> FileEdited, since 1;
    FileDelete -> FileDeleted, since 1;
    FileMove -> FileMoved, since 1;
    FileSearch -> FileSearched, since 1;
    Export -> Exporting, since 1;
    Push -> PushCompared, since 1;
    Diff -> DiffStarted, since 1;
    ApplyPatch -> PatchApplied, since 1;
    ShiftClock -> ClockShifted, since 1;
    StartService -> Service, since 1;
    ListServices -> ServiceList, since 1;
    CountServices -> ServiceCounts, since 1;
    ServiceStatus -> Service, since 1;
    ServiceLogs -> ServiceLogging, since 1;
    StopService -> Service, since 1;
    RestartService -> Service, since 1;
    RemoveService -> Service, since 1;
    ConnectPort -> PortConnected, since 1;
    OpenGateway -> GatewayOpened, since 1;
    OpenShell -> ShellOpened, since 1;
    ListShells -> ShellList, since 1;
    ReadShell -> ShellRead, since 1;
    WriteShell -> ShellWritten, since 1;
    SignalShell -> ShellSignaled, since 1;
    ResizeShell -> ShellResized, since 1;
    CloseShell -> ShellClosed, since 1;
    AttachShell -> ShellAttached, since 1;
    SetSecrets -> SecretsSet, since 1;
    SyncDisk -> DiskSynced, since 1;
    Inspect -> Inspecting, since 1;
    MeasureTree -> TreeMeasured, since 1;
    CopyTree -> CopyingTree, since 1;
}
