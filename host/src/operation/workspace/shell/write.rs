use super::ShellFacts;
use crate::operation::argument::{ShellRef, WorkspaceRef};
use crate::operation::workspace::process::WriteSeconds;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::Live;
use crate::workspace::shell::known;
use crate::{Error, ErrorKind, Pyro, Result};
use clap::ArgAction;
use pyro_protocol::ByteString;
use pyro_protocol::shell::WriteShell;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// The most input of one call. What is longer is a file: push it.
const INPUT_MAX: usize = 1 << 20;

/// Type into a shell.
///
/// A newline follows, as if Enter were pressed, unless `append_newline` is
/// false. Control characters do what they do on a keyboard: \u0003 is Ctrl-C,
/// \u0004 ends an input. What the shell does not read in time is not typed; the
/// answer says how much was.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellWrite {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The shell.
    #[arg(value_name = "SHELL")]
    #[schemars(with = "ShellRef")]
    pub shell_id: ShellRef,
    /// What to type.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub input: String,
    /// Do not press Enter afterwards.
    #[arg(long = "no-newline", action = ArgAction::SetFalse)]
    #[serde(default = "yes")]
    #[schemars(description = "Whether to press Enter afterwards; true if not given.")]
    pub append_newline: bool,
    /// How many seconds the shell may take to read it, 0 to 300.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub wait_seconds: WriteSeconds,
}

fn yes() -> bool {
    true
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace shell write fix-parser 3f2a9c0d1e4b --input 'cd src && ls'
  pyro workspace shell write fix-parser 3f2a9c0d1e4b --input $'\\x03' --no-newline";

/// How much of the input was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShellWriteAnswer {
    /// The shell.
    #[serde(flatten)]
    pub shell: ShellFacts,
    /// How many bytes there were, with the newline.
    pub input_bytes: usize,
    /// How many of them the terminal took, from the first on.
    pub taken_bytes: u32,
    /// Whether a newline was added.
    pub append_newline: bool,
}

impl Operation for ShellWrite {
    const PATH: &'static [&'static str] = &["workspace", "shell", "write"];
    const TOOL: Option<&'static str> = Some("shell_write");
    const EFFECT: Effect = Effect::Destroys;
    type Output = ShellWriteAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        // The input may be a password.
        Some(self.shell_id.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellWriteAnswer> {
        let mut input = self.input.into_bytes();
        if self.append_newline {
            input.push(b'\n');
        }
        let input_bytes = input.len();
        if input_bytes > INPUT_MAX {
            let message = format!("{input_bytes} bytes of input; at most {INPUT_MAX} are taken");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint("put it into a file and let the program read that"));
        }
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let call = WriteShell {
            id: self.shell_id.0,
            data: ByteString(input),
            wait_ms: self.wait_seconds.get() * 1000,
        };
        let written = context.unless_cancelled(live.agent().write_shell(call)).await;
        let written = known(&live, written)?;
        Ok(ShellWriteAnswer {
            shell: ShellFacts::of(&live, &written.shell),
            input_bytes,
            taken_bytes: written.taken,
            append_newline: self.append_newline,
        })
    }
}

impl Answer for ShellWriteAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { shell, taken_bytes, input_bytes, .. } = self;
        writeln!(page, "shell {} took {taken_bytes} of {input_bytes} bytes", shell.shell_id)
    }
}
