//! What one side sends is what the other gets.

use crate::any;
use crate::pieces::{Pieces, block_on};
use proptest::prelude::*;
use pyro_protocol::diff::DiffStarted;
use pyro_protocol::egress::GatewayOpened;
use pyro_protocol::error::MESSAGE_MAX;
use pyro_protocol::frame::{HEADER_LEN, header, parse_header};
use pyro_protocol::kept::ProcessId;
use pyro_protocol::power::{ClockShifted, Ping, Pong, PoweringOff};
use pyro_protocol::{
    AgentError, AgentErrorKind, Call, FrameKind, FrameReader, FrameWriter, GuestPath, Hello, Lost,
    codec,
};

macro_rules! there_and_back {
    ($($name:ident),*) => {
        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
            $(
                #[test]
                fn $name(value in any::$name()) {
                    let bytes = codec::encode(&value)?;
                    let back = decode_like(&value, &bytes)?;
                    prop_assert_eq!(&back, &value);
                    // Nothing more and nothing less will do.
                    let longer = [bytes.as_slice(), &[0]].concat();
                    prop_assert!(decode_like(&value, &longer).is_err());
                    if let Some((_, shorter)) = bytes.split_last() {
                        prop_assert!(decode_like(&value, shorter).is_err());
                    }
                }
            )*
        }
    };
}

/// Decodes the type of the first, which a macro cannot name.
fn decode_like<T: serde::de::DeserializeOwned>(
    _: &T,
    bytes: &[u8],
) -> Result<T, pyro_protocol::codec::CodecError> {
    codec::decode(bytes)
}

there_and_back!(
    byte_string,
    guest_path,
    hello,
    welcome,
    announcement,
    activate,
    activated,
    open_gateway,
    start_process,
    process_started,
    stdin_taken,
    signal,
    exit,
    process_id,
    process_kept,
    service_name,
    tcp_address,
    http_url,
    readiness,
    service,
    service_list,
    service_counts,
    service_logging,
    log_chunk,
    process_list,
    process_polled,
    process_written,
    process_forgotten,
    skipped,
    follow_end,
    agent_error,
    diff_records,
    diff_summary,
    patch_applied,
    file_time,
    file_entry,
    file_listed,
    file_read_end,
    file_written,
    file_edited,
    file_searched,
    exporting,
    export_entry,
    export_end,
    tree_measured,
    copy_progress,
    copy_end,
    push_entry,
    push_compared,
    push_content,
    push_change,
    push_end,
    shell_id,
    terminal_size,
    shell_opened,
    shell_list,
    shell_read,
    shell_written,
    shell_signaled,
    shell_resized,
    shell_closed,
    shell_attached,
    call
);

#[test]
fn what_carries_nothing_takes_no_bytes() {
    assert_eq!(codec::encode(&Ping).expect("it encodes"), b"");
    assert_eq!(codec::encode(&Pong).expect("it encodes"), b"");
    assert_eq!(codec::encode(&DiffStarted).expect("it encodes"), b"");
    assert_eq!(codec::encode(&PoweringOff).expect("it encodes"), b"");
    assert_eq!(codec::encode(&ClockShifted).expect("it encodes"), b"");
    assert_eq!(codec::encode(&GatewayOpened).expect("it encodes"), b"");
}

#[test]
fn an_error_fits_its_frame_whatever_it_says() {
    for text in ["x", "ä", "\u{10ffff}"] {
        let error = AgentError::new(AgentErrorKind::System, text.repeat(MESSAGE_MAX));
        assert!(error.message.len() <= MESSAGE_MAX);
        assert!(codec::encode(&error).expect("it encodes").len() <= FrameKind::Error.limit());
    }
}

#[test]
fn what_is_queued_leaves_with_what_is_sent() {
    block_on(async {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut writer = FrameWriter::new(ours);
        writer.queue(FrameKind::Hello, &Hello::ours()).expect("it fits");
        writer.send(FrameKind::Call, &Call::from(Ping)).await.expect("there is room");
        writer.send_raw(FrameKind::StdinEnd, b"").await.expect("there is room");
        drop(writer);
        let mut reader = FrameReader::new(theirs);
        assert_eq!(reader.expect::<Hello>(FrameKind::Hello).await.expect("first"), Hello::ours());
        let call: Call = reader.expect(FrameKind::Call).await.expect("second");
        assert_eq!(call, Call::from(Ping));
        assert_eq!(reader.next().await.expect("once each").kind, FrameKind::StdinEnd);
        assert!(matches!(reader.next().await, Err(Lost::Closed)));
    });
}

#[test]
fn nothing_follows_a_frame_that_was_cut_off() {
    block_on(async {
        let (ours, _theirs) = tokio::io::duplex(4);
        let mut writer = FrameWriter::new(ours);
        tokio::select! {
            biased;
            sent = writer.send_raw(FrameKind::Stdout, b"more than fits") => panic!("{sent:?}"),
            () = std::future::ready(()) => {}
        }
        let next = writer.send_raw(FrameKind::StdinEnd, b"").await;
        assert!(matches!(next, Err(Lost::CutOff)), "{next:?}");
    });
}

#[test]
fn only_twelve_small_hexadecimal_digits_are_a_process_id() {
    for bad in
        ["", "0", "0123456789a", "0123456789abc", "0123456789AB", "../../../etc", "+1234567890a"]
    {
        assert!(bad.parse::<ProcessId>().is_err(), "{bad}");
    }
    let id: ProcessId = "0123456789ab".parse().expect("an id");
    assert_eq!(id, ProcessId([0x01, 0x23, 0x45, 0x67, 0x89, 0xab]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_process_id_is_read_as_it_is_written(id in any::process_id(), text in ".{0,14}") {
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        if let Ok(id) = text.parse::<ProcessId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn a_header_says_what_was_meant(kind in proptest::sample::select(FrameKind::ALL), share in 0.0..=1.0) {
        let length = (kind.limit() as f64 * share) as usize;
        prop_assert_eq!(parse_header(header(kind, length))?, (kind, length));
    }

    #[test]
    fn eight_bytes_are_a_header_only_as_we_write_them(bytes: [u8; HEADER_LEN]) {
        if let Ok((kind, length)) = parse_header(bytes) {
            prop_assert_eq!(header(kind, length), bytes);
        }
    }

    #[test]
    fn frames_arrive_whole_however_they_are_cut(
        frames in proptest::collection::vec((proptest::sample::select(FrameKind::ALL), 0..200_usize), 1..6),
        pieces in proptest::collection::vec(1..50_usize, 1..8),
    ) {
        let frames: Vec<_> = frames.into_iter().map(|(kind, n)| (kind, vec![7; n.min(kind.limit())])).collect();
        block_on(async {
            let mut written = FrameWriter::new(Vec::new());
            for (kind, payload) in &frames {
                written.send_raw(*kind, payload).await.expect("memory takes it");
            }
            let bytes = written.into_inner();
            let mut reader = FrameReader::new(Pieces::new(bytes, pieces));
            for (kind, payload) in &frames {
                let frame = reader.next().await.expect("a frame");
                assert_eq!((frame.kind, &frame.payload), (*kind, payload));
            }
            assert!(matches!(reader.next().await, Err(Lost::Closed)));
        });
    }

    #[test]
    fn a_path_is_bytes_without_nul_and_not_too_many(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let good = !bytes.is_empty() && !bytes.contains(&0) && bytes.len() <= 4095;
        prop_assert_eq!(GuestPath::new(bytes.clone()).is_ok(), good);
        // And a decoder lets no other in.
        let encoded = codec::encode(&pyro_protocol::ByteString(bytes))?;
        prop_assert_eq!(codec::decode::<GuestPath>(&encoded).is_ok(), good);
    }
}
