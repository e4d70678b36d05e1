//! One TCP connection: from a held SYN to the end of both directions.

use super::packet::Key;
use super::stack::Stack;
use super::{Carrier, Gate};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{RecvError, State};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long the host may take to connect: four SYNs without an answer. Connections
/// to hosts that are not there are in the way of others.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// Which directions are still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    Ended,
}

struct Connection {
    handle: SocketHandle,
    stream: TcpStream,
    established: bool,
    /// From the guest.
    up: Half,
    /// To it.
    down: Half,
    ending: bool,
    end: End,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both sides have said all they had.
    Orderly,
    /// One of them gave up; the other is told.
    Reset,
}

/// Why nothing moves.
enum Stuck {
    /// The guest has nothing to say, or takes nothing.
    Guest,
    /// The other end does not.
    Remote,
    /// The other end is lost.
    Failed,
    /// The other end has said all.
    Ended,
}

/// Connects and carries bytes until it is over. The flow is in the table from
/// before until after.
pub(super) async fn carry(gate: Rc<Gate>, key: Key, syn: Vec<u8>, end: CancellationToken) {
    let connecting = timeout(CONNECT_MAX, gate.host.connect(key.remote));
    let connected = tokio::select! {
        biased;
        () = end.cancelled() => None,
        connected = connecting => connected.ok().and_then(Result::ok),
    };
    let room = {
        let mut shared = gate.shared.borrow_mut();
        shared.limits.connecting -= 1;
        shared.limits.take_room()
    };
    if let Some(stream) = connected {
        let handle = gate.shared.borrow_mut().stack.accept(key.remote, syn, room);
        if let Some(handle) = handle {
            if let Some(flow) = gate.shared.borrow_mut().flows.get_mut(&key) {
                flow.carrier = Carrier::Connection;
            }
            gate.stirred.notify_one();
            relay(&gate, handle, stream, &end).await;
        }
    } else {
        // With no listener a SYN is answered by RST.
        gate.shared.borrow_mut().stack.take(syn);
    }
    let mut shared = gate.shared.borrow_mut();
    shared.limits.give_room(room);
    shared.flows.remove(&key);
    gate.stirred.notify_one();
}

async fn relay(gate: &Gate, handle: SocketHandle, stream: TcpStream, end: &CancellationToken) {
    let mut connection = Connection {
        handle,
        stream,
        established: false,
        up: Half::Open,
        down: Half::Open,
        ending: false,
        end: End::Reset,
    };
    let carrying = poll_fn(|context| {
        let stack = &mut gate.shared.borrow_mut().stack;
        let mut moved = false;
        let polled = connection.poll(stack, context, &mut moved);
        if moved {
            gate.stirred.notify_one();
        }
        polled
    });
    let ended = tokio::select! {
        biased;
        () = end.cancelled() => End::Reset,
        ended = carrying => ended,
    };
    connection.end = ended;
    gate.shared.borrow_mut().stack.remove(handle);
}

impl Drop for Connection {
    /// Closing tells the other end that all was well; this, that it was not. Also
    /// of one that is dropped midway.
    fn drop(&mut self) {
        match self.end {
            End::Orderly => {}
            // Without it, the other end takes what it has for all there was.
            End::Reset => drop(self.stream.set_zero_linger()),
        }
    }
}

impl Connection {
    /// Moves what can be moved, both ways.
    fn poll(&mut self, stack: &mut Stack, cx: &mut Context<'_>, moved: &mut bool) -> Poll<End> {
        let state = stack.socket(self.handle).state();
        if state == State::SynReceived {
            stack.socket(self.handle).register_recv_waker(cx.waker());
            return Poll::Pending;
        }
        if !self.established {
            self.established = true;
            stack.established(self.handle);
        }
        if self.up == Half::Open && self.poll_up(stack, cx, moved).is_err() {
            return Poll::Ready(End::Reset);
        }
        if self.down == Half::Open && self.poll_down(stack, cx, moved).is_err() {
            return Poll::Ready(End::Reset);
        }
        if (self.up, self.down) != (Half::Ended, Half::Ended) {
            return Poll::Pending;
        }
        if !self.ending {
            self.ending = true;
            stack.ending(self.handle);
        }
        let socket = stack.socket(self.handle);
        match socket.state() {
            // Nobody else will use this pair of ports: there is no need to wait.
            State::Closed | State::TimeWait => Poll::Ready(End::Orderly),
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {
                socket.register_recv_waker(cx.waker());
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
        }
    }

    /// From the guest to the other end.
    fn poll_up(
        &mut self,
        stack: &mut Stack,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> io::Result<()> {
        let socket = stack.socket(self.handle);
        loop {
            let stream = &self.stream;
            let received = socket.recv(|data| {
                if data.is_empty() {
                    return (0, Err(Stuck::Guest));
                }
                match stream.try_write(data) {
                    Ok(written) => (written, Ok(())),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        (0, Err(Stuck::Remote))
                    }
                    Err(_) => (0, Err(Stuck::Failed)),
                }
            });
            match received {
                Ok(Ok(())) => *moved = true,
                Ok(Err(Stuck::Guest)) => {
                    socket.register_recv_waker(cx.waker());
                    return Ok(());
                }
                Ok(Err(Stuck::Remote)) => match self.stream.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => {
                        // A reset is to be heard of all the same.
                        socket.register_recv_waker(cx.waker());
                        return Ok(());
                    }
                },
                Ok(Err(Stuck::Failed | Stuck::Ended)) | Err(RecvError::InvalidState) => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Err(RecvError::Finished) => {
                    self.up = Half::Ended;
                    rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write)?;
                    return Ok(());
                }
            }
        }
    }

    /// From the other end to the guest.
    fn poll_down(
        &mut self,
        stack: &mut Stack,
        cx: &mut Context<'_>,
        moved: &mut bool,
    ) -> io::Result<()> {
        let socket = stack.socket(self.handle);
        loop {
            let stream = &self.stream;
            let sent = socket.send(|room| {
                if room.is_empty() {
                    return (0, Err(Stuck::Guest));
                }
                match stream.try_read(room) {
                    Ok(0) => (0, Err(Stuck::Ended)),
                    Ok(read) => (read, Ok(())),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        (0, Err(Stuck::Remote))
                    }
                    Err(_) => (0, Err(Stuck::Failed)),
                }
            });
            match sent {
                Ok(Ok(())) => *moved = true,
                Ok(Err(Stuck::Guest)) => {
                    socket.register_send_waker(cx.waker());
                    return Ok(());
                }
                Ok(Err(Stuck::Remote)) => match self.stream.poll_read_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => {
                        socket.register_send_waker(cx.waker());
                        return Ok(());
                    }
                },
                Ok(Err(Stuck::Ended)) => {
                    self.down = Half::Ended;
                    *moved = true;
                    socket.close();
                    return Ok(());
                }
                // The guest has reset it, or the other end has.
                Ok(Err(Stuck::Failed)) | Err(_) => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
            }
        }
    }
}
