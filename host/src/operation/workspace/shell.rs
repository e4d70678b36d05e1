//! Operations on a workspace's shells: terminals that outlive their callers.

mod close;
mod list;
mod open;
mod read;
mod resize;
mod signal;
mod write;

pub use close::{ShellClose, ShellCloseAnswer};
pub use list::{ShellList, ShellListAnswer};
pub use open::ShellOpen;
pub use read::{ShellRead, ShellReadAnswer};
pub use resize::ShellResize;
pub use signal::{ShellSignal, ShellSignalAnswer};
pub use write::{ShellWrite, ShellWriteAnswer};

use crate::guest_text;
use crate::operation::output::ending;
use crate::operation::workspace::summary::shown_time;
use crate::operation::{Answer, Page};
use crate::workspace::Live;
use crate::workspace::history::exit_code;
use jiff::Timestamp;
use pyro_protocol::shell::{Shell, ShellState};
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::{self, Write};

/// The longest path of a guest's that is shown.
const CWD_SHOWN: usize = 4096;

/// A shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShellFacts {
    /// The workspace.
    pub workspace_id: String,
    /// Its id, for the other shell tools.
    pub shell_id: String,
    /// Where it was opened.
    pub cwd: String,
    /// How many columns its terminal has.
    pub cols: u16,
    /// How many rows its terminal has.
    pub rows: u16,
    /// `running` or `stopped`; what came out of one whose program has ended can be
    /// read until it is closed.
    pub state: ShellCondition,
    /// When it was opened by the guest's clock, RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// When its program ended; null while it runs.
    #[schemars(with = "Option<String>")]
    pub ended_at: Option<Timestamp>,
    /// The exit code of its program, 128+N after signal N; null while it runs.
    pub exit_code: Option<u8>,
    /// How many bytes have come out of its terminal.
    pub output_bytes: u64,
}

/// Whether a shell runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShellCondition {
    /// It does.
    Running,
    /// Its program has ended.
    Stopped,
}

impl ShellFacts {
    fn of(live: &Live, shell: &Shell) -> Self {
        let time = |ns: i64| Timestamp::from_nanosecond(ns.into()).ok();
        let (state, ended_at, exit_code) = match shell.state {
            ShellState::Running { .. } => (ShellCondition::Running, None, None),
            ShellState::Ended { exit, ended_at_ns } => {
                (ShellCondition::Stopped, time(ended_at_ns), Some(exit_code(exit.outcome).0))
            }
        };
        Self {
            workspace_id: live.id().to_string(),
            shell_id: shell.id.to_string(),
            cwd: guest_text::escaped(&live.redactor().path(&shell.cwd).to_string(), CWD_SHOWN),
            cols: shell.size.cols,
            rows: shell.size.rows,
            state,
            started_at: time(shell.started_at_ns),
            ended_at,
            exit_code,
            output_bytes: shell.output_bytes,
        }
    }

    /// How it is, in a few words.
    fn shown(&self) -> String {
        match (self.state, self.exit_code) {
            (ShellCondition::Running, _) => "running".into(),
            (ShellCondition::Stopped, code) => ending(code.unwrap_or_default(), None, false),
        }
    }

    fn shown_start(&self) -> String {
        self.started_at.map_or_else(|| "-".to_owned(), shown_time)
    }
}

impl Answer for ShellFacts {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { shell_id, cols, rows, cwd, .. } = self;
        writeln!(page, "shell {shell_id}: {}, {cols}x{rows}, opened in {cwd}", self.shown())
    }

    fn id(&self) -> Option<String> {
        Some(self.shell_id.clone())
    }
}
