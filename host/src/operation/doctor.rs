//! What this host can do.

use super::{Answer, Context, Effect, Operation, Page};
use crate::doctor::{self, Report, State, Trial};
use crate::{Pyro, Result};
use anstyle::{AnsiColor, Style};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt::{self, Write};

/// Find out by trying what this host can do.
///
/// Boots a real guest in every way the host could have, says how long each took
/// or why it failed and what to do about it, and which one pyro uses.
#[derive(Debug, Clone, Default, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {}

const EXAMPLES: &str = "\
Examples:
  pyro doctor
  pyro doctor --json | jq -r .chosen

The exit code is 1 when no guest boots at all.";

impl Operation for Doctor {
    const PATH: &'static [&'static str] = &["doctor"];
    const TOOL: Option<&'static str> = Some("doctor");
    const EFFECT: Effect = Effect::Reads;
    type Output = Report;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<Report> {
        doctor::examine(pyro, context).await
    }
}

const GOOD: Style = AnsiColor::Green.on_default();
const DUBIOUS: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const DIM: Style = Style::new().dimmed();

impl Answer for Report {
    fn render(&self, page: &mut Page) -> fmt::Result {
        for tried in &self.vmms {
            let name = format!("{} on {}", tried.vmm, tried.accelerator);
            match &tried.trial {
                Trial::Proven { boot_ms } => {
                    line(page, GOOD, "ok", &name, &format!("a guest answered after {boot_ms} ms"))?;
                }
                Trial::Failed { reason, next_step } => {
                    line(page, BAD, "failed", &name, reason)?;
                    advice(page, next_step.as_deref())?;
                }
                Trial::Skipped { reason } => line(page, DIM, "skipped", &name, reason)?,
            }
        }
        for check in &self.checks {
            let (style, word) = match check.state {
                State::Ok => (GOOD, "ok"),
                State::Warning => (DUBIOUS, "warning"),
                State::Failed => (BAD, "failed"),
                State::Skipped => (DIM, "skipped"),
            };
            line(page, style, word, &check.name, &check.detail)?;
            advice(page, check.next_step.as_deref())?;
        }
        match &self.chosen {
            Some(chosen) => writeln!(page, "\nGuests run on {chosen}."),
            None if self.untried() => {
                writeln!(page, "\nWhether guests boot on this host was not tried.")
            }
            None => writeln!(page, "\nNo guest boots on this host."),
        }
    }

    fn exit_code(&self) -> u8 {
        u8::from(!self.can_boot())
    }
}

fn line(page: &mut Page, style: Style, word: &str, name: &str, detail: &str) -> fmt::Result {
    let word = page.paint(style, format_args!("{word:<7}"));
    writeln!(page, "{word}  {name}: {detail}")
}

fn advice(page: &mut Page, next_step: Option<&str>) -> fmt::Result {
    match next_step {
        Some(next_step) => writeln!(page, "         {next_step}"),
        None => Ok(()),
    }
}
