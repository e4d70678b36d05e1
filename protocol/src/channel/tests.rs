//! The table over what no honest peer sends, and two channels over a narrow
//! pipe with everything at once.

use super::header::{HEADER_LEN, Header};
use super::table::{Outgoing, Table};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::task::{Context, Poll, Waker};
use tokio::io::duplex;

fn header() -> impl Strategy<Value = Header> {
    prop_oneof![
        (0..9_u32).prop_map(|port| Header::Open(VsockPort(port))),
        Just(Header::Accept),
        (1..=STREAM_UNIT).prop_map(Header::Data),
        (1..9_usize).prop_map(Header::Data),
        Just(Header::End),
        Just(Header::Reset),
        (1..=WINDOW).prop_map(Header::Credit),
    ]
}

/// What the holder of a stream does between the peer's frames.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Accept,
    Read(usize),
    Write(usize),
    Finish,
    Drop,
    Send,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        Just(Deed::Accept),
        (1..100_000_usize).prop_map(Deed::Read),
        (1..=STREAM_UNIT).prop_map(Deed::Write),
        Just(Deed::Finish),
        Just(Deed::Drop),
        Just(Deed::Send),
    ]
}

fn act(table: &mut Table, id: u32, deed: Deed, cx: &Context<'_>) -> usize {
    match deed {
        Deed::Accept => table.accept(id),
        Deed::Read(limit) => {
            if let Poll::Ready(Ok(piece)) = table.poll_take(id, cx, limit) {
                assert!(piece.len() <= limit);
                return piece.len();
            }
        }
        Deed::Write(length) => {
            if let Poll::Ready(Ok(())) = table.poll_room(id, cx) {
                table.queue(id, vec![7; HEADER_LEN + length]);
            }
        }
        Deed::Finish => table.finish(id),
        Deed::Drop => table.release(id),
        Deed::Send => {}
    }
    0
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever comes, no stream yields more than its windows, and none is sent
    /// more than the peer gave credit for.
    #[test]
    fn hostile_frames_are_bounded(
        steps in vec((0..5_u32, header(), deed()), 1..300)
    ) {
        let cx = Context::from_waker(Waker::noop());
        let mut table = Table::new(true);
        let (mut received, mut read, mut credit_given) = ([0_usize; 5], [0_usize; 5], [0_usize; 5]);
        let (mut sent, mut credit_got) = ([0_usize; 5], [0_usize; 5]);
        for (number, header, deed) in steps {
            // Of the guest's, or one that nobody opened.
            let id = 2 * number;
            let at = number as usize;
            let data = if let Header::Data(length) = header { vec![1; length] } else { vec![] };
            match header {
                Header::Data(length) => received[at] += length,
                Header::Credit(bytes) => credit_got[at] += bytes,
                Header::Open(_) | Header::Accept | Header::End | Header::Reset => {}
            }
            if table.receive(id, header, data).is_err() {
                return Ok(());
            }
            read[at] += act(&mut table, id, deed, &cx);
            prop_assert!(read[at] <= received[at]);
            prop_assert!(read[at] <= WINDOW + credit_given[at]);
            while let Some(outgoing) = matches!(deed, Deed::Send).then(|| table.next()).flatten() {
                let bytes = match &outgoing { Outgoing::Header(bytes) => &bytes[..], Outgoing::Data(bytes) => &bytes[..] };
                let head = bytes[..HEADER_LEN].try_into().expect("a header");
                let (id, header) = Header::parse(head).expect("ours are valid");
                let at = (id / 2) as usize;
                match header {
                    Header::Data(length) => {
                        prop_assert_eq!(length, bytes.len() - HEADER_LEN);
                        sent[at] += length;
                        prop_assert!(sent[at] <= WINDOW + credit_got[at]);
                    }
                    Header::Credit(bytes) => credit_given[at] += bytes,
                    Header::Open(_) | Header::Accept | Header::End | Header::Reset => {}
                }
                prop_assert!(credit_given[at] <= read[at]);
            }
        }
    }
}

/// What is written in one direction of a stream, and in pieces of which size.
#[derive(Debug, Clone)]
struct Script {
    length: usize,
    piece: usize,
    pause: bool,
}

fn script() -> impl Strategy<Value = Script> {
    (prop_oneof![0..2000_usize, 0..600_000_usize], 1..70_000_usize, any::<bool>())
        .prop_map(|(length, piece, pause)| Script { length, piece: piece.max(length / 200), pause })
}

fn content(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(31) ^ (at >> 9) ^ seed) as u8).collect()
}

async fn write(mut to: Sender, seed: usize, script: Script) {
    for piece in content(seed, script.length).chunks(script.piece) {
        to.write_all(piece).await.expect("the other side reads");
        if script.pause {
            tokio::task::yield_now().await;
        }
    }
    to.shutdown().await.expect("and hears the end");
}

async fn read(mut from: Receiver, seed: usize, script: Script) {
    let mut all = Vec::new();
    let mut piece = vec![0; script.piece];
    loop {
        match from.read(&mut piece).await.expect("it ends in good order") {
            0 => break,
            length => all.extend_from_slice(&piece[..length]),
        }
        if script.pause {
            tokio::task::yield_now().await;
        }
    }
    assert!(all == content(seed, script.length), "{} bytes of {}", all.len(), script.length);
}

async fn all_at_once(pipe: usize, scripts: Vec<(Script, Script)>) {
    let (host, guest) = duplex(pipe);
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (host, guest) = tokio::join!(connect(host, side), connect(guest, Side::Guest));
    let (opener, _acceptor, driver) = host.expect("a channel");
    let (_opener, mut acceptor, guest_driver) = guest.expect("a channel");
    let (ours, theirs) = (scripts.clone(), scripts);
    let guest = async {
        let mut serving = Vec::new();
        for _ in &theirs {
            let inbound = acceptor.accept().await.expect("a stream");
            let seed = inbound.port().0 as usize;
            let (out, back) = theirs[seed].clone();
            let (receiver, sender) = inbound.accept().into_split();
            serving.push(async move {
                tokio::join!(read(receiver, seed, out), write(sender, !seed, back));
            });
        }
        futures::future::join_all(serving).await;
    };
    let host = async {
        let calls = ours.into_iter().enumerate().map(|(seed, (out, back))| {
            let opener = &opener;
            async move {
                let port = VsockPort(u32::try_from(seed).expect("small"));
                let (receiver, sender) = opener.open(port).await.expect("it listens").into_split();
                tokio::join!(write(sender, seed, out), read(receiver, !seed, back));
            }
        });
        futures::future::join_all(calls).await;
    };
    let both = async { tokio::join!(host, guest) };
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        ended = guest_driver => panic!("{ended:?}"),
        _ = both => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..Default::default() })]

    #[test]
    fn every_stream_carries_exactly_its_bytes(
        pipe in 1..100_000_usize, scripts in vec((script(), script()), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(async {
            let work = all_at_once(pipe.max(500), scripts);
            tokio::time::timeout(std::time::Duration::from_secs(60), work).await.expect("an end");
        });
    }
}

/// One who does not read keeps nobody else waiting, and is held to his window.
#[tokio::test]
async fn a_flood_passes_by_nobody() {
    let (host, guest) = duplex(4096);
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (host, guest) = tokio::join!(connect(host, side), connect(guest, Side::Guest));
    let (opener, _acceptor, driver) = host.expect("a channel");
    let (_opener, mut acceptor, guest_driver) = guest.expect("a channel");
    let work = async {
        let (flooded, offered) = tokio::join!(opener.open(VsockPort(1)), async {
            acceptor.accept().await.expect("a stream").accept()
        });
        let (mut flooded, mut unread) = (flooded.expect("it listens"), offered);
        let mut written = 0;
        while let Ok(length) = tokio::time::timeout(
            std::time::Duration::from_millis(200),
            flooded.write(&[7; STREAM_UNIT]),
        )
        .await
        {
            written += length.expect("it is open");
        }
        let most = WINDOW + QUEUE_MAX + STREAM_UNIT;
        assert!((WINDOW - STREAM_UNIT..=most).contains(&written), "{written}");
        let (other, inbound) = tokio::join!(opener.open(VsockPort(2)), async {
            acceptor.accept().await.expect("a stream").accept()
        });
        let (mut other, mut inbound) = (other.expect("it listens"), inbound);
        other.write_all(b"still here").await.expect("it is open");
        let mut heard = [0; 10];
        inbound.read_exact(&mut heard).await.expect("it is open");
        // Given up with all that is in it: nobody waits for it any more.
        drop(unread.read_u8().await);
        drop(unread);
        while flooded.write_all(&[7; STREAM_UNIT]).await.is_ok() {}
    };
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        ended = guest_driver => panic!("{ended:?}"),
        () = work => {}
    }
}

/// Streams that were opened and let go leave room for others.
#[tokio::test]
async fn more_streams_than_there_may_be_wait_their_turn() {
    let (host, guest) = duplex(64 * 1024);
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (host, guest) = tokio::join!(connect(host, side), connect(guest, Side::Guest));
    let (opener, mut listener, driver) = host.expect("a channel");
    let (guest_opener, mut acceptor, guest_driver) = guest.expect("a channel");
    let serve = async {
        loop {
            tokio::select! {
                // One in three is refused.
                inbound = acceptor.accept() => {
                    let inbound = inbound.expect("a stream");
                    if inbound.port().0 % 3 > 0 { drop(inbound.accept()); }
                }
                inbound = listener.accept() => drop(inbound.expect("a stream").accept()),
            }
        }
    };
    let ask = async {
        // Each is let go at once.
        let ask = |opener: &Opener, port| {
            let opener = opener.clone();
            async move { opener.open(VsockPort(port)).await.map(drop) }
        };
        let ours = (0..1000).map(|port| ask(&opener, port));
        let theirs = (0..1000).map(|port| ask(&guest_opener, port));
        let (ours, theirs) =
            tokio::join!(futures::future::join_all(ours), futures::future::join_all(theirs));
        // One that was taken and let go at once may look refused; no other way
        // round, and none is left waiting.
        assert!(ours.iter().step_by(3).all(Result::is_err));
        assert_eq!(ours.len() + theirs.len(), 2000);
    };
    let work = tokio::time::timeout(std::time::Duration::from_secs(60), ask);
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        ended = guest_driver => panic!("{ended:?}"),
        () = serve => unreachable!("it goes on"),
        done = work => done.expect("in time"),
    }
}
