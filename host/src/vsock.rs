//! The one kind of endpoint: a Unix socket that speaks Firecracker's
//! `CONNECT <port>\n` and answers `OK <n>\n`. On Firecracker the VMM serves it,
//! on QEMU [`endpoint`] does, inside the supervisor; nobody above can tell.

pub mod calls;
pub mod endpoint;
mod socket;

pub use socket::Socket;

use pyro_protocol::VsockPort;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Where the endpoint is in a workspace's directory; a VMM that serves it has
/// this place for its sockets and can change all in it.
pub const DIRECTORY: &str = "vmm";

/// The endpoint's file name there.
pub const SOCKET_NAME: &str = "vsock.sock";

/// The longest line of the connection's opening, `\n` included.
const LINE_MAX: usize = 32;

/// A path to `name` in an open directory that is short whatever the
/// directory's own path is: a socket's address has room for 107 bytes.
#[must_use]
pub fn short_path(directory: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// The endpoint of one guest: its very socket, whatever comes in its place.
#[derive(Debug, Clone)]
pub struct Endpoint(Socket);

impl Endpoint {
    /// Finds the endpoint in a workspace's directory.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub fn open(directory: impl AsFd) -> io::Result<Self> {
        Socket::open(directory, SOCKET_NAME).map(Self)
    }

    /// Asks for a connection to a vsock port, and does not wait for the guest.
    ///
    /// # Errors
    /// Whatever the socket gives.
    pub async fn dial(&self, port: VsockPort) -> io::Result<Dialled> {
        let mut stream = self.0.connect().await?;
        stream.write_all(format!("CONNECT {}\n", port.0).as_bytes()).await?;
        Ok(Dialled { stream, port })
    }

    /// Connects to a vsock port of the guest.
    ///
    /// # Errors
    /// `ConnectionRefused` when the guest does not listen on the port, and whatever
    /// the socket gives. Needs a deadline around it: a guest may never answer.
    pub async fn connect(&self, port: VsockPort) -> io::Result<UnixStream> {
        self.dial(port).await?.answered().await
    }
}

/// Connects to a vsock port of the guest whose endpoint lies in a workspace's
/// directory.
///
/// # Errors
/// Those of [`Endpoint::open`] and [`Endpoint::connect`].
pub async fn connect(directory: impl AsFd, port: VsockPort) -> io::Result<UnixStream> {
    Endpoint::open(directory)?.connect(port).await
}

/// A connection that was asked for.
#[derive(Debug)]
pub struct Dialled {
    stream: UnixStream,
    port: VsockPort,
}

impl Dialled {
    /// Waits until the guest has answered.
    ///
    /// # Errors
    /// As [`connect`].
    pub async fn answered(mut self) -> io::Result<UnixStream> {
        match read_line(&mut self.stream).await {
            Ok(line) if line.starts_with(b"OK ") => Ok(self.stream),
            Ok(_) => Err(refused(self.port)),
            // That is how both Firecracker and our endpoint say no.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(refused(self.port)),
            Err(error) => Err(error),
        }
    }
}

fn refused(port: VsockPort) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, format!("the guest does not listen on {port}"))
}

/// Reads up to a newline, which is left out. Byte by byte: what follows the
/// line belongs to the guest.
async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(LINE_MAX);
    while line.len() < LINE_MAX {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            byte => line.push(byte),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the vsock endpoint's line is too long"))
}
