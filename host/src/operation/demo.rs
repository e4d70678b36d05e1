//! The whole loop, shown.

use super::argument::{PathInGuest, WorkspaceRef};
use super::{
    Answer, Context, Effect, FileEdit, Operation, Page, WorkspaceCreate, WorkspaceDelete,
    WorkspaceDiff, WorkspaceExec, WorkspaceExport, WorkspaceReset,
};
use crate::blocking::blocking;
use crate::environment::Environments;
use crate::event::Event;
use crate::store::staging::Staging;
use crate::workspace::record::TtlAction;
use crate::{Error, ErrorKind, Pyro, Result};
use anstyle::{AnsiColor, Style};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

/// Show the whole loop in a workspace of its own.
///
/// A small project whose check fails becomes a workspace; the file is mended,
/// the check passes, the change is shown as a patch and exported, the workspace
/// is broken, reset, deleted. Each step says the command that does it. Nothing is
/// left of it.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct Demo {
    /// The environment to boot.
    #[arg(default_value = ENVIRONMENT)]
    #[serde(default = "environment")]
    pub environment: String,
}

const EXAMPLES: &str = "\
Examples:
  pyro demo
  pyro demo debian:12-base --json";

const ENVIRONMENT: &str = "debian:12";

fn environment() -> String {
    ENVIRONMENT.into()
}

/// Should the demonstration be killed, its workspace goes by itself.
const TTL_SECONDS: u32 = 600;

const MESSAGE: &str = "message.txt";
const BROKEN: &str = "broken\n";
const FIXED: &str = "fixed\n";

/// Fails unless the message is what it should be.
const CHECK: &str = "\
#!/bin/sh
if [ \"$(cat message.txt)\" = fixed ]; then echo 'the check passes'
else echo 'the check fails: the message is not \"fixed\"'; exit 1
fi
";

/// What was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DemoAnswer {
    /// The environment that was booted.
    pub environment: String,
    /// What was done, in this order; each did what it should.
    pub steps: Vec<DemoStep>,
    /// How long all of it took, in milliseconds.
    pub duration_ms: u64,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DemoStep {
    /// What it shows.
    pub shows: String,
    /// The command that does it.
    pub command: String,
    /// What came out.
    pub output: String,
    /// The exit code of the program that it ran, if it ran one.
    pub exit_code: Option<u8>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl Operation for Demo {
    const PATH: &'static [&'static str] = &["demo"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Changes;
    type Output = DemoAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<DemoAnswer> {
        let started = Instant::now();
        let place = Staging::new(&Environments::new(&pyro.config).staging_dir())?;
        let project = place.path().join("project");
        let made = project.clone();
        blocking(move || {
            make_project(&made).map_err(|error| Error::io("cannot make the project", error))
        })
        .await?;
        let mut tour = Tour { pyro, context: &context, steps: Vec::new() };
        let mut create = WorkspaceCreate::new(self.environment.clone());
        create.seed_path = Some(project.into());
        create.ttl_seconds = Some(number(TTL_SECONDS)?);
        create.ttl_action = TtlAction::Delete;
        let words = format!(
            "create {} --seed-path project --ttl-seconds {TTL_SECONDS} --ttl-action delete",
            self.environment
        );
        let created = tour.step("A project becomes a machine of its own", words, create).await?;
        let id = created.workspace_id;
        let shown = tour.show(&id, place.path()).await;
        // Also of what failed nothing is left, and who has cancelled it waits for that.
        let mut delete = WorkspaceDelete::new(id.as_str());
        delete.ignore_missing = true;
        let deleted = pyro.call(delete).await;
        shown?;
        deleted?;
        let steps = tour.steps;
        let duration_ms = milliseconds(started);
        Ok(DemoAnswer { environment: self.environment, steps, duration_ms })
    }
}

fn make_project(at: &Path) -> std::io::Result<()> {
    fs::create_dir(at)?;
    fs::write(at.join(MESSAGE), BROKEN)?;
    fs::write(at.join("check.sh"), CHECK)?;
    fs::set_permissions(at.join("check.sh"), Permissions::from_mode(0o755))
}

fn number<T: std::str::FromStr>(number: u32) -> Result<T> {
    number.to_string().parse().map_err(|_| broken("a number of its own is out of bounds"))
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the demonstration did not work: {what}"))
        .hint("`pyro doctor` tries what this host can do")
}

/// One demonstration under way.
struct Tour<'a> {
    pyro: &'a Pyro,
    context: &'a Context,
    steps: Vec<DemoStep>,
}

impl Tour<'_> {
    /// Does a step and notes it, its output not yet.
    async fn step<O: Operation>(
        &mut self,
        shows: &str,
        words: String,
        operation: O,
    ) -> Result<O::Output> {
        let command = format!("pyro workspace {words}");
        let event = Event::Stage { name: "showing", subject: command.clone() };
        self.context.events.emit(event).await;
        let context = Context {
            cancel: self.context.cancel.clone(),
            caller: self.context.caller,
            ..Context::default()
        };
        let started = Instant::now();
        let answer = self.pyro.call_with(operation, context).await?;
        let duration_ms = milliseconds(started);
        let (shows, output) = (shows.to_owned(), String::new());
        self.steps.push(DemoStep { shows, command, output, exit_code: None, duration_ms });
        Ok(answer)
    }

    /// Notes what came out of the step just done, unless it is wrong.
    fn output(&mut self, output: &str, is_right: bool) -> Result<()> {
        let Some(step) = self.steps.last_mut() else { return Ok(()) };
        step.output = output.to_owned();
        if is_right { Ok(()) } else { Err(broken(&format!("{} said {output:?}", step.command))) }
    }

    async fn exec(&mut self, shows: &str, id: &str, argv: &[&str]) -> Result<(String, u8)> {
        let exec = WorkspaceExec::new(id, argv.to_vec());
        let words = format!("exec {id} -- {}", exec.command.line());
        let answer = self.step(shows, words, exec).await?;
        if let Some(step) = self.steps.last_mut() {
            step.exit_code = answer.exit_code;
        }
        Ok((answer.output.stdout, answer.exit_code.unwrap_or_default()))
    }

    /// All between the workspace's beginning and its end.
    async fn show(&mut self, id: &str, place: &Path) -> Result<()> {
        let (said, code) = self.exec("Its check fails", id, &["./check.sh"]).await?;
        self.output(&said, code == 1)?;
        let (said, _) = self.exec("It has no network", id, &["ls", "/sys/class/net"]).await?;
        self.output(&said, said == "lo\n")?;

        let edit = FileEdit {
            workspace_id: WorkspaceRef::from(id),
            path: PathInGuest::try_from(MESSAGE)?,
            old: BROKEN.trim_end().into(),
            new: FIXED.trim_end().into(),
            count: Default::default(),
            all: false,
        };
        let words = format!("file edit {id} {MESSAGE} --old {} --new {}", edit.old, edit.new);
        let edited = self.step("A file is mended", words, edit).await?;
        let said = format!("{} replacement in line {}\n", edited.replacements, edited.first_line);
        self.output(&said, edited.replacements == 1)?;
        let (said, code) = self.exec("Now the check passes", id, &["./check.sh"]).await?;
        self.output(&said, code == 0)?;

        let shows = "What has changed is a patch that git takes";
        let diff = self.step(shows, format!("diff {id}"), WorkspaceDiff::new(id)).await?;
        self.output(&diff.patch, diff.summary.total == 1)?;
        let fixed = place.join("fixed.txt");
        let path = PathInGuest::try_from(MESSAGE)?;
        let export = WorkspaceExport::new(id, path, fixed.clone());
        let words = format!("export {id} {MESSAGE} --output fixed.txt");
        self.step("The result comes out to the host", words, export).await?;
        let exported = blocking(move || {
            fs::read_to_string(fixed).map_err(|error| Error::io("cannot read the export", error))
        });
        let exported = exported.await?;
        self.output(&exported, exported == FIXED)?;

        let rm = ["rm", MESSAGE, "check.sh"];
        let (said, code) = self.exec("Something breaks in it", id, &rm).await?;
        self.output(&said, code == 0)?;
        let words = format!("reset {id}");
        self.step("A reset takes it back", words, WorkspaceReset::new(id)).await?;
        let (said, _) =
            self.exec("It is as it was in the beginning", id, &["cat", MESSAGE]).await?;
        self.output(&said, said == BROKEN)?;

        let delete = WorkspaceDelete::new(id);
        let deleted =
            self.step("And nothing is left of it", format!("delete {id}"), delete).await?;
        self.output("", deleted.deleted)
    }
}

const SHOWN: Style = Style::new().bold();
const COMMAND: Style = AnsiColor::Cyan.on_default();
const DIM: Style = Style::new().dimmed();

impl Answer for DemoAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        for step in &self.steps {
            let shows = page.paint(SHOWN, format_args!("{}:", step.shows));
            let command = page.paint(COMMAND, format_args!("$ {}", step.command));
            let took = page.paint(DIM, format_args!("({} ms)", step.duration_ms));
            writeln!(page, "{shows}\n  {command}  {took}")?;
            for line in step.output.lines() {
                writeln!(page, "  {line}")?;
            }
            if let Some(code) = step.exit_code.filter(|code| *code != 0) {
                writeln!(page, "  {}", page.paint(DIM, format_args!("exit code {code}")))?;
            }
            writeln!(page)?;
        }
        let seconds = self.duration_ms as f64 / 1000.0;
        writeln!(page, "All of it took {seconds:.1} s.")
    }
}
