//! The multiplexed channel over a byte stream that has no connection events.

use pyro_protocol::channel::{Acceptor, Before, ChannelError, Opener, Side, Stream, connect};
use pyro_protocol::{ANNOUNCE_PORT, CALL_PORT, VsockPort};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What takes this long hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the byte stream holds: less than a flush, so that it must be read.
const PIPE: usize = 4096;

async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} did not come to an end"),
    }
}

/// The guest as the agent is: after each failure it hunts for the next host,
/// and answers every stream to the call port by echoing it.
fn guest(mut io: DuplexStream) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            match connect(&mut io, Side::Guest).await {
                Ok((_opener, acceptor, driver)) => {
                    tokio::select! {
                        _failed = driver => {}
                        () = echo_all(acceptor) => {}
                    }
                }
                Err(ChannelError::Io(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    })
}

async fn echo_all(mut acceptor: Acceptor) {
    while let Some(inbound) = acceptor.accept().await {
        if inbound.port() == CALL_PORT {
            let (mut reader, mut writer) = inbound.accept().into_split();
            tokio::spawn(async move {
                // The other side may leave at any time.
                drop(tokio::io::copy(&mut reader, &mut writer).await);
                drop(writer.shutdown().await);
            });
        }
    }
}

async fn is_echoed(opener: &Opener, bytes: &[u8]) {
    let stream = soon("opening", opener.open(CALL_PORT)).await.expect("the guest listens");
    let (mut reader, mut writer) = stream.into_split();
    let mut back = Vec::new();
    let exchange = async {
        let sent = async {
            writer.write_all(bytes).await.expect("the guest reads");
            writer.shutdown().await.expect("and hears the end");
        };
        let (_, read) = tokio::join!(sent, reader.read_to_end(&mut back));
        read.expect("the guest answers");
    };
    soon("the echo", exchange).await;
    assert!(back == bytes, "{} bytes of {} came back", back.len(), bytes.len());
}

#[tokio::test]
async fn streams_are_independent() {
    let (mut host, theirs) = duplex(PIPE);
    let _guest = guest(theirs);
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (opener, _acceptor, driver) =
        soon("SYNC", connect(&mut host, side)).await.expect("a channel");
    let work = async {
        let idle: Stream = opener.open(CALL_PORT).await.expect("the guest listens");
        let large = vec![7; 1024 * 1024];
        let empty: &[u8] = b"";
        tokio::join!(
            is_echoed(&opener, &large),
            is_echoed(&opener, b"small"),
            is_echoed(&opener, empty),
        );
        drop(idle);
        is_echoed(&opener, b"after").await;
    };
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        () = work => {}
    }
}

#[tokio::test]
async fn a_port_without_a_listener_is_refused() {
    let (mut host, theirs) = duplex(PIPE);
    let _guest = guest(theirs);
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (opener, _acceptor, driver) =
        soon("SYNC", connect(&mut host, side)).await.expect("a channel");
    let work = async {
        let nobody = VsockPort(1);
        let refused = soon("the refusal", opener.open(nobody)).await;
        assert!(matches!(refused, Err(ChannelError::Refused(port)) if port == nobody));
        is_echoed(&opener, b"the others are not").await;
    };
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        () = work => {}
    }
}

#[tokio::test]
async fn the_guest_opens_streams_too() {
    let (mut host, mut theirs) = duplex(PIPE);
    let guest = tokio::spawn(async move {
        let (opener, _acceptor, driver) =
            connect(&mut theirs, Side::Guest).await.expect("a channel");
        let announcing = async {
            let mut stream = opener.open(ANNOUNCE_PORT).await.expect("the host listens");
            stream.write_all(b"up").await.expect("the host reads");
            stream.shutdown().await.expect("and hears the end");
        };
        tokio::select! {
            // The host is gone once it has heard.
            _ended = async { tokio::join!(driver, announcing) } => {}
        }
    });
    let side = Side::Host { nonce: 1, before: Before::Nothing };
    let (_opener, mut acceptor, driver) =
        soon("SYNC", connect(&mut host, side)).await.expect("a channel");
    let listening = async {
        let inbound = acceptor.accept().await.expect("a stream");
        assert_eq!(inbound.port(), ANNOUNCE_PORT);
        let mut said = Vec::new();
        let mut stream = inbound.accept();
        stream.read_to_end(&mut said).await.expect("the guest speaks");
        assert_eq!(said, b"up");
    };
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        () = soon("the announcement", listening) => {}
    }
    drop(host);
    soon("the guest's end", guest).await.expect("no panic");
}

/// A data frame of a host that was cut off: kind, stream, length, body.
fn cut_off_frame(body: usize) -> Vec<u8> {
    let length = u32::try_from(body).expect("small").to_le_bytes();
    let header = [[3, 0, 0, 0], [3, 0, 0, 0], length].concat();
    [header, vec![0xab; body]].concat()
}

#[tokio::test]
async fn a_guest_in_the_middle_of_anything_hears_the_next_host() {
    let (mut host, theirs) = duplex(PIPE);
    let _guest = guest(theirs);
    let frame = cut_off_frame(16 * 1024);
    // In every byte of the header, and here and there in the body.
    let cuts = (0..=13).chain([100, 4096, 16 * 1024, frame.len()]);
    for (cut, nonce) in cuts.zip(1..) {
        let side = Side::Host {
            nonce,
            before: if nonce > 1 { Before::Anything } else { Before::Nothing },
        };
        let (opener, acceptor, driver) =
            soon("SYNC", connect(&mut host, side)).await.expect("a channel");
        tokio::select! {
            ended = driver => panic!("cut {cut}: {ended:?}"),
            () = is_echoed(&opener, b"here") => {}
        }
        drop((opener, acceptor));
        soon("the cut-off frame", host.write_all(&frame[..cut])).await.expect("the guest reads");
    }
}

/// As one that was saved and is restored, again and again.
#[tokio::test]
async fn a_guest_that_was_left_between_two_frames_hears_the_next_host() {
    let (mut host, theirs) = duplex(PIPE);
    let _guest = guest(theirs);
    for nonce in 1..=3 {
        let before = if nonce == 1 { Before::Nothing } else { Before::WholeFrames };
        let side = Side::Host { nonce, before };
        let (opener, _acceptor, driver) =
            soon("SYNC", connect(&mut host, side)).await.expect("a channel");
        tokio::select! {
            ended = driver => panic!("host {nonce}: {ended:?}"),
            () = is_echoed(&opener, b"here") => {}
        }
    }
}

#[tokio::test]
async fn a_host_that_gave_up_before_the_answer_is_no_obstacle() {
    let (mut host, theirs) = duplex(PIPE);
    let _guest = guest(theirs);
    let mut stale = b"\xffpyrosyn".to_vec();
    stale.extend(7_u64.to_le_bytes());
    host.write_all(&stale).await.expect("the guest reads");
    let side = Side::Host { nonce: 8, before: Before::Anything };
    let (opener, _acceptor, driver) =
        soon("SYNC", connect(&mut host, side)).await.expect("a channel");
    tokio::select! {
        ended = driver => panic!("{ended:?}"),
        () = is_echoed(&opener, b"here") => {}
    }
}
