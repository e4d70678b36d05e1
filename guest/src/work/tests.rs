//! Who works, who waits, and who gives way.

use super::*;
use pyro_protocol::piece::PieceSink;
use tokio::io::{DuplexStream, ReadHalf, WriteHalf, duplex, split};

type Ours = Connection<ReadHalf<DuplexStream>, WriteHalf<DuplexStream>>;

/// The agent's end of a connection, and the host's.
fn connection() -> (Ours, DuplexStream) {
    let (host, ours) = duplex(1024);
    let (reader, writer) = split(ours);
    (Connection::new(FrameReader::new(reader), FrameWriter::new(writer)), host)
}

fn one_at_a_time() -> &'static Turns {
    Box::leak(Box::new(Turns::new(1, Duration::from_millis(1))))
}

#[tokio::test]
async fn p3_who_leaves_while_waiting_for_a_turn_is_not_served() {
    let turns = one_at_a_time();
    let _taken = turns.take().await;
    let (mut connection, host) = connection();
    drop(host);
    let done = turns.run(&mut connection, |_| -> Result<(), Stop> { unreachable!() }).await;
    assert!(matches!(done, Err(Lost::Closed)), "{done:?}");
    let sent = turns.send(&mut connection, |_, _| -> Result<(), Stop> { unreachable!() }).await;
    assert!(matches!(sent, Err(Lost::Closed)), "{sent:?}");
}

#[tokio::test]
async fn p3_who_has_left_when_its_turn_comes_is_not_served() {
    let caller = Caller::default();
    let turn = one_at_a_time().take().await;
    let cancel = caller.cancel();
    drop(caller);
    let late = Caller(cancel);
    let thread = start(turn, &late, |_| -> Result<(), Stop> { unreachable!() });
    assert!(matches!(thread.await, Ok(Err(Stop::CutOff))));
}

#[tokio::test]
async fn p3_a_host_that_takes_nothing_is_in_nobodys_way() {
    let turns = one_at_a_time();
    let (mut connection, _host) = connection();
    let endless = |outgoing: &mut Outgoing, _: &Cancel| -> Result<(), Stop> {
        loop {
            let room = outgoing.spare()?.len();
            outgoing.advance(room);
        }
    };
    let (sent, _turn) = tokio::join!(turns.send(&mut connection, endless), turns.take());
    assert!(matches!(sent, Err(Lost::Io(_))), "{sent:?}");
}

#[tokio::test]
async fn p3_a_host_that_gives_nothing_is_in_nobodys_way() {
    let turns = one_at_a_time();
    let (mut connection, _host) = connection();
    let taking = |mut incoming: Incoming, _: &Cancel| -> Result<(), Stop> {
        while incoming.bytes()?.is_some() {}
        Ok(())
    };
    let (received, _turn) = tokio::join!(turns.receive(&mut connection, taking), turns.take());
    assert!(matches!(received, Err(Lost::Io(_))), "{received:?}");
}

#[tokio::test]
async fn s4_work_that_sends_nothing_ends_with_its_caller() {
    let turns = one_at_a_time();
    let (mut connection, host) = connection();
    drop(host);
    let scanning = |_: &mut Outgoing, cancel: &Cancel| -> Result<(), Stop> {
        loop {
            cancel.check()?;
        }
    };
    let sent = turns.send(&mut connection, scanning).await;
    assert!(matches!(sent, Err(Lost::Closed)), "{sent:?}");
}
