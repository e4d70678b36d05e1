//! Readiness: one look after another until one says yes or the time is over.
//!
//! A look never fails: what is refused, cut off, garbled or late is "not yet".

mod http;

use super::entry::Spec;
use crate::guest::Guest;
use crate::process::{Process, spawn};
use pyro_protocol::ByteString;
use pyro_protocol::process::{Outcome, StartProcess};
use pyro_protocol::service::{INTERVAL_MS_MIN, Probe, READY_TIMEOUT_MS_MAX, Readiness, TcpAddress};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{copy, sink};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// How long a connection may take within the guest.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a request and the first line of its answer may take.
const HTTP_PATIENCE: Duration = Duration::from_secs(2);

/// How long a command may take.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);

/// Threads that look at files. A file system that does not answer holds up no
/// more.
const FILES_AT_ONCE: usize = 2;

/// The looks at files of all services.
pub(super) struct Looks(Arc<Semaphore>);

impl Default for Looks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FILES_AT_ONCE)))
    }
}

/// Whether the service becomes ready in time. Without a readiness it is.
pub(super) async fn ready_in_time(guest: &Arc<Guest>, spec: &Spec) -> bool {
    let Some(Readiness { probe, interval_ms, timeout_ms }) = &spec.readiness else {
        return true;
    };
    let interval = Duration::from_millis((*interval_ms).max(INTERVAL_MS_MIN).into());
    let allowed = Duration::from_millis((*timeout_ms).min(READY_TIMEOUT_MS_MAX).into());
    let looking = async {
        while !look(guest, spec, probe).await {
            sleep(interval).await;
        }
    };
    timeout(allowed, looking).await.is_ok()
}

async fn look(guest: &Arc<Guest>, spec: &Spec, probe: &Probe) -> bool {
    match probe {
        Probe::File(path) => {
            let path = guest.directory(Some(path));
            let Ok(turn) = guest.services.looks.0.clone().acquire_owned().await else {
                return false;
            };
            let looked = spawn_blocking(move || {
                let _turn = turn;
                path.metadata().is_ok()
            });
            looked.await.unwrap_or(false)
        }
        Probe::Tcp(address) => connect(address).await.is_some(),
        Probe::Http(url) => timeout(HTTP_PATIENCE, http::answers(url)).await.unwrap_or(false),
        Probe::Command(words) => succeeds(guest, words, &spec.program).await,
    }
}

/// A connection to an address in the guest.
async fn connect(address: &TcpAddress) -> Option<TcpStream> {
    for socket in address.sockets() {
        if let Ok(Ok(stream)) = timeout(CONNECT_PATIENCE, TcpStream::connect(socket)).await {
            return Some(stream);
        }
    }
    None
}

/// Runs a command as and where the service runs. It is ended with all it started
/// when it takes too long or nobody waits for its answer.
async fn succeeds(guest: &Arc<Guest>, words: &[ByteString], service: &StartProcess) -> bool {
    let call = StartProcess { argv: words.to_vec(), ..service.clone() };
    let (mut answer, answered) = oneshot::channel();
    let guest = guest.clone();
    // In a task of its own: however its caller leaves, it is ended and reaped.
    tokio::spawn(async move {
        let Ok(process) = spawn(&guest, call).await else { return };
        let Process { leash, stdin: _, mut stdout, mut stderr } = process;
        let ended = async {
            let (mut nowhere, mut nor_there) = (sink(), sink());
            tokio::select! {
                gone = leash.gone() => gone.is_ok(),
                // It may close them, and go on.
                _ = async {
                    let copies = (copy(&mut stdout, &mut nowhere), copy(&mut stderr, &mut nor_there));
                    drop(tokio::join!(copies.0, copies.1));
                    std::future::pending::<()>().await;
                } => false,
            }
        };
        let in_time = tokio::select! {
            ended = timeout(COMMAND_PATIENCE, ended) => ended.unwrap_or(false),
            () = answer.closed() => false,
        };
        let did_well = in_time && matches!(leash.outcome(), Ok(Outcome::Exited { code: 0 }));
        leash.end().await;
        // Nobody may be waiting.
        let _ = answer.send(did_well);
    });
    answered.await.unwrap_or(false)
}
