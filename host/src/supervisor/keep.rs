//! The life of a guest whose workspace is kept: until somebody stops it, its
//! time is over, or it goes away by itself.

mod obey;

use super::control::{Control, Reply};
use super::order::{Became, ClaimId, Kill, Stop, Stopped};
use super::pausing::{CLOCK_MAX, Told};
use super::ports::Ports;
use super::ttl::{self, Ttl, TtlAction};
use super::{Came, Guest, Ready, Terminate, alarm, renew};
use crate::error::{Error, Result};
use crate::event_log::{EventLog, Happening, StoppedBy};
use crate::secret::SecretStore;
use crate::store::lock::Lock;
use crate::store::{discard_dir, record};
use crate::vmm::Rung;
use crate::vsock::calls::{Calls, Silence};
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// How a running guest came up, in its workspace's directory. Left behind by a
/// guest that went away unasked: so the next command knows.
pub const RUNNING_NAME: &str = "running.json";

/// How long processes may take to obey TERM when nobody says.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long a powered-off machine may take beyond that.
const OFF_DEADLINE: Duration = Duration::from_secs(20);

/// How long a guest that stands still may take to go on when it is to go off.
const WAKE_MAX: Duration = Duration::from_secs(10);

/// How long a stop may take beyond its processes' grace.
pub(crate) const OFF_MAX: Duration =
    Duration::from_secs(WAKE_MAX.as_secs() + CLOCK_MAX.as_secs() + OFF_DEADLINE.as_secs());

/// How long after one look whether calls are underway the next is where nobody
/// can tell.
const UNTOLD: Duration = Duration::from_secs(30);

/// Calls that follow one another as closely as this are one that lasts: who
/// waits for a process asks for its end again and again.
const QUIET: Duration = Duration::from_secs(1);

/// How a running guest came up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// When it answered calls.
    pub since: Timestamp,
    /// See [`Ready`].
    pub ready: Ready,
    /// What runs it; unknown of a guest that an older pyro started.
    #[serde(default)]
    pub rung: Option<Rung>,
    /// Since when it stands still, if it does.
    #[serde(default)]
    pub paused_at: Option<Timestamp>,
}

impl record::Record for Running {
    const VERSION: u32 = 1;
}

/// What ended a guest's life.
enum End {
    Stopped { by: Reply<Stop>, grace: Duration },
    Killed { by: Reply<Kill> },
    Expired(Expired),
    Signalled,
    Crashed(String),
}

/// That a workspace's time is over, and what is to happen.
struct Expired {
    action: TtlAction,
    /// Until it has happened.
    _record: Lock,
    _silence: Option<Silence>,
}

/// A kept workspace's directory, with all in it by which others find its guest.
pub(super) struct Settled {
    directory: PathBuf,
    handle: File,
    control: Control,
    log: EventLog,
    calls: Calls,
    ttl: Option<Ttl>,
    told: Told,
    ports: Ports,
    /// Those who start or end services; each gives its claim when it has left.
    claimants: FuturesUnordered<BoxFuture<'static, ClaimId>>,
    secrets: SecretStore,
}

/// Puts everything in place for others to find a guest. Orders that have come
/// already are heard once it lives.
pub(super) fn settle(
    guest: &Guest,
    control: Control,
    rung: Rung,
    directory: PathBuf,
    secrets: SecretStore,
) -> Result<Settled> {
    let handle = File::open(&directory)
        .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error))?;
    let calls = Calls::watch(&handle)?;
    let ports = Ports::new(guest.way.clone(), &handle)
        .map_err(|error| Error::io("cannot get ready to publish ports", error))?;
    let log = EventLog::within(&directory);
    let (since, ready) = (Timestamp::now(), guest.ready.clone());
    let running = Running { since, ready, rung: Some(rung), paused_at: None };
    let told = Told::new(&directory, running)?;
    if let Some(network) = &guest.network {
        network.settle(&directory)?;
    }
    let ready = &guest.ready;
    let template_failure = match &ready.came {
        Came::BootedInstead(why) => Some(why.clone()),
        Came::Booted | Came::Restored => None,
    };
    let (boot_ms, restored) = (ready.boot_ms(), ready.is_restored());
    note(&log, Happening::Started { boot_ms, restored, template_failure });
    // What is written later is told: the socket is there.
    let ttl = ttl::read(&directory)?;
    let claimants = FuturesUnordered::new();
    Ok(Settled { directory, handle, control, log, calls, ttl, told, ports, claimants, secrets })
}

impl Settled {
    /// Lives with the guest; returns when both have ended.
    pub(super) async fn live(mut self, mut guest: Guest, mut terminate: Terminate) -> Result<()> {
        let end = loop {
            // Those of a guest that stands still would never end.
            let calls = self.told.paused_at().is_none().then_some(&self.calls);
            tokio::select! {
                how = guest.run_until_end() => break End::Crashed(how),
                ordered = self.control.next() => {
                    if let ControlFlow::Break(end) = self.obey(ordered, &mut guest).await {
                        break end;
                    }
                }
                Some(claim) = self.claimants.next() => {
                    self.settle_ports(claim, Became::Over).await;
                }
                expired = over(&self.directory, self.ttl, calls) => break End::Expired(expired),
                () = terminate.told() => break End::Signalled,
            }
        };
        let Self { directory, handle, log, told, mut ports, .. } = self;
        if let Some(network) = &guest.network {
            network.expect_end();
        }
        // Nobody else is to find it; and one that somebody ends has not crashed.
        // Whatever cannot be removed, the guest still goes off in good order.
        if !matches!(end, End::Crashed(_)) {
            drop(remove(&directory.join(RUNNING_NAME)));
        }
        ports.end().await;
        drop(crate::vsock::endpoint::close(&handle));
        drop(renew(&handle, super::control::SOCKET_NAME, "control socket"));
        let paused = told.paused_at().is_some();
        carry_out(end, guest, paused, &directory, &log).await
    }
}

async fn carry_out(
    end: End,
    mut guest: Guest,
    paused: bool,
    directory: &Path,
    log: &EventLog,
) -> Result<()> {
    let gone = |by, clean| note(log, Happening::Stopped { by, clean });
    match end {
        End::Crashed(how) => note(log, Happening::Crashed { how }),
        End::Signalled => {
            let clean = guest.go_off(paused, GRACE).await;
            gone(StoppedBy::Signal, clean);
        }
        End::Expired(expired) => {
            let clean = guest.go_off(paused, GRACE).await;
            gone(StoppedBy::Ttl, clean);
            match expired.action {
                TtlAction::Stop => {}
                TtlAction::Delete => discard_dir(directory)?,
            }
        }
        End::Stopped { by, grace } => {
            let clean = guest.go_off(paused, grace).await;
            gone(StoppedBy::Request, clean);
            by.answer(Ok(Stopped { clean })).await;
        }
        End::Killed { by } => {
            guest.kill().await;
            gone(StoppedBy::Request, false);
            by.answer(Ok(())).await;
        }
    }
    Ok(())
}

/// Returns when the time is over, whatever others wrote of it meanwhile, and none
/// of these calls is underway. From then on nobody can renew it, or call.
async fn over(directory: &Path, mut ttl: Option<Ttl>, calls: Option<&Calls>) -> Expired {
    loop {
        // A process that goes on without its caller is no call: one that was
        // forgotten would keep the workspace for ever.
        alarm::until(ttl).await;
        let silence = match calls {
            None => None,
            Some(calls) => match calls.silence(QUIET).await {
                Ok(silence) => Some(silence),
                Err(_) => {
                    tokio::time::sleep(UNTOLD).await;
                    continue;
                }
            },
        };
        // Somebody changes it this moment, or it is gone: then it is over soon.
        let Ok(record) = ttl::lock_record(directory).await else { continue };
        ttl = ttl::read(directory).unwrap_or(ttl);
        if let Some(Ttl { action, .. }) = ttl.filter(Ttl::is_over) {
            return Expired { action, _record: record, _silence: silence };
        }
    }
}

/// What cannot be written down has happened all the same.
fn note(log: &EventLog, happening: Happening) {
    drop(log.append(happening));
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("cannot remove {}", path.display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Guest {
    /// Ends it in good order, which one that stands still must first wake up
    /// for. Says whether it obeyed.
    async fn go_off(&mut self, paused: bool, grace: Duration) -> bool {
        if paused && !matches!(timeout(WAKE_MAX, self.process.resume()).await, Ok(Ok(()))) {
            self.kill().await;
            return false;
        }
        if paused {
            // What it writes last is to bear the right time, if that can be.
            drop(self.set_clock().await);
        }
        self.power_off(grace).await
    }

    /// Asks the guest to end everything and to write its disk out, and waits
    /// for its end; kills it when it does not. Says whether it obeyed.
    async fn power_off(&mut self, grace: Duration) -> bool {
        let deadline = grace.saturating_add(OFF_DEADLINE);
        let way = self.way.clone();
        let asking = async move {
            let mut connection = way.greet().await?;
            let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            connection.call(pyro_protocol::power::PowerOff { grace_ms }, deadline).await
        };
        let obeyed = timeout(deadline, async {
            let asked = tokio::select! {
                asked = asking => asked.is_ok(),
                _ = self.run_until_end() => false,
            };
            // Its reply means that the disk is consistent; closing the
            // connection lets it go off.
            if asked {
                self.run_until_end().await;
            }
            asked
        });
        let obeyed = obeyed.await.unwrap_or(false);
        self.kill().await;
        obeyed
    }

    /// Ends the VMM, if it has not ended.
    async fn kill(&mut self) {
        self.process.kill();
        self.process.wait().await;
    }
}
