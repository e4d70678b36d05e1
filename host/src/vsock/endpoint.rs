//! Serves the endpoint over a multiplexed channel, as Firecracker would over
//! its vsock device.

use super::{DIRECTORY, SOCKET_NAME, read_line, short_path};
use crate::error::{Error, Result};
use pyro_protocol::VsockPort;
use pyro_protocol::carry::{self, HEADROOM};
use pyro_protocol::channel::{Acceptor, Opener, Receiver, STREAM_UNIT, Sender};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a caller may take to say which port it wants.
const OPENING_DEADLINE: Duration = Duration::from_secs(5);

/// How long the guest may take to accept. Callers have deadlines of their own;
/// this one frees the place of a caller that has left.
const ACCEPT_DEADLINE: Duration = Duration::from_secs(30);

/// How long the guest may take to end a connection whose caller has left: it ends
/// what was called, and closes. One that does not is no reason to stay.
const LEAVING_DEADLINE: Duration = Duration::from_secs(30);

/// Connections at the same time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 192;

/// What is moved at once.
const CHUNK: usize = STREAM_UNIT;

/// Listens in a workspace's directory, where an earlier guest may have left its
/// endpoint.
pub fn listen(directory: &File) -> Result<UnixListener> {
    let failed = |error| Error::io("cannot listen on the vsock endpoint", error);
    close(directory)?;
    let path = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match mkdirat(directory, DIRECTORY, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => openat(directory, DIRECTORY, path, Mode::empty()),
        Err(errno) => Err(errno),
    };
    let place = place.map_err(|errno| failed(errno.into()))?;
    UnixListener::bind(short_path(place.as_fd(), SOCKET_NAME)).map_err(failed)
}

/// Takes the endpoint away, so that nobody finds it any more; connections go on.
pub fn close(directory: &File) -> Result<()> {
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let closed = openat(directory, DIRECTORY, path, Mode::empty())
        .and_then(|place| unlinkat(place, SOCKET_NAME, AtFlags::empty()));
    match closed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::io("cannot remove an old vsock endpoint", errno.into())),
    }
}

/// Serves until dropped. What the guest opens to `announce_port` goes to
/// `announced`; every other port of the host is refused.
pub async fn serve(
    listener: &UnixListener,
    opener: Opener,
    mut acceptor: Acceptor,
    announce_port: VsockPort,
    announced: mpsc::Sender<pyro_protocol::channel::Stream>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((caller, _)) = accepted else {
                    // Out of descriptors: there will be some.
                    sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let opener = opener.clone();
                connections.spawn(async move {
                    // A caller that goes away, or a guest that refuses, ends
                    // its own connection and nothing else.
                    drop(carry(caller, opener).await);
                });
            }
            inbound = acceptor.accept() => {
                let Some(inbound) = inbound else { return };
                if inbound.port() == announce_port {
                    // Full: it was announced before.
                    drop(announced.try_send(inbound.accept()));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn carry(mut caller: UnixStream, opener: Opener) -> io::Result<()> {
    let line = timeout(OPENING_DEADLINE, read_line(&mut caller)).await??;
    let port = parse_connect(&line)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a CONNECT line"))?;
    let guest = timeout(ACCEPT_DEADLINE, opener.open(port)).await?.map_err(io::Error::other)?;
    // The number is the host's port on a real vsock; nobody reads it.
    caller.write_all(format!("OK {}\n", port.0).as_bytes()).await?;
    let hang_up = HangUp::of(&caller)?;
    let (from_guest, to_guest) = guest.into_split();
    let (from_caller, to_caller) = caller.split();
    let mut asking = pin!(into_guest(from_caller, to_guest));
    let mut answering = pin!(out_of_guest(from_guest, to_caller));
    tokio::select! {
        asked = &mut asking => asked?,
        answered = &mut answering => {
            answered?;
            return asking.await;
        }
    }
    // All is asked. Whether anybody still wants the answer is another question.
    tokio::select! {
        answered = answering => answered,
        left = async {
            hang_up.wait().await?;
            sleep(LEAVING_DEADLINE).await;
            Err(io::ErrorKind::TimedOut.into())
        } => left,
    }
}

/// Notices that a caller closed its socket, and not one direction only.
struct HangUp(OwnedFd);

impl HangUp {
    fn of(caller: &UnixStream) -> io::Result<Self> {
        caller.as_fd().try_clone_to_owned().map(Self)
    }

    /// On a registration of its own: what is forgotten of this one's readiness is
    /// nobody else's.
    async fn wait(self) -> io::Result<()> {
        // SAFETY: the descriptor is owned and stays the same.
        let caller = unsafe { AsyncFd::register_with_interest(self.0, Interest::WRITABLE) }?;
        loop {
            let mut ready = caller.ready(Interest::WRITABLE).await?;
            if ready.ready().is_write_closed() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

/// Until the caller's end, which becomes the guest's.
async fn into_guest(mut from: ReadHalf<'_>, mut to: Sender) -> io::Result<()> {
    loop {
        // An idle connection holds no buffer.
        from.readable().await?;
        let mut buffer = Vec::with_capacity(HEADROOM + CHUNK);
        buffer.resize(HEADROOM, 0);
        match from.read_buf(&mut buffer).await? {
            0 => return to.shutdown().await,
            _ => carry::carry(&mut to, buffer).await?,
        }
    }
}

/// Until the guest's end, which becomes the caller's.
async fn out_of_guest(mut from: Receiver, mut to: WriteHalf<'_>) -> io::Result<()> {
    loop {
        let piece = carry::fetch(&mut from, CHUNK).await?;
        if piece.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(&piece).await?;
    }
}

fn parse_connect(line: &[u8]) -> Option<VsockPort> {
    // `parse` would take a sign as well.
    let digits =
        line.strip_prefix(b"CONNECT ").filter(|rest| rest.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(VsockPort)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_plain_number_is_a_port() {
        assert_eq!(parse_connect(b"CONNECT 5005"), Some(VsockPort(5005)));
        assert_eq!(parse_connect(b"CONNECT 0"), Some(VsockPort(0)));
        assert_eq!(parse_connect(b"CONNECT 4294967295"), Some(VsockPort(u32::MAX)));
        for line in [
            "",
            "CONNECT",
            "CONNECT ",
            "CONNECT  1",
            "CONNECT 1 ",
            "CONNECT -1",
            "CONNECT +1",
            "CONNECT 4294967296",
            "connect 1",
            " CONNECT 1",
            "CONNECT 1\r",
            "OK 1",
        ] {
            assert_eq!(parse_connect(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(parse_connect(b"CONNECT \xff"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_a_port_or_none(line: Vec<u8>) {
            parse_connect(&line);
        }

        #[test]
        fn every_port_is_understood(port: u32) {
            let line = format!("CONNECT {port}");
            prop_assert_eq!(parse_connect(line.as_bytes()), Some(VsockPort(port)));
        }

        #[test]
        fn what_is_understood_says_its_port(tail in "[ -~]{0,12}") {
            if let Some(VsockPort(port)) = parse_connect(format!("CONNECT {tail}").as_bytes()) {
                let said = port.to_string();
                prop_assert_eq!(tail.trim_start_matches('0'), said.trim_start_matches('0'));
            }
        }
    }
}
