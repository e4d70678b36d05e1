//! A kept process from its fork to its end, in a task of its own: no connection
//! is needed for it to live.

use super::Kept;
use super::entry::{Entry, Order};
use super::spool::Drained;
use crate::log;
use crate::process::leash::Leash;
use crate::process::output::DRAIN_GRACE;
use crate::process::{Process, lifetime};
use crate::readiness::watch;
use pyro_protocol::kept::OutputStream;
use pyro_protocol::process::Exit;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch as watching};
use tokio::time::sleep;

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

/// Keeps what comes through a pipe, until its end, or until a moment after the
/// program's: descendants may hold it open for ever.
async fn collect(
    kept: &Kept,
    entry: &Arc<Entry>,
    stream: OutputStream,
    pipe: pipe::Receiver,
    mut over: watching::Receiver<bool>,
) {
    let collected = async {
        let pipe = Arc::new(watch(pipe.into_nonblocking_fd()?, Interest::READABLE)?);
        let mut late = pin!(async {
            // The sender lives as long as this.
            drop(over.wait_for(|over| *over).await);
            sleep(DRAIN_GRACE).await;
        });
        loop {
            let mut ready = tokio::select! {
                ready = pipe.readable() => ready?,
                () = &mut late => break,
            };
            match drain(kept, entry, stream, &pipe, u64::MAX).await? {
                Drained::Empty => ready.clear_ready(),
                Drained::Enough => {}
                Drained::Ended => return Ok(()),
            }
        }
        // What lies in it now is the last of it.
        let present = rustix::io::ioctl_fionread(pipe.get_ref())?;
        drain(kept, entry, stream, &pipe, present).await.map(drop)
    };
    if let Err::<(), io::Error>(error) = collected.await {
        log::warn(format_args!("the output of process {}: {error}", entry.id));
    }
}

async fn drain(
    kept: &Kept,
    entry: &Arc<Entry>,
    stream: OutputStream,
    pipe: &Arc<AsyncFd<OwnedFd>>,
    most: u64,
) -> io::Result<Drained> {
    let (entry, pipe) = (entry.clone(), pipe.clone());
    let job = move || entry.drain(stream, |spool| spool.drain(pipe.get_ref(), most));
    kept.block_on(job).await
}
