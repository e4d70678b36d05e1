//! Operations on a workspace's processes: those that were detached or went on.

mod list;
mod poll;
mod signal;
mod wait;
mod write;

pub use list::{ProcessList, ProcessListAnswer};
pub(super) use poll::{Piece, PollSeconds};
pub use poll::{ProcessPoll, ProcessPollAnswer};
pub use signal::{ProcessSignal, ProcessSignalAnswer};
pub use wait::{ProcessWait, ProcessWaitAnswer};
pub(super) use write::WriteSeconds;
pub use write::{ProcessWrite, ProcessWriteAnswer};

use crate::operation::output::ending;
use crate::workspace::history::exit_code;
use pyro_protocol::kept::ProcessState;
use pyro_protocol::process::Exit;
use schemars::JsonSchema;
use serde::Serialize;

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Condition {
    /// `running`; `exited`; or `lost`, when the machine went away while it ran.
    pub state: ConditionState,
    /// Its exit code; 124 after a time-out, 128+N after signal N; null while it
    /// runs.
    pub exit_code: Option<u8>,
    /// The number of the signal that ended it.
    pub signal: Option<u8>,
    /// Whether it was killed because its time was over.
    pub timed_out: bool,
    /// How long it ran, in milliseconds; null while it runs.
    pub duration_ms: Option<u64>,
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConditionState {
    /// It does.
    Running,
    /// It has ended.
    Exited,
    /// It runs no more, and how it ended nobody knows.
    Lost,
}

impl Condition {
    fn of(state: ProcessState) -> Self {
        match state {
            ProcessState::Running { .. } => Self::without_exit(ConditionState::Running),
            ProcessState::Ended { exit } => Self::ended(exit),
            ProcessState::Lost => Self::without_exit(ConditionState::Lost),
        }
    }

    fn ended(exit: Exit) -> Self {
        let (exit_code, signal, timed_out) = exit_code(exit.outcome);
        Self {
            state: ConditionState::Exited,
            exit_code: Some(exit_code),
            signal,
            timed_out,
            duration_ms: Some(exit.took_us / 1000),
        }
    }

    fn without_exit(state: ConditionState) -> Self {
        Self { state, exit_code: None, signal: None, timed_out: false, duration_ms: None }
    }

    /// In a few words.
    fn shown(&self) -> String {
        match (self.state, self.exit_code) {
            (ConditionState::Running, _) => "running".into(),
            (ConditionState::Lost, _) => "lost".into(),
            (ConditionState::Exited, code) => {
                ending(code.unwrap_or_default(), self.signal, self.timed_out)
            }
        }
    }
}
