//! A service from its start until it is over, in a task of its own.

use super::backoff::{Backoff, Next};
use super::entry::{Entry, Order, Orders};
use super::probe;
use crate::guest::Guest;
use crate::process::collect::collect;
use crate::process::leash::Leash;
use crate::process::{Process, spawn};
use crate::{clock, log};
use pyro_protocol::kept::OutputStream;
use pyro_protocol::process::Exit;
use pyro_protocol::service::{ServiceFailure, ServiceState, StopHow};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long what nobody waits for any more may take to obey.
const GRACE: Duration = Duration::from_secs(5);

/// How long the kernel may take to end what got KILL.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// Why the program was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Somebody asked.
    Asked,
    /// Its policy says so.
    Policy,
}

/// One run of the program, over.
#[derive(Debug, Clone, Copy)]
struct Ran {
    end: End,
    exit: Option<Exit>,
    /// How long it was ready; `None` is never.
    up: Option<Duration>,
}

/// Why it is over.
#[derive(Debug, Clone, Copy)]
enum End {
    ByItself,
    NotReady,
    Told(Order, StopHow),
}

/// Lets a service live until it is over.
pub(super) async fn live<'guest>(
    guest: &'guest Arc<Guest>,
    entry: &Arc<Entry>,
    first: Process<'guest>,
    mut orders: Orders,
) {
    let mut backoff = Backoff::new(entry.spec.restart);
    let (mut process, mut cause) = (first, Cause::Asked);
    let over = loop {
        let ran = run(guest, entry, process, cause, &mut orders).await;
        let next = match judge(ran, cause, &mut backoff) {
            Verdict::Over(state) => break state,
            Verdict::Anew => Cause::Asked,
            Verdict::After(pause, exit) => match pause_for(entry, pause, exit, &mut orders).await {
                Paused::Over(state) => break state,
                Paused::Anew => Cause::Asked,
                Paused::Enough => Cause::Policy,
            },
        };
        let exit = ran.exit;
        process = match spawn(guest, entry.spec.program.clone()).await {
            Ok(process) => process,
            Err(error) => {
                log::warn(format_args!("service {}: {error}", entry.spec.name));
                entry.refuse(Some(error));
                break failed(ServiceFailure::NotStarted, exit);
            }
        };
        let pid = process.leash.pid();
        cause = next;
        match cause {
            Cause::Asked => {
                backoff = Backoff::new(entry.spec.restart);
                entry.begin_anew(pid);
            }
            Cause::Policy => entry.begin_again(pid),
        }
    };
    entry.conclude(over, orders);
}

/// What follows from the end of a run.
enum Verdict {
    Over(ServiceState),
    Anew,
    After(Duration, Exit),
}

fn judge(ran: Ran, cause: Cause, backoff: &mut Backoff) -> Verdict {
    let at_ns = clock::wall_ns();
    let Ran { end, exit, up } = ran;
    let reason = match end {
        End::Told(Order::Restart { .. }, _) => return Verdict::Anew,
        End::Told(Order::Stop { .. }, how) => {
            return Verdict::Over(ServiceState::Stopped { at_ns, how, exit });
        }
        End::Told(Order::Cancel { .. }, _) => ServiceFailure::StartCancelled,
        End::NotReady => ServiceFailure::ReadinessTimeout,
        End::ByItself => ServiceFailure::ExitedBeforeReady,
    };
    // The policy is for one that has been ready since somebody asked for it: a
    // start that fails is that caller's to know.
    if cause == Cause::Asked && up.is_none() {
        return Verdict::Over(failed(reason, exit));
    }
    let outcome = match end {
        // However it took that: one that was not ready in time has not done well.
        End::NotReady => None,
        End::ByItself | End::Told(..) => exit.map(|exit| exit.outcome),
    };
    match (backoff.after(outcome, up.unwrap_or_default()), exit) {
        (Next::Again(pause), Some(exit)) => Verdict::After(pause, exit),
        (Next::Rest, Some(exit)) => Verdict::Over(ServiceState::Exited { at_ns, exit }),
        (Next::GiveUp, _) => Verdict::Over(failed(ServiceFailure::RestartLimit, exit)),
        // It does not even die of KILL: nothing can take its place.
        (Next::Again(_) | Next::Rest, None) => Verdict::Over(failed(reason, None)),
    }
}

fn failed(reason: ServiceFailure, exit: Option<Exit>) -> ServiceState {
    ServiceState::Failed { at_ns: clock::wall_ns(), reason, exit }
}

/// How a pause before the next run ended.
enum Paused {
    Enough,
    Anew,
    Over(ServiceState),
}

async fn pause_for(entry: &Entry, pause: Duration, exit: Exit, orders: &mut Orders) -> Paused {
    let pause_ns = i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX);
    let next_ns = clock::wall_ns().saturating_add(pause_ns);
    entry.set(ServiceState::Backoff { next_ns, exit });
    let mut enough = pin!(sleep(pause));
    loop {
        tokio::select! {
            () = &mut enough => return Paused::Enough,
            order = orders.next() => match order {
                Order::Stop { .. } => {
                    let (at_ns, how) = (clock::wall_ns(), StopHow::Idle);
                    return Paused::Over(ServiceState::Stopped { at_ns, how, exit: Some(exit) });
                }
                Order::Restart { .. } => return Paused::Anew,
                Order::Cancel { .. } => {}
            },
        }
    }
}

/// From a program that has just started to its end, with all that it started and
/// all that it wrote.
async fn run(
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    process: Process<'_>,
    cause: Cause,
    orders: &mut Orders,
) -> Ran {
    let Process { leash, stdin: _, stdout, stderr } = process;
    let over = watch::Sender::new(false);
    let ending = async {
        let ended = end(guest, entry, &leash, cause, orders).await;
        over.send_replace(true);
        ended
    };
    let stdout = keep(guest, entry, OutputStream::Stdout, stdout, over.subscribe());
    let stderr = keep(guest, entry, OutputStream::Stderr, stderr, over.subscribe());
    let ((end, up, took), (), ()) = tokio::join!(ending, stdout, stderr);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let exit = leash
        .outcome()
        .inspect_err(|error| log::warn(format_args!("service {}: {error}", entry.spec.name)))
        .map(|outcome| Exit { outcome, took_us });
    Ran { end, exit: exit.ok(), up }
}

/// Waits for the end or brings it about; nothing is left of the program then.
/// Gives also how long it was ready, and how long it ran.
async fn end(
    guest: &Arc<Guest>,
    entry: &Arc<Entry>,
    leash: &Leash<'_>,
    cause: Cause,
    orders: &mut Orders,
) -> (End, Option<Duration>, Duration) {
    let readiness = entry.spec.readiness.as_ref();
    let mut probing = pin!(probe::ready_in_time(guest, &entry.spec));
    let mut ready = readiness.is_none().then(Instant::now);
    if ready.is_some() {
        entry.is_ready();
    }
    let starts = entry.status().starts;
    let ended = loop {
        tokio::select! {
            biased;
            gone = leash.gone() => {
                if let Err(error) = gone {
                    log::warn(format_args!("waiting for service {}: {error}", entry.spec.name));
                }
                break None;
            }
            order = orders.next() => match order {
                // It came too late.
                Order::Cancel { starts: of }
                    if ready.is_some() || cause == Cause::Policy || of != starts => {}
                order @ (Order::Stop { .. } | Order::Restart { .. } | Order::Cancel { .. }) => {
                    break Some(order);
                }
            },
            in_time = &mut probing, if ready.is_none() => match in_time {
                true => {
                    ready = Some(Instant::now());
                    entry.is_ready();
                }
                false => {
                    stop(leash, GRACE, orders).await;
                    return (End::NotReady, None, leash.age());
                }
            },
        }
    };
    let (up, took) = (ready.map(|ready| ready.elapsed()), leash.age());
    let end = match ended {
        None => {
            // What it started is not left behind: it may hold its TCP ports.
            end_all(leash).await;
            return (End::ByItself, up, took);
        }
        Some(order @ (Order::Stop { grace } | Order::Restart { grace })) => {
            End::Told(order, stop(leash, grace, orders).await)
        }
        Some(order @ Order::Cancel { .. }) => End::Told(order, stop(leash, GRACE, orders).await),
    };
    (end, up, leash.age())
}

/// TERM to everything, and KILL to what is left after the grace, or after that of
/// one who wants it sooner.
async fn stop(leash: &Leash<'_>, grace: Duration, orders: &mut Orders) -> StopHow {
    leash.ask_to_end();
    let mut until = Instant::now() + grace;
    let mut empty = pin!(leash.empty());
    loop {
        tokio::select! {
            biased;
            gone = &mut empty => match gone {
                Ok(()) => return StopHow::Terminated,
                Err(_) => break,
            },
            () = sleep_until(until) => break,
            order = orders.hear() => {
                let sooner = Instant::now().checked_add(order.grace());
                until = sooner.map_or(until, |sooner| sooner.min(until));
            }
        }
    }
    end_all(leash).await;
    StopHow::Killed
}

/// KILL to everything.
async fn end_all(leash: &Leash<'_>) {
    leash.kill();
    if timeout(KILL_DEADLINE, leash.empty()).await.is_err() {
        log::warn(format_args!("process {} does not die", leash.pid()));
    }
}

/// Keeps what comes through a pipe.
async fn keep(
    guest: &Guest,
    entry: &Arc<Entry>,
    stream: OutputStream,
    pipe: pipe::Receiver,
    over: watch::Receiver<bool>,
) {
    let drain = |pipe: Arc<AsyncFd<OwnedFd>>, most| {
        let entry = entry.clone();
        guest.kept.block_on(move || {
            let (end, drained) = entry.journal.drain(stream, pipe.get_ref(), most);
            entry.publish(end);
            drained
        })
    };
    if let Err(error) = collect(pipe, over, drain).await {
        log::warn(format_args!("the output of service {}: {error}", entry.spec.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_protocol::process::Outcome;
    use pyro_protocol::service::Restart;

    #[test]
    fn r10_one_that_is_not_ready_in_time_has_failed_however_it_ends() {
        let ended = |end, code| {
            let exit = Exit { outcome: Outcome::Exited { code }, took_us: 1 };
            let ran = Ran { end, exit: Some(exit), up: None };
            judge(ran, Cause::Policy, &mut Backoff::new(Restart::OnFailure { limit: 1 }))
        };
        for (end, code) in [(End::NotReady, 0), (End::NotReady, 1), (End::ByItself, 1)] {
            assert!(matches!(ended(end, code), Verdict::After(..)), "{end:?} {code}");
        }
        let over = ended(End::ByItself, 0);
        assert!(matches!(over, Verdict::Over(ServiceState::Exited { .. })));
    }
}
