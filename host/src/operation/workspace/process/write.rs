use crate::operation::argument::{Number, ProcessRef, WorkspaceRef};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::{Live, process};
use crate::{Error, ErrorKind, Pyro, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pyro_protocol::ByteString;
use pyro_protocol::kept::WriteProcess;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// The most input of one call. What is longer is a file: push it.
const INPUT_MAX: usize = 1 << 20;

/// How long a program may take to read what it is given.
pub type WriteSeconds = Number<0, 10, 300>;

/// Write to the input of a process.
///
/// The process was started with `keep_stdin`. A line ends with a newline, which
/// is not added. If it does not read all in time, the answer says how much it
/// took.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ProcessWrite {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The process.
    #[arg(value_name = "PROCESS")]
    #[schemars(with = "ProcessRef")]
    pub process_id: ProcessRef,
    /// The input, as it is.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    #[serde(default)]
    #[schemars(with = "String")]
    pub text: Option<String>,
    /// The input in base64, when it is no text.
    #[arg(long, value_name = "BASE64", conflicts_with = "text")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub base64: Option<String>,
    /// Then close the input: the program reads its end.
    #[arg(long)]
    #[serde(default)]
    pub end: bool,
    /// How many seconds the program may take to read it, 0 to 300.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub wait_seconds: WriteSeconds,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace process write fix-parser 3f2a9c0d1e4b --text $'yes\\n'
  pyro workspace process write fix-parser 3f2a9c0d1e4b --end";

/// How much of the input was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ProcessWriteAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// The process.
    pub process_id: String,
    /// How many bytes there were.
    pub input_bytes: usize,
    /// How many of them the process took, from the first on.
    pub taken_bytes: u32,
    /// Whether its input is closed now.
    pub ended: bool,
}

impl ProcessWrite {
    fn input(&self) -> Result<Vec<u8>> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidInput, message);
        let input = match (&self.text, &self.base64) {
            (Some(_), Some(_)) => {
                return Err(invalid("the input is given twice".into())
                    .hint("leave out one of text and base64"));
            }
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(base64)) => STANDARD
                .decode(base64)
                .map_err(|error| invalid("the input is no base64".into()).because(error))?,
            (None, None) if self.end => Vec::new(),
            (None, None) => {
                return Err(
                    invalid("there is nothing to write".into()).hint("give text, base64 or end")
                );
            }
        };
        match input.len() {
            0..=INPUT_MAX => Ok(input),
            length => {
                Err(invalid(format!("{length} bytes of input; at most {INPUT_MAX} are taken"))
                    .hint("put it into a file and let the program read that"))
            }
        }
    }
}

impl Operation for ProcessWrite {
    const PATH: &'static [&'static str] = &["workspace", "process", "write"];
    const TOOL: Option<&'static str> = Some("process_write");
    const EFFECT: Effect = Effect::Changes;
    type Output = ProcessWriteAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        // The input may be a password.
        Some(self.process_id.0.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ProcessWriteAnswer> {
        let input = self.input()?;
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let ProcessRef(id) = self.process_id;
        let input_bytes = input.len();
        let call = WriteProcess {
            id,
            data: ByteString(input),
            end: self.end,
            wait_ms: self.wait_seconds.get() * 1000,
        };
        let written = context.unless_cancelled(live.agent().write(call)).await;
        let written = process::forgotten(&live, id, written)?;
        Ok(ProcessWriteAnswer {
            workspace_id: live.id().to_string(),
            process_id: id.to_string(),
            input_bytes,
            taken_bytes: written.taken,
            ended: written.ended,
        })
    }
}

impl Answer for ProcessWriteAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let ended = if self.ended { "; its input is closed" } else { "" };
        let Self { process_id, taken_bytes, input_bytes, .. } = self;
        writeln!(page, "process {process_id} took {taken_bytes} of {input_bytes} bytes{ended}")
    }
}
