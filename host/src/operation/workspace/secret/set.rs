use super::warn_of_short;
use crate::event::{Event, Stream};
use crate::operation::AnyAnswer as _;
use crate::operation::argument::{HostPath, WorkspaceRef, read_secret};
use crate::operation::{Answer, Context, Effect, Ink, Operation, Page, Streams};
use crate::secret::{SecretName, SecretValue, Secrets, VALUE_MAX};
use crate::workspace::find::find;
use crate::workspace::secret;
use crate::{Error, ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use tokio::io::AsyncReadExt;

/// Set a secret of a workspace, or give it another value.
///
/// Programs get it as a variable (`secret_env` of a command) or read it in
/// /run/pyro-secrets, as root. It is left out of all that pyro shows and records.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SecretSet {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to call it: letters, digits and `_`.
    #[arg(value_name = "NAME")]
    pub name: SecretName,
    /// The value is that of this file of the host, to the byte; on the command
    /// line, if not given, it is standard input.
    #[arg(long, value_name = "PATH")]
    #[serde(default)]
    #[schemars(with = "HostPath")]
    pub file: Option<HostPath>,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace secret set fix-parser GITHUB_TOKEN --file ~/.config/token
  pass show api-key | pyro workspace secret set fix-parser API_KEY
  pyro workspace exec fix-parser --secret-env API_KEY -- ./upload";

/// That it is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SecretSetAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What it is called.
    pub name: String,
    /// Whether a machine runs and has it already; else it has it when it is
    /// started.
    pub in_guest: bool,
}

impl SecretSet {
    async fn value(&self, context: &mut Context) -> Result<SecretValue> {
        if let Some(path) = &self.file {
            return read_secret(&self.name, path, context).await;
        }
        let Some(stdin) = context.stdin.take() else {
            return Err(Error::new(ErrorKind::InvalidInput, "there is no value")
                .hint("give `file`, or on the command line standard input"));
        };
        let mut bytes = Vec::with_capacity(VALUE_MAX + 1);
        let reading = async {
            let read = stdin.take(VALUE_MAX as u64 + 1).read_to_end(&mut bytes).await;
            read.map_err(|error| Error::io("cannot read standard input", error))
        };
        context.unless_cancelled(reading).await?;
        SecretValue::new(bytes).map_err(|error| {
            let message = format!("standard input cannot be the value of secret {}", self.name);
            Error::new(ErrorKind::InvalidInput, message).because(error)
        })
    }
}

impl Operation for SecretSet {
    const PATH: &'static [&'static str] = &["workspace", "secret", "set"];
    const TOOL: Option<&'static str> = Some("secret_set");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    const STREAMS: Streams = Streams::Answer;
    type Output = SecretSetAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.name.to_string())
    }

    async fn run(self, pyro: &Pyro, mut context: Context) -> Result<SecretSetAnswer> {
        // What may not be named is refused whatever else is wrong.
        self.file.as_ref().map(|path| path.resolve(&context)).transpose()?;
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let value = self.value(&mut context).await?;
        warn_of_short(&self.name, &value, &context).await;
        let mut secrets = Secrets::default();
        secrets.add(self.name.clone(), value)?;
        let in_guest = secret::set(&place, &secrets, &context).await?;
        let answer = SecretSetAnswer {
            workspace_id: place.id().to_string(),
            name: self.name.to_string(),
            in_guest,
        };
        let bytes = answer.to_text(Ink::Plain).into_bytes();
        context.events.emit(Event::Output { stream: Stream::Stdout, bytes }).await;
        Ok(answer)
    }
}

impl Answer for SecretSetAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { workspace_id, name, .. } = self;
        writeln!(page, "Set secret {name} of workspace {workspace_id}")
    }
}
