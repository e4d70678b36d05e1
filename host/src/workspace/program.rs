//! A program in a guest, from a request to its end.

use super::shell::HELD_MAX;
use crate::agent::AgentClient;
use crate::agent::process::Said;
use crate::context::{Context, Terminal, cancelled};
use crate::deadlines::Deadlines;
use crate::environment::Defaults;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events, Stream};
use pyro_protocol::process::{Exit, Outcome, StartProcess};
use pyro_protocol::shell::OpenShell;
use pyro_protocol::{ByteString, GuestPath};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// A program to run in a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments, executed as given.
    pub argv: Vec<Vec<u8>>,
    /// Where; `None` is the environment's default.
    pub cwd: Option<GuestPath>,
    /// Variables to add.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// A name or number, optionally `:group`; `None` is the
    /// environment's default.
    pub user: Option<String>,
    /// After this, everything it started is killed.
    pub timeout: Option<Duration>,
}

impl Program {
    /// Fills in what the environment says where the caller said nothing.
    pub(super) fn or_defaults(mut self, defaults: &Defaults) -> Result<Self> {
        if self.cwd.is_none() {
            let cwd = GuestPath::new(defaults.cwd.as_str()).map_err(|error| {
                Error::new(ErrorKind::InvalidInput, "the environment's default directory is none")
                    .because(error)
            })?;
            self.cwd = Some(cwd);
        }
        self.user.get_or_insert_with(|| defaults.user.clone());
        self.env = defaults.with(self.env);
        Ok(self)
    }
}

/// Runs a program in a guest that serves calls.
pub(super) async fn execute(
    agent: &AgentClient,
    deadlines: Deadlines,
    program: Program,
    context: Context,
) -> Result<Exit> {
    let Context { events, stdin, terminal, mut signals, .. } = context;
    if let Some(terminal) = terminal {
        // The program's signals are keys; whoever sends others hears that nobody
        // passes them on.
        drop(signals);
        return sit(agent, program, terminal, &events).await;
    }
    let limit = program.timeout;
    let request = start_request(program, stdin.is_some());
    let running = timeout(deadlines.reply, agent.start(request)).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::GuestLost, "the guest did not start the program in time"))
    })?;
    events.emit(Event::ProgramStarted).await;
    let hear = |said| {
        let event = match said {
            Said::Stdout(bytes) => Event::Output { stream: Stream::Stdout, bytes },
            Said::Stderr(bytes) => Event::Output { stream: Stream::Stderr, bytes },
        };
        let events = events.clone();
        async move { events.emit(event).await }
    };
    // The guest keeps the time; should it not, the host does.
    let patience = limit.map(|limit| limit.saturating_add(deadlines.timeout_grace));
    running.finish(stdin, &mut signals, patience, hear).await
}

/// The same at a terminal of the caller's. A program whose time is over, or whose
/// caller leaves, is ended with its terminal.
async fn sit(
    agent: &AgentClient,
    program: Program,
    terminal: Terminal,
    events: &Events,
) -> Result<Exit> {
    let Terminal { size, acts } = terminal;
    let limit = program.timeout;
    let StartProcess { argv, cwd, env, user, .. } = start_request(program, false);
    let call = OpenShell { argv, cwd, env, user, size, joined: true };
    let (id, attached) = agent.join_shell(call).await?;
    events.emit(Event::ProgramStarted).await;
    let started = Instant::now();
    let heard = Notify::new();
    let show = |bytes| {
        let (events, heard) = (events.clone(), &heard);
        async move {
            events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
            heard.notify_one();
        }
    };
    let overdue = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // An end that has come is told.
        biased;
        ended = attached.sit(acts, show) => ended?.ok_or_else(cancelled),
        () = overdue => {
            // Should it not be there any more, so much the better.
            drop(agent.close_shell(id).await);
            let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            Ok(Exit { outcome: Outcome::TimedOut, took_us })
        }
        never = hurry(events, &heard) => match never {},
    }
}

/// Shows what is held back whenever a person has waited for it.
async fn hurry(events: &Events, heard: &Notify) -> Infallible {
    loop {
        heard.notified().await;
        while timeout(HELD_MAX, heard.notified()).await.is_ok() {}
        events.hurry().await;
    }
}

/// The call that starts a program.
pub(super) fn start_request(program: Program, stdin: bool) -> StartProcess {
    let Program { argv, cwd, env, user, timeout } = program;
    let bytes = |(name, value)| (ByteString(name), ByteString(value));
    StartProcess {
        argv: argv.into_iter().map(ByteString).collect(),
        cwd,
        env: env.into_iter().map(bytes).collect(),
        user,
        stdin,
        timeout_ms: timeout.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
    }
}
