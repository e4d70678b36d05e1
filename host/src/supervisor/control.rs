//! Orders to the supervisor of a kept workspace, on a socket in its directory.
//!
//! ```text
//! client ── one Order, a line of JSON ──▶ supervisor
//! client ◀── one Answer, a line ───────── supervisor, when it is done
//! ```

use super::failure::Failure;
use crate::error::{Error, ErrorKind, Result};
use crate::published::Published;
use crate::vmm::Metrics;
use crate::vsock::short_path;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The socket's file name in a workspace's directory.
pub const SOCKET_NAME: &str = "control.sock";

/// The longest order or answer: a list of all ports that can be published.
const LINE_MAX: u64 = 32 * 1024;

/// How long a client may take to say what it wants.
const ORDER_DEADLINE: Duration = Duration::from_secs(5);

/// Clients that are listened to at the same time; more wait in the listener's
/// queue.
const CLIENTS_MAX: usize = 16;

/// What can be asked of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Power the guest off in good order, and end.
    Stop {
        /// How long its processes may take to obey TERM.
        grace_ms: u32,
    },
    /// Kill the guest, and end: nobody needs its disk.
    Kill,
    /// The workspace's record says something else of how long it lives.
    ReadTtl,
    /// The workspace's record says something else of its network.
    ReadNetwork,
    /// The workspace's secrets are others: hand them to the guest.
    ReadSecrets,
    /// Make the guest stand still.
    Pause,
    /// Let it go on.
    Resume,
    /// Say what the VMM has counted.
    Metrics,
    /// Let programs of the host connect to a TCP port of the guest.
    Publish {
        /// The port in the guest.
        guest_port: NonZeroU16,
        /// The port on the host; any free one if not said.
        host_port: Option<NonZeroU16>,
    },
    /// Let them no more.
    Unpublish {
        /// The port in the guest.
        guest_port: NonZeroU16,
        /// The port on the host; all if not said.
        host_port: Option<NonZeroU16>,
    },
    /// Say what is published.
    Ports,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The guest is gone.
    Stopped {
        /// Whether its disk was made consistent before.
        clean: bool,
    },
    /// So be it.
    Noted,
    /// The guest stands still.
    Paused {
        /// Whether it did before.
        already: bool,
    },
    /// The guest goes on.
    Resumed {
        /// Whether it did before.
        already: bool,
        /// Why its clock is late, if it is.
        clock_is_late: Option<String>,
    },
    /// What the VMM has counted.
    Metrics(Metrics),
    /// A port is published.
    Published {
        /// Where.
        port: Published,
        /// Whether it was before.
        already: bool,
    },
    /// These are published no more.
    Unpublished(Vec<Published>),
    /// These are published.
    Ports(Vec<Published>),
    /// It could not be done; all is as it was before.
    Failed(Failure),
}

/// Where orders arrive.
pub struct Control {
    listener: UnixListener,
    /// Those who have not said yet what they want.
    clients: FuturesUnordered<BoxFuture<'static, Option<Ordered>>>,
}

/// An order and who waits for its answer.
pub struct Ordered {
    /// What is wanted.
    pub order: Order,
    client: UnixStream,
}

impl Control {
    /// Takes orders in a workspace's directory from now on.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn open(directory: &File) -> Result<Self> {
        super::renew(directory, SOCKET_NAME, "control socket")?;
        let listener = UnixListener::bind(short_path(directory.as_fd(), SOCKET_NAME))
            .map_err(|error| Error::io("cannot listen on the control socket", error))?;
        Ok(Self { listener, clients: FuturesUnordered::new() })
    }

    /// The next order. Clients that say nothing sensible are sent away. Dropping
    /// the future loses nobody.
    pub async fn next(&mut self) -> Ordered {
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if self.clients.len() < CLIENTS_MAX => {
                    match accepted {
                        Ok((client, _)) => self.clients.push(hear_in_time(client).boxed()),
                        // Out of descriptors: there will be some.
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                Some(heard) = self.clients.next() => {
                    if let Some(ordered) = heard {
                        return ordered;
                    }
                }
            }
        }
    }
}

async fn hear_in_time(client: UnixStream) -> Option<Ordered> {
    timeout(ORDER_DEADLINE, hear(client)).await.ok()?
}

async fn hear(client: UnixStream) -> Option<Ordered> {
    let mut client = BufReader::new(client);
    let line = read_line(&mut client).await.ok()?;
    let order = serde_json::from_slice(&line).ok()?;
    Some(Ordered { order, client: client.into_inner() })
}

async fn read_line(from: &mut BufReader<UnixStream>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    Ok(line)
}

impl Answer {
    /// That it could not be done, and why.
    #[must_use]
    pub fn failed(error: Error) -> Self {
        Self::Failed(Failure::from(&error))
    }
}

impl Ordered {
    /// Says that it is done, to whoever still waits.
    pub async fn answer(mut self, answer: Answer) {
        if let Ok(mut line) = serde_json::to_vec(&answer) {
            line.push(b'\n');
            drop(self.client.write_all(&line).await);
        }
    }
}

/// Gives an order to the supervisor of the workspace in a directory and waits
/// until it is carried out. `None` when there is no supervisor, or it ended
/// without an answer.
///
/// # Errors
/// `TimedOut` when nothing comes of it before the deadline; and when there may be
/// one that cannot be told.
pub async fn order(directory: &Path, order: Order, deadline: Duration) -> Result<Option<Answer>> {
    let asking = async {
        let directory = File::open(directory)?;
        let mut client = UnixStream::connect(short_path(directory.as_fd(), SOCKET_NAME)).await?;
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        client.write_all(&line).await?;
        read_line(&mut BufReader::new(client)).await
    };
    match timeout(deadline, asking).await {
        Ok(Ok(line)) if line.is_empty() => Ok(None),
        Ok(Ok(line)) => serde_json::from_slice(&line).map(Some).map_err(|error| {
            Error::new(ErrorKind::Internal, "a supervisor's answer is malformed").because(error)
        }),
        Ok(Err(error)) if is_nobody(&error) => Ok(None),
        Ok(Err(error)) => {
            Err(Error::io(format!("cannot reach the supervisor in {}", directory.display()), error))
        }
        Err(_) => Err(Error::new(
            ErrorKind::TimedOut,
            format!("the supervisor did not answer within {} s", deadline.as_secs()),
        )),
    }
}

/// Whether an error says that nobody is behind the socket, or not any more.
fn is_nobody(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    [NotFound, ConnectionRefused, ConnectionReset, BrokenPipe].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_says_nothing_delays_nobody() {
        let home = tempfile::tempdir().expect("a directory");
        let mut control = Control::open(&File::open(home.path()).expect("ours")).expect("a socket");
        let path = home.path().join(SOCKET_NAME);
        let silent = UnixStream::connect(path).await.expect("it listens");
        let asking = order(home.path(), Order::Kill, ORDER_DEADLINE / 2);
        let (answer, ()) = tokio::join!(asking, async {
            let ordered = control.next().await;
            assert_eq!(ordered.order, Order::Kill);
            ordered.answer(Answer::Noted).await;
        });
        assert_eq!(answer.expect("in time"), Some(Answer::Noted));
        drop(silent);
    }

    #[tokio::test]
    async fn nobody_is_told_from_one_who_cannot_be_reached() {
        let home = tempfile::tempdir().expect("a directory");
        let asked = order(home.path(), Order::Kill, ORDER_DEADLINE).await;
        assert_eq!(asked.expect("nobody"), None);
        // As a killed supervisor leaves it.
        let path = home.path().join(SOCKET_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).expect("ours"));
        let asked = order(home.path(), Order::Kill, ORDER_DEADLINE).await;
        assert_eq!(asked.expect("nobody"), None);
        std::fs::remove_file(&path).expect("ours");
        std::os::unix::fs::symlink(SOCKET_NAME, &path).expect("linked");
        let error = order(home.path(), Order::Kill, ORDER_DEADLINE).await.expect_err("a loop");
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
