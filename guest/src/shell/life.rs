//! A shell from its fork to its close, in a task of its own: no connection is
//! needed for it to live.

use super::Shells;
use super::entry::{Close, Entry};
use super::terminal::Terminal;
use crate::process::leash::Leash;
use crate::{clock, log};
use pyro_protocol::process::{Exit, Outcome};
use pyro_protocol::shell::{RETAINED, ShellState};
use rustix::process::{Pid, Signal, kill_process_group};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};

/// How long a shell that is closed has to end by itself, after it was hung up.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// How long after the program's end its last words may be on their way; once
/// nobody has the terminal open, the kernel says so.
const DRAIN_GRACE: Duration = Duration::from_millis(100);

/// What a terminal gives at once.
const CHUNK: usize = 4096;

/// Lets it live until it is closed; then nothing is left of it.
pub(super) async fn live(
    shells: &Shells,
    entry: &Arc<Entry>,
    leash: Leash<'_>,
    mut close: watch::Receiver<Close>,
    place: OwnedSemaphorePermit,
) {
    // It was opened by whoever made the entry.
    let Ok(terminal) = entry.terminal() else { return };
    let over = watch::Sender::new(false);
    let program = async {
        let hung_up = end_of(&leash, &terminal, &mut close).await;
        over.send_replace(true);
        hung_up
    };
    let (hung_up, ()) = tokio::join!(program, collect(entry, &terminal, over.subscribe()));
    drop(terminal);
    let outcome = leash.outcome().unwrap_or_else(|error| {
        log::warn(format_args!("the end of shell {}: {error}", entry.id));
        Outcome::Signaled { signal: 9 }
    });
    let took_us = u64::try_from(leash.age().as_micros()).unwrap_or(u64::MAX);
    let exit = Exit { outcome, took_us };
    let remains = leash.reap();
    drop(place);
    shells.ended(entry);
    entry.end(ShellState::Ended { exit, ended_at_ns: clock::wall_ns() });
    // What it left running goes on until then, as after a logout. The sender
    // lives as long as the entry.
    let closed = close.wait_for(|close| *close != Close::No).await.map(|close| *close);
    match (hung_up, closed) {
        (None, Ok(Close::Left)) => drop(remains),
        (hung_up, _) => remains.end(hung_up.unwrap_or_default()).await,
    }
    shells.forget(entry.id);
    entry.vanish();
}

/// Waits for the program's end, and sees to it when that is ordered: then it
/// gives how long what it leaves behind may still take.
async fn end_of(
    leash: &Leash<'_>,
    terminal: &Terminal,
    close: &mut watch::Receiver<Close>,
) -> Option<Duration> {
    tokio::select! {
        gone = leash.gone() => {
            watched(gone);
            return None;
        }
        // The sender lives as long as the entry.
        _ = close.wait_for(|close| *close != Close::No) => {}
    }
    let started = leash.age();
    for signal in [Signal::HUP, Signal::CONT] {
        leash.signal(u8::try_from(signal.as_raw()).unwrap_or_default());
        if let Some(foreground) = terminal.foreground().filter(|group| !is(*group, leash.pid())) {
            // It may just have ended, and then needs none.
            let _ = kill_process_group(foreground, signal);
        }
    }
    if timeout(CLOSE_GRACE, leash.gone()).await.is_err() {
        leash.end().await;
    }
    Some(CLOSE_GRACE.saturating_sub(leash.age().saturating_sub(started)))
}

fn is(group: Pid, pid: u32) -> bool {
    u32::try_from(group.as_raw_nonzero().get()).is_ok_and(|group| group == pid)
}

fn watched(gone: std::io::Result<()>) {
    if let Err(error) = gone {
        log::warn(format_args!("a shell cannot be watched: {error}"));
    }
}

/// Keeps what comes out, until nobody has the terminal open, or a moment after
/// the program's end: what it left behind may hold it open for ever.
async fn collect(entry: &Entry, terminal: &Terminal, mut over: watch::Receiver<bool>) {
    let mut ended = over.clone();
    let mut late = pin!(async {
        // The sender lives as long as this.
        drop(over.wait_for(|over| *over).await);
        sleep(DRAIN_GRACE).await;
    });
    let mut buffer = [0; CHUNK];
    loop {
        let read = tokio::select! {
            read = async {
                entry.room(CHUNK).await;
                terminal.read(&mut buffer).await
            } => read,
            () = &mut late => break,
        };
        match read {
            Ok(0) => break,
            Ok(length) => entry.push(buffer.get(..length).unwrap_or_default()),
            Err(error) => {
                log::warn(format_args!("the terminal of shell {}: {error}", entry.id));
                break;
            }
        }
    }
    // A program that has closed its terminal lives on without one.
    drop(ended.wait_for(|over| *over).await);
    // What has come by now is the last of it; whoever still writes could go on
    // for ever.
    let mut left = RETAINED;
    while left > 0 {
        entry.room(CHUNK).await;
        let Ok(length @ 1..) = terminal.read_present(&mut buffer) else { break };
        entry.push(buffer.get(..length).unwrap_or_default());
        left = left.saturating_sub(length);
    }
}
