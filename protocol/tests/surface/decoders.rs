//! Every decoder, over bytes from nowhere: total and bounded. fuzz/ does the
//! same for longer.

use crate::pieces::{Pieces, block_on};
use proptest::collection::vec;
use proptest::prelude::*;
use pyro_protocol::channel::{Side, connect};
use pyro_protocol::diff::{ApplyPatch, Diff, DiffRecord, DiffStarted, DiffSummary, PatchApplied};
use pyro_protocol::egress::{GatewayOpened, OpenGateway, Packets};
use pyro_protocol::export::{Export, ExportEnd, ExportEntry, Exporting};
use pyro_protocol::file::{
    FileEdit, FileEdited, FileEntry, FileList, FileListed, FileMove, FileRead, FileReadEnd,
    FileReading, FileSearch, FileSearched, FileTime, FileWrite, FileWritten,
};
use pyro_protocol::frame::parse_header;
use pyro_protocol::handshake::Announcement;
use pyro_protocol::inspect::{
    CopyEnd, CopyProgress, CopyTree, CopyingTree, Inspect, Inspecting, MeasureTree, TreeMeasured,
};
use pyro_protocol::kept::{
    FollowEnd, ProcessForgotten, ProcessId, ProcessKept, ProcessList, ProcessPolled,
    ProcessWritten, Skipped,
};
use pyro_protocol::power::{
    Activate, Activated, ClockShifted, DiskSynced, Ping, Pong, PowerOff, PoweringOff, ShiftClock,
    SyncDisk,
};
use pyro_protocol::process::{Exit, ProcessStarted, Signal, StartProcess, StdinTaken};
use pyro_protocol::push::{Push, PushChange, PushCompared, PushContent, PushEnd, PushEntry};
use pyro_protocol::secret::{SecretsSet, SetSecrets};
use pyro_protocol::service::{
    LogChunk, Service, ServiceCounts, ServiceList, ServiceLogging, StartService,
};
use pyro_protocol::shell::{
    OpenShell, ReadShell, ShellAttached, ShellClosed, ShellList, ShellOpened, ShellRead,
    ShellResized, ShellSignaled, ShellWritten, TerminalSize, WriteShell,
};
use pyro_protocol::{
    AgentError, ByteString, Call, FrameReader, GuestPath, Hello, Lost, Welcome, codec,
};

/// Decodes each type; what decodes also encodes, to bytes that decode again.
fn decode_all(bytes: &[u8]) {
    macro_rules! each {
        ($($kind:ty),*) => {$(
            if let Ok(value) = codec::decode::<$kind>(bytes) {
                let again = codec::encode(&value).expect("what was decoded can be encoded");
                assert_eq!(codec::decode::<$kind>(&again).expect("and decoded"), value);
            }
        )*};
    }
    each!(
        Hello,
        Welcome,
        Announcement,
        Call,
        Ping,
        Pong,
        Activate,
        Activated,
        PowerOff,
        PoweringOff,
        ShiftClock,
        ClockShifted,
        SyncDisk,
        DiskSynced,
        OpenGateway,
        GatewayOpened,
        SetSecrets,
        SecretsSet,
        Inspect,
        Inspecting,
        MeasureTree,
        TreeMeasured,
        CopyTree,
        CopyingTree,
        CopyProgress,
        CopyEnd,
        StartProcess,
        ProcessStarted,
        StdinTaken,
        Signal,
        Exit,
        ProcessId,
        ProcessKept,
        ProcessList,
        ProcessPolled,
        ProcessWritten,
        ProcessForgotten,
        Skipped,
        FollowEnd,
        StartService,
        Service,
        ServiceList,
        ServiceCounts,
        ServiceLogging,
        LogChunk,
        FileTime,
        FileEntry,
        FileList,
        FileListed,
        FileRead,
        FileReading,
        FileReadEnd,
        FileWrite,
        FileWritten,
        FileEdit,
        FileEdited,
        FileMove,
        FileSearch,
        FileSearched,
        Export,
        Exporting,
        ExportEntry,
        ExportEnd,
        Push,
        PushEntry,
        PushCompared,
        PushContent,
        PushChange,
        PushEnd,
        Diff,
        DiffStarted,
        Vec<DiffRecord>,
        DiffSummary,
        ApplyPatch,
        PatchApplied,
        OpenShell,
        ReadShell,
        WriteShell,
        TerminalSize,
        ShellOpened,
        ShellList,
        ShellRead,
        ShellWritten,
        ShellSignaled,
        ShellResized,
        ShellClosed,
        ShellAttached,
        AgentError,
        ByteString,
        GuestPath
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2048, ..Default::default() })]

    #[test]
    fn packets(bytes in vec(any::<u8>(), 0..300), version in prop::sample::select(&[0x45u8, 0x60][..])) {
        let first = std::iter::once(version).chain(bytes.iter().copied().skip(1));
        let bytes: Vec<_> = first.take(bytes.len()).collect();
        let mut seen = 0;
        for packet in Packets::of(&bytes) {
            seen += packet.map_or(bytes.len() - seen, <[u8]>::len);
        }
        prop_assert_eq!(seen, bytes.len());
    }

    #[test]
    fn payloads(bytes in vec(any::<u8>(), 0..300)) {
        decode_all(&bytes);
    }

    #[test]
    fn payloads_that_begin_like_ours(call in crate::any::call(), flip in any::<proptest::sample::Index>(), to: u8) {
        let mut bytes = codec::encode(&call)?;
        if !bytes.is_empty() {
            let at = flip.index(bytes.len());
            bytes[at] = to;
        }
        decode_all(&bytes);
    }

    #[test]
    fn headers(bytes: [u8; 8]) {
        if let Ok((kind, length)) = parse_header(bytes) {
            prop_assert!(length <= kind.limit());
        }
    }

    #[test]
    fn frames(bytes in vec(any::<u8>(), 0..200), sizes in vec(1..40_usize, 1..8)) {
        let length = bytes.len();
        let ended = block_on(async {
            let mut reader = FrameReader::new(Pieces::new(bytes, sizes));
            let mut frames = 0;
            loop {
                match reader.next().await {
                    Ok(_) => frames += 1,
                    Err(lost) => break (frames, lost),
                }
            }
        });
        prop_assert!(ended.0 * 8 <= length);
        let by_the_bytes = !matches!(ended.1, Lost::Io(_) | Lost::OutOfPlace { .. });
        prop_assert!(by_the_bytes);
    }

    #[test]
    fn channels(noise in vec(any::<u8>(), 0..200), nonce: u64) {
        // However long the hunt, it ends with the first whole SYNC.
        block_on(async {
            let (mut host, mut guest) = tokio::io::duplex(4096);
            let sync = [b"\xffpyrosyn".as_slice(), &nonce.to_le_bytes()].concat();
            let sent = async {
                tokio::io::AsyncWriteExt::write_all(&mut host, &noise).await.expect("room");
                tokio::io::AsyncWriteExt::write_all(&mut host, &sync).await.expect("room");
                let mut answer = [0; 16];
                tokio::io::AsyncReadExt::read_exact(&mut host, &mut answer).await.expect("SYNC");
                answer
            };
            let (answer, channel) = tokio::join!(sent, connect(&mut guest, Side::Guest));
            assert!(channel.is_ok());
            assert_eq!(&answer[..8], b"\xffpyrosyn");
        });
    }
}

#[test]
fn a_length_is_no_reason_to_allocate() {
    // A list, a string and bytes that claim to be of 2^62 items.
    for variant in 0..=16 {
        let mut bytes = vec![variant, 0xfd];
        bytes.extend((1_u64 << 62).to_le_bytes());
        decode_all(&bytes);
        decode_all(&bytes[1..]);
    }
}
