//! What a person at a terminal sees while an operation runs.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);

/// A line on standard error that changes, when that is a terminal; otherwise a
/// line for each step, for a log.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    stage: String,
    /// Whether lines for a log are wanted.
    log: bool,
}

impl Progress {
    pub(super) fn new(log: bool) -> Self {
        Self { bar: None, stage: String::new(), log }
    }

    /// Names the stage.
    pub(super) fn enter(&mut self, stage: String) {
        if !stderr().is_terminal() {
            self.note(&format!("==> {stage}\n"));
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_message(stage.clone());
        self.stage = stage;
    }

    /// Says how far the stage is.
    pub(super) fn step(&self, step: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {step}", self.stage));
        } else {
            self.note(&format!("    {}\n", step.trim_start_matches("==> ")));
        }
    }

    fn note(&self, line: &str) {
        if self.log {
            // A log that cannot be written is nobody's failure.
            drop(stderr().write_all(line.as_bytes()));
        }
    }

    /// Takes the line away while something else is written.
    pub(super) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the line away for good.
    pub(super) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
