//! TCP connections carried to the guest.

use super::Connection;
use pyro_protocol::{Lost, tunnel};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Carries all that passes between a socket and the port that the agent is
    /// connected to, until both directions have ended.
    ///
    /// # Errors
    /// When one was cut off. The socket is reset then.
    pub(crate) async fn join(mut self, socket: TcpStream) -> Result<(), Lost> {
        tunnel::join(&mut self.reader, &mut self.writer, socket).await
    }
}
