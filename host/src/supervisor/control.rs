//! Orders to the supervisor of a kept workspace, on a socket in its directory.
//!
//! ```text
//! client ── one Order, a line of JSON ──▶ supervisor
//! client ◀── one Answer, a line ───────── supervisor, when it is done
//! ```

use super::failure::Failure;
use super::order::{AnyOrder, Order, Ordered};
use crate::error::{Error, ErrorKind, Result};
use crate::vsock::short_path;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use std::fs::File;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
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

/// What came of an order: of another kind for each.
type Answer<O> = std::result::Result<<O as Order>::Outcome, Failure>;

/// Where orders arrive.
pub struct Control {
    listener: UnixListener,
    /// Those who have not said yet what they want.
    clients: FuturesUnordered<BoxFuture<'static, Option<Ordered>>>,
}

/// Whoever gave an order, waiting for what comes of it.
pub struct Reply<O> {
    client: UnixStream,
    order: PhantomData<O>,
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
    Some(Ordered::new(order, client.into_inner()))
}

async fn read_line(from: &mut BufReader<UnixStream>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    Ok(line)
}

impl<O: Order> Reply<O> {
    pub(super) const fn to(client: UnixStream) -> Self {
        Self { client, order: PhantomData }
    }

    /// Says what came of the order, to whoever still waits. When it could not be
    /// carried out, all is as it was before.
    pub async fn answer(self, outcome: Result<O::Outcome>) {
        drop(self.answer_and_attend(outcome).await);
    }

    /// Returns when whoever gave the order has left.
    pub async fn leaves(&mut self) {
        left(&mut self.client).await;
    }

    /// Says what came of the order; what is given back is over when whoever gave the order has left.
    pub async fn answer_and_attend(
        mut self,
        outcome: Result<O::Outcome>,
    ) -> BoxFuture<'static, ()> {
        let answer: Answer<O> = outcome.map_err(|error| Failure::from(&error));
        if let Ok(mut line) = serde_json::to_vec(&answer) {
            line.push(b'\n');
            drop(self.client.write_all(&line).await);
        }
        left(self.client).boxed()
    }
}

/// Returns when a client has left, who has nothing more to say.
async fn left(mut client: impl AsyncRead + Unpin) {
    drop(client.read_u8().await);
}

/// That whoever gave an order is still there, for as long as this is.
#[derive(Debug)]
pub struct Presence {
    _client: UnixStream,
}

/// Gives an order to the supervisor of the workspace in a directory and waits
/// until it is carried out. `None` when there is no supervisor, or it ended
/// without an answer.
///
/// # Errors
/// Why it could not be carried out; `TimedOut` when nothing comes of it before the
/// deadline; `Internal` when the answer is to something else; and when there may be
/// a supervisor that cannot be told.
pub async fn give<O: Order>(
    order: O,
    directory: &Path,
    deadline: Duration,
) -> Result<Option<O::Outcome>> {
    Ok(give_and_stay(order, directory, deadline).await?.map(|(outcome, _)| outcome))
}

/// The same, and the supervisor can tell how long its giver is there.
///
/// # Errors
/// As [`give`].
pub async fn give_and_stay<O: Order>(
    order: O,
    directory: &Path,
    deadline: Duration,
) -> Result<Option<(O::Outcome, Presence)>> {
    let order: AnyOrder = order.into();
    let asking = async {
        let directory = File::open(directory)?;
        let mut client = UnixStream::connect(short_path(directory.as_fd(), SOCKET_NAME)).await?;
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        client.write_all(&line).await?;
        let mut client = BufReader::new(client);
        let line = read_line(&mut client).await?;
        Ok((line, Presence { _client: client.into_inner() }))
    };
    let (line, presence) = match timeout(deadline, asking).await {
        Ok(Ok((line, _))) if line.is_empty() => return Ok(None),
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) if is_nobody(&error) => return Ok(None),
        Ok(Err(error)) => {
            let message = format!("cannot reach the supervisor in {}", directory.display());
            return Err(Error::io(message, error));
        }
        Err(_) => {
            let message = format!("the supervisor did not answer within {} s", deadline.as_secs());
            return Err(Error::new(ErrorKind::TimedOut, message));
        }
    };
    let answer: Answer<O> = serde_json::from_slice(&line).map_err(|error| {
        Error::new(ErrorKind::Internal, "a supervisor's answer makes no sense").because(error)
    })?;
    let outcome = answer.map_err(Error::from)?;
    Ok(Some((outcome, presence)))
}

/// Whether an error says that nobody is behind the socket, or not any more.
fn is_nobody(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    [NotFound, ConnectionRefused, ConnectionReset, BrokenPipe].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::super::order::{Kill, Stop, Stopped};
    use super::*;

    #[tokio::test]
    async fn a_client_that_says_nothing_delays_nobody() {
        let home = tempfile::tempdir().expect("a directory");
        let mut control = Control::open(&File::open(home.path()).expect("ours")).expect("a socket");
        let path = home.path().join(SOCKET_NAME);
        let silent = UnixStream::connect(path).await.expect("it listens");
        let asking = give(Stop { grace_ms: 7 }, home.path(), ORDER_DEADLINE / 2);
        let (answer, ()) = tokio::join!(asking, async {
            let Ordered::Stop(Stop { grace_ms: 7 }, by) = control.next().await else {
                panic!("another order arrived");
            };
            by.answer(Ok(Stopped { clean: true })).await;
        });
        assert_eq!(answer.expect("in time"), Some(Stopped { clean: true }));
        drop(silent);
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_told_with_its_kind_and_the_next_step() {
        let home = tempfile::tempdir().expect("a directory");
        let mut control = Control::open(&File::open(home.path()).expect("ours")).expect("a socket");
        let asking = give(Kill, home.path(), ORDER_DEADLINE);
        let (answer, ()) = tokio::join!(asking, async {
            let Ordered::Kill(Kill, by) = control.next().await else {
                panic!("another order arrived");
            };
            by.answer(Err(Error::new(ErrorKind::Unsupported, "it cannot").hint("leave it"))).await;
        });
        let error = answer.expect_err("it cannot");
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, "it cannot"));
        assert_eq!(error.next_step(), Some("leave it"));
    }

    #[tokio::test]
    async fn an_answer_to_something_else_is_an_error() {
        let home = tempfile::tempdir().expect("a directory");
        let endless = "x".repeat(usize::try_from(LINE_MAX).expect("small") + 1);
        let paused = r#"{"Ok":{"already":true}}"#;
        for said in ["\n", "{}\n", r#"{"Ok":null}"#, paused, &endless] {
            let listener = UnixListener::bind(home.path().join(SOCKET_NAME)).expect("a socket");
            let asking = give(Stop { grace_ms: 0 }, home.path(), ORDER_DEADLINE);
            let (answer, ()) = tokio::join!(asking, async {
                let (client, _) = listener.accept().await.expect("it asks");
                let mut client = BufReader::new(client);
                read_line(&mut client).await.expect("its order");
                client.write_all(said.as_bytes()).await.expect("it listens");
            });
            let error = answer.expect_err("it was asked to stop");
            assert_eq!(error.kind(), ErrorKind::Internal, "{said}");
            std::fs::remove_file(home.path().join(SOCKET_NAME)).expect("ours");
        }
    }

    #[tokio::test]
    async fn nobody_is_told_from_one_who_cannot_be_reached() {
        let home = tempfile::tempdir().expect("a directory");
        let asked = give(Kill, home.path(), ORDER_DEADLINE).await;
        assert_eq!(asked.expect("nobody"), None);
        // As a killed supervisor leaves it.
        let path = home.path().join(SOCKET_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).expect("ours"));
        let asked = give(Kill, home.path(), ORDER_DEADLINE).await;
        assert_eq!(asked.expect("nobody"), None);
        std::fs::remove_file(&path).expect("ours");
        std::os::unix::fs::symlink(SOCKET_NAME, &path).expect("linked");
        let error = give(Kill, home.path(), ORDER_DEADLINE).await.expect_err("a loop");
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
