//! What a person at a terminal sees while an operation runs.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);

/// A line on standard error, when that is a terminal; otherwise nothing.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    stage: String,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { bar: None, stage: String::new() }
    }

    /// Names the stage.
    pub(super) fn enter(&mut self, stage: String) {
        if !stderr().is_terminal() {
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
