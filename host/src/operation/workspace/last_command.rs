use super::LogState;
use super::summary::shown_time;
use crate::guest_text;
use crate::operation::output::ending;
use crate::secret::redact::MARK;
use crate::workspace::Place;
use crate::workspace::history::{Ending, History};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

/// How much of a command a summary has; the logs have all of it.
const COMMAND_MAX: usize = 1000;

/// How much of a command a row of a table has.
const SHOWN_MAX: usize = 60;

/// The command that was run last in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LastCommand {
    /// Its number.
    pub sequence: u64,
    /// The command as one line; its first 1000 bytes.
    pub command: String,
    /// Where it ran.
    pub cwd: String,
    /// When it was asked for, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    /// How far it came.
    pub state: LogState,
    /// Its exit code; 124 after a time-out, 128+N after signal N.
    pub exit_code: Option<u8>,
    /// How long it ran, in milliseconds.
    pub duration_ms: Option<u64>,
}

impl LastCommand {
    /// The newest command of a workspace whose record can be read; what is wrong
    /// with those that cannot, the logs tell.
    pub(super) fn of(place: &Place) -> Option<Self> {
        let history = History::within(place.path());
        let mut sequences = history.sequences().ok()?;
        sequences.sort_unstable();
        let found = sequences.into_iter().rev().find_map(|number| history.entry(number).ok())?;
        let (exit_code, duration_ms) = match found.record.ending {
            Ending::Ended { exit_code, duration_ms, .. } => (Some(exit_code), Some(duration_ms)),
            Ending::Open | Ending::Lost { .. } => (None, None),
        };
        let state = LogState::of(&found);
        let record = found.record;
        // Written down without secrets; some may have been set since.
        let told = |text: String| match place.redactor() {
            Ok(redactor) => redactor.string(text),
            Err(_) => MARK.into(),
        };
        let mut command = told(record.command);
        if command.len() > COMMAND_MAX {
            command.truncate(command.floor_char_boundary(COMMAND_MAX));
        }
        Some(Self {
            sequence: record.sequence,
            command,
            cwd: told(record.cwd),
            started_at: record.started_at,
            state,
            exit_code,
            duration_ms,
        })
    }

    /// In a few words, for people.
    pub(super) fn shown(&self) -> String {
        let command = guest_text::escaped(&self.command, SHOWN_MAX);
        let more = if self.command.chars().count() > SHOWN_MAX { "…" } else { "" };
        let ended = match self.exit_code {
            Some(code) => ending(code, None, false),
            None => self.state.as_str().into(),
        };
        format!("#{} {command}{more} ({ended}, {})", self.sequence, shown_time(self.started_at))
    }
}
