use crate::environment::{Environment, Environments};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::{Pyro, Result};
use anstyle::Style;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// List the environments that a machine can be booted from.
#[derive(Debug, Clone, Default, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct EnvList {}

const EXAMPLES: &str = "\
Examples:
  pyro env list
  pyro env list --json | jq -r '.environments[] | select(.installed).name'";

/// The environments, by name.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EnvListAnswer {
    /// Each environment, built on this host or not.
    pub environments: Vec<Environment>,
}

impl Operation for EnvList {
    const PATH: &'static [&'static str] = &["env", "list"];
    const TOOL: Option<&'static str> = Some("env_list");
    const EFFECT: Effect = Effect::Reads;
    type Output = EnvListAnswer;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<EnvListAnswer> {
        Ok(EnvListAnswer { environments: Environments::new(&pyro.config).list()? })
    }
}

impl Answer for EnvListAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let bold = Style::new().bold();
        let heading = ["NAME", "ON THIS HOST", "DESCRIPTION"].map(|cell| page.paint(bold, cell));
        let rows = self.environments.iter().map(|environment| {
            let installed = match (&environment.installed, &environment.problem) {
                (Some(installed), _) => format!("{} MiB", installed.root_bytes >> 20),
                (None, Some(_)) => "damaged".into(),
                (None, None) => "not built".into(),
            };
            [environment.name.clone(), installed, environment.description.clone()]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}
