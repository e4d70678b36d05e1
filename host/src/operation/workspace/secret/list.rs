use crate::operation::argument::WorkspaceRef;
use crate::operation::workspace::summary::shown_time;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::find::find;
use crate::{Pyro, Result};
use anstyle::Style;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// List the secrets of a workspace.
///
/// Their names and when they were set; nothing tells a value.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct SecretList {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace secret list fix-parser";

/// The secrets of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SecretListAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: usize,
    /// Each of them, by name.
    pub secrets: Vec<ListedSecret>,
}

/// A secret in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ListedSecret {
    /// What it is called.
    pub name: String,
    /// When it got the value that it has, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub set_at: Timestamp,
}

impl Operation for SecretList {
    const PATH: &'static [&'static str] = &["workspace", "secret", "list"];
    const TOOL: Option<&'static str> = Some("secret_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = SecretListAnswer;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<SecretListAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let secrets = place.secrets().list()?.into_iter();
        let secrets: Vec<_> = secrets
            .map(|secret| ListedSecret { name: secret.name, set_at: secret.set_at })
            .collect();
        let (workspace_id, count) = (place.id().to_string(), secrets.len());
        Ok(SecretListAnswer { workspace_id, count, secrets })
    }
}

impl Answer for SecretListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.secrets.is_empty() {
            return writeln!(page, "No secrets.");
        }
        let bold = Style::new().bold();
        let heading = ["SECRET", "SET"].map(|cell| page.paint(bold, cell));
        let rows = self.secrets.iter().map(|it| [it.name.clone(), shown_time(it.set_at)]);
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}
