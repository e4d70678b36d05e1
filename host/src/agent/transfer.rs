//! Calls that carry more than a frame: contents and trees, either way.

use super::{Connection, lost, refused, within};
pub(crate) use crate::blocking::{blocking, joined};
use crate::error::{Error, ErrorKind, Result};
use pyro_protocol::transfer::{CutOff, Incoming, Outgoing, Taken, incoming, outgoing};
use pyro_protocol::{Call, Frame, FrameKind, Lost, Request};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Frames that a transfer into the guest hands over at once.
const BATCH: usize = 4;

/// How long the agent may take to say why it takes no more.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl From<CutOff> for Error {
    fn from(error: CutOff) -> Self {
        Error::new(ErrorKind::GuestLost, "the guest is gone").because(error)
    }
}

impl<S: AsyncRead + AsyncWrite> Connection<S> {
    /// Sends a call that a transfer follows, as `feed` makes it on a thread that
    /// may block, and waits for the reply.
    pub(crate) async fn call_with<R: Request>(
        &mut self,
        request: R,
        feed: impl FnOnce(&mut Outgoing) -> Result<()> + Send + 'static,
    ) -> Result<R::Reply> {
        self.send_call(request).await?;
        super::reply(self.upload(feed).await?, FrameKind::Reply)
    }

    /// The same with a content that is read bit by bit.
    pub(crate) async fn call_with_content<R: Request>(
        &mut self,
        request: R,
        mut content: impl AsyncRead + Unpin,
    ) -> Result<R::Reply> {
        self.send_call(request).await?;
        let Self { reader, writer, silence, .. } = self;
        let sending = async {
            let mut buffer = vec![0; FrameKind::Data.limit()];
            loop {
                let read = content.read(&mut buffer).await;
                match read.map_err(|error| Error::io("cannot read the content", error))? {
                    0 => break,
                    length => {
                        sent(*silence, writer.send_raw(FrameKind::Data, &buffer[..length])).await?
                    }
                }
            }
            sent(*silence, writer.send_raw(FrameKind::DataEnd, &[])).await
        };
        super::reply(answer_to(sending, reader.next(), *silence).await?, FrameKind::Reply)
    }

    /// Sends a transfer, as `feed` makes it on a thread that may block; the
    /// first frame that the agent says after it.
    pub(crate) async fn upload(
        &mut self,
        feed: impl FnOnce(&mut Outgoing) -> Result<()> + Send + 'static,
    ) -> Result<Frame> {
        let (mut outgoing, mut outlet) = outgoing(BATCH);
        let thread = spawn_blocking(move || {
            feed(&mut outgoing)?;
            Ok(outgoing.flush()?)
        });
        let Self { reader, writer, silence, .. } = self;
        let sending = async {
            while let Some(frame) = outlet.next().await {
                sent(*silence, writer.send_buffer(FrameKind::Data, frame)).await?;
            }
            joined(thread.await)?;
            sent(*silence, writer.send_raw(FrameKind::DataEnd, &[])).await
        };
        answer_to(sending, reader.next(), *silence).await
    }

    /// Takes a transfer on a thread that may block, and the payload of its end.
    /// The first frame may have come already. When this returns the thread has
    /// ended, also when it was cancelled.
    pub(crate) async fn download<T, End>(
        &mut self,
        first: Option<Frame>,
        cancel: &CancellationToken,
        take: impl FnOnce(Incoming) -> Result<T> + Send + 'static,
    ) -> Result<(T, End)>
    where
        T: Send + 'static,
        End: DeserializeOwned,
    {
        let (incoming, inlet) = incoming();
        let thread = spawn_blocking(move || take(incoming));
        let receiving = async {
            let mut next = first;
            loop {
                let frame = match next.take() {
                    Some(frame) => frame,
                    None => self.next().await?,
                };
                match inlet.take(frame).await {
                    Taken::More => {}
                    Taken::Last(frame) => return Ok(Some(frame)),
                    Taken::ByNobody => return Ok(None),
                }
            }
        };
        let received = tokio::select! {
            received = receiving => received,
            () = cancel.cancelled() => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
        };
        // Whatever has not come by now never will.
        drop(inlet);
        let taken = joined(thread.await);
        match received {
            // The thread wants no more: it says why.
            Ok(None) => match taken {
                Ok(_) => Err(Error::new(ErrorKind::Protocol, "the guest sent more than there is")),
                Err(error) => Err(error),
            },
            Ok(Some(last)) => {
                let end = super::reply(last, FrameKind::DataEnd)?;
                Ok((taken?, end))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn send_call<R: Request>(&mut self, request: R) -> Result<()> {
        self.require::<R>()?;
        let call: Call = request.into();
        sent(self.silence, self.writer.send(FrameKind::Call, &call)).await
    }

    pub(crate) async fn next(&mut self) -> Result<Frame> {
        next(self.silence, self.reader.next()).await
    }
}

/// A frame on its way out, which the agent has to take in time.
async fn sent(silence: Duration, sending: impl Future<Output = Result<(), Lost>>) -> Result<()> {
    within(silence, async { sending.await.map_err(lost) }).await
}

/// A frame from the agent, which has to come in time.
async fn next(
    silence: Duration,
    frame: impl Future<Output = Result<Frame, Lost>>,
) -> Result<Frame> {
    within(silence, async { frame.await.map_err(lost) }).await
}

/// Sends, and waits for what the agent says to it. An agent that cannot go on
/// says so in the middle.
async fn answer_to(
    sending: impl Future<Output = Result<()>>,
    answer: impl Future<Output = Result<Frame, Lost>>,
    silence: Duration,
) -> Result<Frame> {
    let (mut sending, mut answer) = (std::pin::pin!(sending), std::pin::pin!(answer));
    tokio::select! {
        biased;
        sent = &mut sending => match sent {
            Ok(()) => next(silence, answer).await,
            Err(error) if error.kind() == ErrorKind::GuestLost => {
                match timeout(LAST_WORDS.min(silence), answer).await {
                    Ok(Ok(frame)) if frame.kind == FrameKind::Error => Err(said(&frame)),
                    Ok(_) | Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        },
        early = &mut answer => match early.map_err(lost)? {
            frame if frame.kind == FrameKind::Error => Err(said(&frame)),
            frame => Err(lost(Lost::OutOfPlace { got: frame.kind, wanted: "nothing" })),
        },
    }
}

fn said(frame: &Frame) -> Error {
    frame.decode(FrameKind::Error).map_or_else(lost, refused)
}
