//! A guest's only stream, which all connections to its agent share.
//!
//! ```text
//! begun ──▶ carrying ── broken ──▶ begun anew ──▶ carrying
//!              └── the stream ends, or the guest does not begin anew ──▶ over
//! ```
//!
//! An agent that dies is started again by its init, and says so by breaking the
//! channel: the connections of before are gone, and there are new ones.

use crate::error::{Error, ErrorKind, Result};
use crate::id::fill_random;
use crate::vsock;
use pyro_protocol::channel::{self, Before, ChannelError, Opener, Side, Stream};
use pyro_protocol::{ANNOUNCE_PORT, VsockPort};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How much of the channel is read ahead, to look for frames in. What data they
/// carry is read to where it stays.
const READ_AHEAD: usize = 4096;

/// How often within [`ANEW_WINDOW`] a channel may break. The guest's init makes
/// good three deaths of its agent in as long; whoever breaks it more often is to
/// keep no host busy.
const ANEW_MAX: usize = 8;

/// See [`ANEW_MAX`].
const ANEW_WINDOW: Duration = Duration::from_secs(60);

/// Opens streams to a guest, on whatever channel there is now.
#[derive(Debug, Clone, Default)]
pub(super) struct Trunk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    /// Nobody was there yet.
    #[default]
    Beginning,
    /// It boots: what it breaks now is its boot.
    Booting(Opener),
    /// It serves calls.
    Serving(Opener),
}

impl Trunk {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the guest refuses it, or the channel is broken.
    pub(super) async fn open(&self, port: VsockPort) -> Result<Stream, ChannelError> {
        let opener = match &*self.state() {
            State::Beginning => return Err(ChannelError::Closed),
            State::Booting(opener) | State::Serving(opener) => opener.clone(),
        };
        opener.open(port).await
    }

    /// The guest serves calls: from here on it may begin anew.
    pub(super) fn came_up(&self) {
        let mut state = self.state();
        *state = match std::mem::take(&mut *state) {
            State::Booting(opener) | State::Serving(opener) => State::Serving(opener),
            State::Beginning => State::Beginning,
        };
    }

    fn renew(&self, opener: Opener) {
        let mut state = self.state();
        *state = match *state {
            State::Beginning | State::Booting(_) => State::Booting(opener),
            State::Serving(_) => State::Serving(opener),
        };
    }

    fn may_begin_anew(&self) -> bool {
        matches!(*self.state(), State::Serving(_))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // It is one of them, whatever happened to who held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves the endpoint in a directory over a guest's only stream, while it is
    /// polled; what the guest announces itself on goes to `announced`. Returns only
    /// when it cannot go on: also when a guest that broke the channel does not begin
    /// anew in time.
    pub(super) async fn carry(
        self,
        directory: File,
        stream: UnixStream,
        before: Before,
        announced: mpsc::Sender<Stream>,
        anew: Duration,
    ) -> Error {
        match self.carry_on(directory, stream, before, announced, anew).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn carry_on(
        &self,
        directory: File,
        stream: UnixStream,
        before: Before,
        announced: mpsc::Sender<Stream>,
        anew: Duration,
    ) -> Result<Infallible> {
        let mut io = BufReader::with_capacity(READ_AHEAD, stream);
        let (mut listener, mut breach) = (None, None);
        let mut breaches = VecDeque::new();
        loop {
            let before = if breach.is_some() { Before::Anything } else { before };
            let connecting = channel::connect(&mut io, side(before));
            let connected = match breach {
                // That has the boot's deadline.
                None => connecting.await,
                Some(breach) => timeout(anew, connecting).await.unwrap_or(Err(breach)),
            };
            let (opener, acceptor, driver) = connected.map_err(broken)?;
            let listener = match &mut listener {
                Some(listener) => listener,
                none => none.insert(vsock::endpoint::listen(&directory)?),
            };
            self.renew(opener.clone());
            let announced = announced.clone();
            let serving =
                vsock::endpoint::serve(listener, opener, acceptor, ANNOUNCE_PORT, announced);
            let ended = tokio::select! {
                ended = driver => ended.err(),
                () = serving => None,
            };
            breaches.push_back(Instant::now());
            breaches.retain(|at: &Instant| at.elapsed() < ANEW_WINDOW);
            let may_go_on = self.may_begin_anew() && breaches.len() <= ANEW_MAX;
            breach = match ended.unwrap_or(ChannelError::Closed) {
                breach @ ChannelError::Broken(_) if may_go_on => Some(breach),
                end @ (ChannelError::Broken(_)
                | ChannelError::Io(_)
                | ChannelError::Refused(_)
                | ChannelError::Closed) => return Err(broken(end)),
            };
        }
    }
}

fn side(before: Before) -> Side {
    let mut nonce = [0; 8];
    fill_random(&mut nonce);
    Side::Host { nonce: u64::from_le_bytes(nonce), before }
}

pub(super) fn broken(error: ChannelError) -> Error {
    Error::new(ErrorKind::BootFailed, "the guest's channel failed while it booted").because(error)
}
