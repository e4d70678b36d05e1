use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::secret::SecretName;
use crate::workspace::find::find;
use crate::workspace::secret;
use crate::{Error, ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Delete a secret of a workspace.
///
/// Programs that have it as a variable keep it. From then on it is not left out
/// of what pyro shows: a value that is known to others should be made invalid.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SecretDelete {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What it is called.
    #[arg(value_name = "NAME")]
    pub name: SecretName,
    /// Have it be no error if there is none.
    #[arg(long)]
    #[serde(default)]
    pub ignore_missing: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace secret delete fix-parser GITHUB_TOKEN";

/// That it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SecretDeleteAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// What it was called.
    pub name: String,
    /// Whether it was there.
    pub deleted: bool,
}

impl Operation for SecretDelete {
    const PATH: &'static [&'static str] = &["workspace", "secret", "delete"];
    const TOOL: Option<&'static str> = Some("secret_delete");
    const EFFECT: Effect = Effect::Destroys;
    const REPEATABLE: bool = true;
    type Output = SecretDeleteAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(self.name.to_string())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<SecretDeleteAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let deleted = secret::delete(&place, &self.name, &context).await?;
        if !deleted && !self.ignore_missing {
            let message = format!("there is no secret {}", self.name);
            let hint = format!("`pyro workspace secret list {}` shows those there are", place.id());
            return Err(Error::new(ErrorKind::NotFound, message).hint(hint));
        }
        let (workspace_id, name) = (place.id().to_string(), self.name.to_string());
        Ok(SecretDeleteAnswer { workspace_id, name, deleted })
    }
}

impl Answer for SecretDeleteAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let Self { workspace_id, name, deleted } = self;
        match deleted {
            true => writeln!(page, "Deleted secret {name} of workspace {workspace_id}"),
            false => writeln!(page, "There was no secret {name}"),
        }
    }
}
