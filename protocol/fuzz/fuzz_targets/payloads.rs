//! Every payload's decoder is total, and what decodes encodes again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::diff::{ApplyPatch, Diff, DiffRecord, DiffSummary, PatchApplied};
use pyro_protocol::egress::OpenGateway;
use pyro_protocol::export::{Export, ExportEnd, ExportEntry, Exporting};
use pyro_protocol::file::{
    FileEdit, FileEdited, FileEntry, FileList, FileListed, FileMove, FileRead, FileReadEnd,
    FileReading, FileSearch, FileSearched, FileTime, FileWrite, FileWritten,
};
use pyro_protocol::handshake::Announcement;
use pyro_protocol::kept::{FollowEnd, ProcessKept, ProcessList, ProcessPolled, ProcessWritten, Skipped};
use pyro_protocol::inspect::{CopyEnd, CopyProgress, Inspect, Inspecting, TreeMeasured};
use pyro_protocol::power::{Activate, Activated, PowerOff, ShiftClock};
use pyro_protocol::process::{Exit, ProcessStarted, Signal, StartProcess, StdinTaken};
use pyro_protocol::service::{
    LogChunk, Service, ServiceCounts, ServiceList, ServiceLogging, StartService,
};
use pyro_protocol::push::{
    Push, PushChange, PushCompared, PushContent, PushEnd, PushEntry,
};
use pyro_protocol::secret::SetSecrets;
use pyro_protocol::shell::{
    OpenShell, ReadShell, ShellAttached, ShellClosed, ShellList, ShellOpened, ShellRead,
    ShellResized, ShellSignaled, ShellWritten, TerminalSize, WriteShell,
};
use pyro_protocol::{AgentError, ByteString, Call, GuestPath, Hello, Welcome, codec};

fuzz_target!(|bytes: &[u8]| {
    macro_rules! each {
        ($($kind:ty),*) => {$(
            if let Ok(value) = codec::decode::<$kind>(bytes) {
                let again = codec::encode(&value).expect("what was decoded can be encoded");
                assert_eq!(codec::decode::<$kind>(&again).expect("and decoded"), value);
            }
        )*};
    }
    each!(
        Hello, Welcome, Announcement, Call, Activate, Activated, PowerOff, ShiftClock, OpenGateway, SetSecrets,
        Inspect, Inspecting, TreeMeasured, CopyProgress, CopyEnd,
        StartProcess, ProcessStarted, StdinTaken, Signal, Exit, ProcessKept, ProcessList, ProcessPolled,
        ProcessWritten, Skipped, FollowEnd, StartService, Service, ServiceList, ServiceCounts,
        ServiceLogging, LogChunk, FileTime, FileEntry, FileList, FileListed, FileRead,
        FileReading, FileReadEnd, FileWrite, FileWritten, FileEdit, FileEdited, FileMove,
        FileSearch, FileSearched, Export, Exporting, ExportEntry, ExportEnd, Push, PushEntry,
        PushCompared, PushContent, PushChange, PushEnd, Diff,
        Vec<DiffRecord>, DiffSummary, ApplyPatch, PatchApplied, OpenShell,
        ReadShell, WriteShell, TerminalSize, ShellOpened, ShellList, ShellRead, ShellWritten,
        ShellSignaled, ShellResized, ShellClosed, ShellAttached, AgentError, ByteString, GuestPath
    );
});
