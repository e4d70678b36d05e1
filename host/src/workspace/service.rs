//! Services of a workspace, seen from the host. The guest keeps them; here is
//! nothing written down of them. Only what is published for them is the
//! supervisor's.

mod ports;

pub use ports::Served;

use super::live::Live;
use super::machine::Caller;
use super::place::{Place, State};
use super::port;
use super::program::{Program, start_request};
use crate::agent::AgentClient;
use crate::agent::service::Logged;
use crate::context::Context;
use crate::environment::Environments;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Stream};
use crate::published::Mapping;
use crate::pyro::Pyro;
use crate::secret::Redactor;
use crate::secret::redact::Redacting;
use crate::supervisor::order::{Became, Fate};
use ports::{Claim, served};
use pyro_protocol::service::{
    Readiness, Restart, Service, ServiceCounts, ServiceLogging, ServiceLogs, ServiceName,
    StartService,
};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long those are waited for who only count: long enough for a guest that
/// has little time, short enough for whoever looks at all workspaces.
pub const COUNT_PATIENCE: Duration = Duration::from_secs(1);

/// How many last lines of each stream tell why a start failed.
const REASONS: u32 = 20;

/// A service to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What to call it.
    pub name: ServiceName,
    /// What to run, without a time-out.
    pub program: Program,
    /// What tells that it is ready.
    pub readiness: Option<Readiness>,
    /// What happens when it ends.
    pub restart: Restart,
    /// What is published for it, as long as it is not stopped.
    pub ports: Vec<Mapping>,
}

/// Starts a service, and waits until it is ready or never will be; leaving
/// before that stops it.
///
/// # Errors
/// When it never ran, `Conflict` for a port that cannot be published too.
pub async fn start(pyro: &Pyro, live: &Live, wanted: Wanted, context: &Context) -> Result<Served> {
    let environments = Environments::new(&pyro.config);
    let record = live.record();
    let defaults = &environments.defaults(&record.environment, record.root_digest)?;
    let Wanted { name, program, readiness, restart, ports } = wanted;
    let program = start_request(program.or_defaults(defaults)?, false);
    let call = StartService { name: name.clone(), program, readiness, restart };
    let claim = claim_for_start(live, &name, Fate::Start(ports), context).await?;
    let started = live.agent().start_service(call);
    let started = Caller::from(context).unless_cancelled(started).await;
    let started = started.map_err(|error| {
        if error.kind() != ErrorKind::Conflict {
            return error;
        }
        let id = live.id();
        error.hint(format!(
            "`pyro workspace service restart {id} {name}`, or stop it first and start it anew"
        ))
    });
    claim.started(started, |kind| kind != ErrorKind::Cancelled).await
}

async fn claim_for_start<'a>(
    live: &'a Live,
    name: &ServiceName,
    fate: Fate,
    context: &Context,
) -> Result<Claim<'a>> {
    Claim::make(live, name, fate, context).await.map_err(|error| {
        let hint = error.next_step().map(str::to_owned);
        let kind = error.kind();
        let error = Error::new(kind, format!("service {name} is not started")).because(error);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}

/// Stops a service and starts it as it was started, with the same published ports;
/// as [`start`].
///
/// # Errors
/// `NotFound`, and when it cannot be started any more.
pub async fn restart(
    live: &Live,
    name: &ServiceName,
    grace: Duration,
    context: &Context,
) -> Result<Served> {
    let claim = claim_for_start(live, name, Fate::Restart, context).await?;
    let asked = live.agent().restart_service(name.clone(), grace);
    let asked = known(live, Caller::from(context).unless_cancelled(asked).await);
    // Whatever else goes wrong, it was stopped before.
    let refused = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::Conflict);
    claim.started(asked, refused).await
}

/// How a service is.
///
/// # Errors
/// `NotFound`.
pub async fn status(live: &Live, name: &ServiceName, context: &Context) -> Result<Served> {
    let asked = live.agent().service(name.clone());
    let service = known(live, Caller::from(context).unless_cancelled(asked).await)?;
    Ok(served(service, &port::list(live.place(), context).await?))
}

/// A service that was asked for before, with what is published for it: nothing when
/// its guest has gone meanwhile.
pub async fn as_published(live: &Live, service: Service, context: &Context) -> Served {
    let published = port::list(live.place(), context).await;
    served(service, &published.unwrap_or_default())
}

/// How all services are, by their names.
///
/// # Errors
/// When nobody can say.
pub async fn list(live: &Live, context: &Context) -> Result<Vec<Served>> {
    let services = context.unless_cancelled(live.agent().services()).await?;
    let published = port::list(live.place(), context).await?;
    Ok(services.into_iter().map(|service| served(service, &published)).collect())
}

/// Stops a service, then what is published for it ends; one that is over stays as
/// it is. Leaving does not take it back.
///
/// # Errors
/// `NotFound`.
pub async fn stop(
    live: &Live,
    name: &ServiceName,
    grace: Duration,
    context: &Context,
) -> Result<Served> {
    let claim = Claim::make(live, name, Fate::End, context).await?;
    let asked = live.agent().stop_service(name.clone(), grace);
    let asked = known(live, Caller::from(context).unless_cancelled(asked).await);
    claim.ended(asked, Became::Over).await
}

/// Stops and removes a service with its log; gives how it was last.
///
/// # Errors
/// `NotFound`.
pub async fn remove(
    live: &Live,
    name: &ServiceName,
    grace: Duration,
    context: &Context,
) -> Result<Served> {
    let claim = Claim::make(live, name, Fate::End, context).await?;
    let asked = live.agent().remove_service(name.clone(), grace);
    let asked = known(live, Caller::from(context).unless_cancelled(asked).await);
    claim.ended(asked, Became::Gone).await
}

/// A log that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How the service was at the end of it.
    pub service: Service,
    /// Whether it had written more before.
    pub truncated: bool,
}

/// Passes on what a service wrote, without secrets; all bytes of a log go through
/// `hear`.
///
/// # Errors
/// `NotFound`.
pub async fn logs<H: Future<Output = ()>>(
    live: &Live,
    call: ServiceLogs,
    context: &Context,
    mut hear: impl FnMut(Stream, i64, Vec<u8>) -> H,
) -> Result<Told> {
    let telling = async {
        let asked = live.agent().service_log(call).await;
        let (ServiceLogging { service: _, truncated }, log) = known(live, asked)?;
        let mut discreet = Discreet::new(live.redactor());
        let service = log.finish(|logged| {
            let (told, gone) = discreet.pass(logged);
            let heard = told.map(|Said { stream, at_ns, bytes }| hear(stream, at_ns, bytes));
            async move {
                if let Some(heard) = heard {
                    heard.await;
                }
                if let Some((stream, bytes)) = gone {
                    let gone = format!("{bytes} bytes of {stream} are gone");
                    context.events.emit(Event::Warning(gone)).await;
                }
            }
        });
        let service = service.await;
        for Said { stream, at_ns, bytes } in discreet.finish() {
            hear(stream, at_ns, bytes).await;
        }
        Ok(Told { service: service?, truncated })
    };
    Caller::from(context).unless_cancelled(telling).await
}

/// What a service said, and when.
struct Said {
    stream: Stream,
    at_ns: i64,
    bytes: Vec<u8>,
}

/// Leaves secrets out of both streams of a log.
struct Discreet {
    stdout: (Redacting, i64),
    stderr: (Redacting, i64),
}

impl Discreet {
    fn new(redactor: &Redactor) -> Self {
        Self { stdout: (redactor.stream(), 0), stderr: (redactor.stream(), 0) }
    }

    /// What can be told after this, and what is missing then.
    fn pass(&mut self, logged: Logged) -> (Option<Said>, Option<(Stream, u64)>) {
        let (stream, told, gone) = match logged {
            Logged::Output(stream, at_ns, bytes) => {
                let (redacting, at) = self.of(stream);
                *at = at_ns;
                (stream, redacting.push(bytes), None)
            }
            Logged::Skipped(stream, bytes) => {
                (stream, self.of(stream).0.skip(bytes).0, Some((stream, bytes)))
            }
        };
        (self.said(stream, told), gone)
    }

    /// What was held back.
    fn finish(&mut self) -> impl Iterator<Item = Said> {
        [Stream::Stdout, Stream::Stderr].into_iter().filter_map(|stream| {
            let rest = self.of(stream).0.finish();
            self.said(stream, rest)
        })
    }

    fn said(&mut self, stream: Stream, bytes: Vec<u8>) -> Option<Said> {
        let at_ns = self.of(stream).1;
        (!bytes.is_empty()).then_some(Said { stream, at_ns, bytes })
    }

    fn of(&mut self, stream: Stream) -> &mut (Redacting, i64) {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// The last words of a service that did not start; none if nobody
/// can tell.
pub async fn last_words(
    live: &Live,
    name: &ServiceName,
    context: &Context,
) -> Vec<(Stream, Vec<u8>)> {
    let call = ServiceLogs { name: name.clone(), tail_lines: Some(REASONS), follow: false };
    let mut words = Vec::new();
    let heard = logs(live, call, context, |stream, _, bytes| {
        words.push((stream, bytes));
        std::future::ready(())
    });
    // Why it failed is told all the same.
    drop(heard.await);
    words
}

/// How many services a workspace has, if that can be said at once; nobody is
/// woken up for it. What does not run has none: they go with their guest.
pub async fn count(pyro: &Pyro, place: &Place, deadline: Instant) -> Option<ServiceCounts> {
    match place.state() {
        State::Stopped | State::Crashed => Some(ServiceCounts { services: 0, running: 0 }),
        State::Running => {
            let agent = AgentClient::new(place.path(), pyro.deadlines).ok()?;
            timeout_at(deadline, agent.count_services()).await.ok()?.ok()
        }
        State::Paused | State::Changing | State::Damaged => None,
    }
}

/// Whose name is not there hears which are.
fn known<T>(live: &Live, asked: Result<T>) -> Result<T> {
    asked.map_err(|error: Error| {
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        error.hint(format!("`pyro workspace service list {}` shows those there are", live.id()))
    })
}
