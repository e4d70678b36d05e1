//! Processes in the guest that outlive their callers.

use super::{AgentClient, Channel, Connection, lost, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Stream;
use pyro_protocol::kept::{
    FollowEnd, FollowProcess, ForgetProcess, KeepProcess, KeptProcess, ListProcesses, OutputStream,
    PollProcess, ProcessId, ProcessKept, ProcessPolled, ProcessState, ProcessWritten,
    SignalProcess, Skipped, Slice, WriteProcess,
};
use pyro_protocol::process::StartProcess;
use pyro_protocol::{FrameKind, FrameReader, FrameWriter, Lost};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

/// A process that is being followed.
pub struct Following<S> {
    reader: FrameReader<ReadHalf<S>>,
    /// Kept open: its end would end the following.
    _writer: FrameWriter<WriteHalf<S>>,
}

/// What a follower hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The process wrote this.
    Output(Stream, Vec<u8>),
    /// It wrote so many bytes, and they are gone.
    Skipped(Stream, u64),
}

impl AgentClient {
    /// Starts a program that outlives this call. A refusal means that it never
    /// ran; a lost guest, that it may have.
    pub async fn keep(&self, program: StartProcess) -> Result<ProcessKept> {
        self.call(KeepProcess { program }, self.deadlines.reply).await
    }

    /// What is kept in the guest.
    pub async fn kept(&self) -> Result<Vec<KeptProcess>> {
        Ok(self.call(ListProcesses, self.deadlines.reply).await?.processes)
    }

    /// How a process is and what it has written, after waiting as the call says.
    pub async fn poll(&self, call: PollProcess) -> Result<ProcessPolled> {
        let patience = Duration::from_millis(call.wait_ms.into()) + self.deadlines.reply;
        let polled = self.call(call, patience).await?;
        check(&polled.stdout, call.stdout_cursor, call.max_bytes)?;
        check(&polled.stderr, call.stderr_cursor, call.max_bytes)?;
        Ok(polled)
    }

    /// Hands a process input.
    pub async fn write(&self, call: WriteProcess) -> Result<ProcessWritten> {
        let patience = Duration::from_millis(call.wait_ms.into()) + self.deadlines.reply;
        let length = call.data.0.len();
        let written = self.call(call, patience).await?;
        match written.taken as usize <= length {
            true => Ok(written),
            false => Err(broken("took input that it was not given")),
        }
    }

    /// Signals a process's group.
    pub async fn signal(&self, id: ProcessId, number: u8) -> Result<()> {
        self.call(SignalProcess { id, number }, self.deadlines.reply).await.map(drop)
    }

    /// Removes a process and its output; one that runs is killed first. Gives
    /// its state before.
    pub async fn forget(&self, id: ProcessId) -> Result<ProcessState> {
        Ok(self.call(ForgetProcess { id }, self.deadlines.reply).await?.state)
    }

    /// Listens to what a process writes from these cursors on.
    pub async fn follow(
        &self,
        id: ProcessId,
        (stdout_cursor, stderr_cursor): (u64, u64),
    ) -> Result<Following<Channel>> {
        let (connection, _) =
            self.begin(FollowProcess { id, stdout_cursor, stderr_cursor }).await?;
        let Connection { reader, writer, .. } = connection;
        Ok(Following { reader, _writer: writer })
    }
}

impl<S: AsyncRead + AsyncWrite> Following<S> {
    /// Listens until the process has ended, and gives its state then. Dropping
    /// the future ends nothing but the listening.
    pub async fn finish<H: Future<Output = ()>>(
        mut self,
        mut hear: impl FnMut(Heard) -> H,
    ) -> Result<ProcessState> {
        loop {
            let frame = self.reader.next().await.map_err(lost)?;
            match frame.kind {
                FrameKind::Stdout => hear(Heard::Output(Stream::Stdout, frame.payload)).await,
                FrameKind::Stderr => hear(Heard::Output(Stream::Stderr, frame.payload)).await,
                FrameKind::Skipped => {
                    let Skipped { stream, bytes } = frame.decode(frame.kind).map_err(lost)?;
                    hear(Heard::Skipped(stream_of(stream), bytes)).await;
                }
                FrameKind::DataEnd => {
                    let FollowEnd { state } = frame.decode(frame.kind).map_err(lost)?;
                    return match state {
                        ProcessState::Running { .. } => Err(broken("ended what still runs")),
                        ProcessState::Ended { .. } | ProcessState::Lost => Ok(state),
                    };
                }
                FrameKind::Error => {
                    let error = frame.decode(FrameKind::Error).map_err(lost)?;
                    let message = "the guest's agent gave up on the process";
                    return Err(Error::new(ErrorKind::Protocol, message).because(refused(error)));
                }
                got @ (FrameKind::Hello
                | FrameKind::Welcome
                | FrameKind::Call
                | FrameKind::Reply
                | FrameKind::Announcement
                | FrameKind::Stdin
                | FrameKind::StdinEnd
                | FrameKind::Exit
                | FrameKind::Signal
                | FrameKind::StdinTaken
                | FrameKind::Data
                | FrameKind::Resize) => {
                    return Err(lost(Lost::OutOfPlace { got, wanted: "output or its end" }));
                }
            }
        }
    }
}

pub(super) fn stream_of(stream: OutputStream) -> Stream {
    match stream {
        OutputStream::Stdout => Stream::Stdout,
        OutputStream::Stderr => Stream::Stderr,
    }
}

/// Whether a slice is one of what was asked for.
pub(super) fn check(slice: &Slice, cursor: u64, most: u32) -> Result<()> {
    let length = slice.data.0.len() as u64;
    let sound = slice.oldest <= slice.start
        && slice.start == cursor.max(slice.oldest)
        && slice.start.checked_add(length).is_some_and(|next| next <= slice.end)
        && length <= most.into();
    if sound { Ok(()) } else { Err(broken("replied with bytes that were not asked for")) }
}

pub(super) fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, format!("the guest broke the protocol: it {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(oldest: u64, start: u64, length: usize, end: u64) -> Slice {
        Slice { oldest, start, data: vec![0; length].into(), end }
    }

    #[test]
    fn s1_slices_are_taken_only_if_they_are_what_was_asked_for() {
        for sound in [slice(0, 5, 3, 8), slice(6, 6, 0, 6), slice(0, 5, 0, 5)] {
            assert!(check(&sound, 5, 3).is_ok(), "{sound:?}");
        }
        for unsound in [
            slice(0, 4, 1, 8),
            slice(0, 6, 1, 8),
            slice(7, 5, 1, 8),
            slice(0, 5, 4, 9),
            slice(0, 5, 3, 7),
            slice(u64::MAX, u64::MAX, 1, u64::MAX),
        ] {
            assert!(check(&unsound, 5, 3).is_err(), "{unsound:?}");
        }
    }
}
