//! A kept process from its fork to its end, in a task of its own: no connection
//! is needed for it to live.

use super::Kept;
use super::entry::{Entry, Order};
use crate::log;
use crate::process::leash::Leash;
use crate::process::{Process, collect, lifetime};
use pyro_protocol::kept::OutputStream;
use pyro_protocol::process::Exit;
use std::convert::Infallible;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch as watching};

/// A process that has just been started, without its input.
pub(super) struct Newborn<'guest> {
    leash: Leash<'guest>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl<'guest> Newborn<'guest> {
    /// Takes the input off.
    pub(super) fn new(process: Process<'guest>) -> (Self, Option<pipe::Sender>) {
        let Process { leash, stdin, stdout, stderr } = process;
        (Self { leash, stdout, stderr }, stdin)
    }

    /// The process id in the guest.
    pub(super) fn pid(&self) -> u32 {
        self.leash.pid()
    }
}

/// Lets it live to its end, and gives that, if it can be known. All it has
/// written is kept by then.
pub(super) async fn live(
    kept: &Kept,
    entry: &Arc<Entry>,
    newborn: Newborn<'_>,
    allowed: Option<Duration>,
    mut orders: mpsc::Receiver<Order>,
) -> Option<Exit> {
    let Newborn { mut leash, stdout, stderr } = newborn;
    let over = watching::Sender::new(false);
    let work = async {
        let lifetime = async {
            let life = lifetime::wait(&leash, allowed).await;
            over.send_replace(true);
            life
        };
        let stdout = collect(kept, entry, OutputStream::Stdout, stdout, over.subscribe());
        let stderr = collect(kept, entry, OutputStream::Stderr, stderr, over.subscribe());
        let (life, (), ()) = tokio::join!(lifetime, stdout, stderr);
        life?.exit(&leash)
    };
    let exit = tokio::select! {
        exit = work => exit,
        never = obey(&leash, &mut orders) => match never {},
    };
    leash.release();
    exit.inspect_err(|error| log::warn(format_args!("process {}: {error}", entry.id))).ok()
}

async fn obey(leash: &Leash<'_>, orders: &mut mpsc::Receiver<Order>) -> Infallible {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Signal(number) => leash.signal(number),
            Order::Kill => leash.kill(),
        }
    }
    pending().await
}

/// Keeps what comes through a pipe.
async fn collect(
    kept: &Kept,
    entry: &Arc<Entry>,
    stream: OutputStream,
    pipe: pipe::Receiver,
    over: watching::Receiver<bool>,
) {
    let drain = |pipe: Arc<AsyncFd<OwnedFd>>, most| {
        let entry = entry.clone();
        let job = move || entry.drain(stream, |spool| spool.drain(pipe.get_ref(), most));
        kept.block_on(job)
    };
    if let Err(error) = collect::collect(pipe, over, drain).await {
        log::warn(format_args!("the output of process {}: {error}", entry.id));
    }
}
