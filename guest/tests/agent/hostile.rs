//! Hosts that break the protocol, by malice or by accident: the connection
//! ends, the agent does not.

use crate::host::{Bystander, Host, argv, soon};
use proptest::prelude::*;
use pyro_protocol::frame::header;
use pyro_protocol::power::Ping;
use pyro_protocol::process::Signal;
use pyro_protocol::{AgentError, AgentErrorKind, Call, FrameKind, Generation, Hello, codec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    [header(kind, payload.len()).as_slice(), payload].concat()
}

fn hello() -> Vec<u8> {
    frame(FrameKind::Hello, &codec::encode(&Hello::ours()).expect("it encodes"))
}

/// Sends these bytes and nothing more; all the agent says until it closes.
async fn answer_to(host: &Host, bytes: &[u8]) -> Vec<u8> {
    let mut stream = host.stream();
    let mut answer = Vec::new();
    let exchange = async {
        // The agent may stop listening before we stop talking.
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        drop(stream.read_to_end(&mut answer).await);
    };
    soon("the agent's last word", exchange).await;
    answer
}

#[tokio::test]
async fn what_is_no_conversation_ends_and_the_next_one_works() {
    let host = Host::new();
    let stranger = Hello { magic: *b"http", generation: Generation(1) };
    let ancient = Hello { generation: Generation(0), ..Hello::ours() };
    let ping = codec::encode(&Call::from(Ping)).expect("it encodes");
    let greeted = |rest: &[u8]| [hello().as_slice(), rest].concat();
    let conversations: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("half a header", vec![1, 0, 0]),
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("an unknown kind", vec![99, 0, 0, 0, 0, 0, 0, 0]),
        ("padding that is not zero", vec![1, 1, 0, 0, 0, 0, 0, 0]),
        ("a hello without end", vec![1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        ("a hello cut off", hello()[..10].to_vec()),
        ("a stranger's", frame(FrameKind::Hello, &codec::encode(&stranger).expect("encodes"))),
        ("one too old", frame(FrameKind::Hello, &codec::encode(&ancient).expect("encodes"))),
        ("an empty hello", frame(FrameKind::Hello, &[])),
        ("a hello and more in it", frame(FrameKind::Hello, &[b'p', b'y', b'r', b'o', 1, 0, 0])),
        ("a call first", frame(FrameKind::Call, &ping)),
        ("two hellos", greeted(&hello())),
        ("a reply from the host", greeted(&frame(FrameKind::Reply, &[]))),
        ("a call that is none", greeted(&frame(FrameKind::Call, &[0xff; 64]))),
        ("an empty call", greeted(&frame(FrameKind::Call, &[]))),
        ("a call cut off", greeted(&[3, 0, 0, 0, 0, 0, 0x40, 0, 1, 2, 3])),
        ("a call beyond the limit", greeted(&[3, 0, 0, 0, 1, 0, 0x40, 0])),
        (
            "a list longer than its payload",
            greeted(&frame(
                FrameKind::Call,
                &[3, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            )),
        ),
    ];
    for (what, bytes) in conversations {
        answer_to(&host, &bytes).await;
        assert!(host.call(Ping).await.is_ok(), "no answer after {what}");
    }
}

#[tokio::test]
async fn the_agent_says_what_was_wrong() {
    let host = Host::new();
    let mut connection = host.unacquainted();
    connection.writer.send_raw(FrameKind::Stdin, b"x").await.expect("it listens");
    let error: AgentError = connection.next().await.decode(FrameKind::Error).expect("an error");
    assert_eq!(error.kind, AgentErrorKind::Protocol);
    assert!(error.message.contains("Stdin"), "{}", error.message);
}

#[tokio::test]
async fn bytes_without_end_are_not_read_without_end() {
    let host = Host::new();
    // Far more than the agent would have to hold if it read on.
    for filler in [0x00, 0x01, 0x03, 0xff] {
        answer_to(&host, &vec![filler; 16 * 1024 * 1024]).await;
    }
    host.call(Ping).await.expect("the agent answers");
}

#[tokio::test]
async fn a_running_program_is_killed_when_the_host_breaks_the_protocol() {
    let breaches = [
        frame(FrameKind::Call, &[0]),
        hello(),
        frame(FrameKind::Exit, &[0; 3]),
        frame(FrameKind::Signal, &[0]),
        frame(FrameKind::Signal, &codec::encode(&Signal { number: 65 }).expect("it encodes")),
        frame(FrameKind::Signal, &[]),
        frame(FrameKind::StdinEnd, &[]),
        vec![99; 8],
        vec![18, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ];
    let host = Host::new();
    for breach in breaches {
        let running = host.start(argv(&["/bin/sleep", "1000"])).await.expect("it starts");
        let program = Bystander::hold(&running.pid.to_string());
        let mut connection = running.into_connection();
        let mut raw = connection.writer.into_inner();
        raw.write_all(&breach).await.expect("it listens");
        program.dies().await;
        let frame = connection.reader.next();
        let frame = soon("the complaint", frame).await.expect("it says why");
        assert_eq!(frame.kind, FrameKind::Error, "{breach:?}");
    }
    host.call(Ping).await.expect("the agent answers");
}

#[tokio::test]
async fn connections_that_never_speak_keep_nobody_else_waiting() {
    let host = Host::new();
    let silent: Vec<_> = (0..100).map(|_| host.stream()).collect();
    host.call(Ping).await.expect("the agent answers");
    drop(silent);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_bytes_whatever_end_the_agent(bytes in proptest::collection::vec(any::<u8>(), 0..300), greet: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let host = Host::in_phase(pyro_agent::Phase::Waiting);
            let bytes = if greet { [hello(), bytes].concat() } else { bytes };
            answer_to(&host, &bytes).await;
            host.call(Ping).await.expect("the agent answers");
        });
    }
}
