use super::ShellFacts;
use crate::operation::argument::{
    Cols, PathInGuest, Rows, SecretVariables, Variable, Variables, WorkspaceRef, terminal_size,
};
use crate::operation::{Context, Creates, Effect, Operation};
use crate::secret::SecretVariable;
use crate::workspace::Live;
use crate::workspace::shell::{OpenRequest, open};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Open a shell: an interactive terminal that stays.
///
/// It keeps its directory, variables and programs from one call to the next,
/// until it is closed or the workspace stops. It is bash without start-up
/// files, or sh, with the prompt `pyro$ `. Read its greeting, write to it,
/// read on. For one command use exec.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ShellOpen {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// Where to open it in the guest, `/workspace` if not given.
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub cwd: Option<PathInGuest>,
    /// How many columns the terminal has, 1 to 500.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub cols: Cols,
    /// How many rows the terminal has, 1 to 500.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub rows: Rows,
    /// Variables for it, on top of the guest's own; on the command line NAME
    /// alone passes on the caller's value.
    #[arg(long, value_name = "NAME[=VALUE]")]
    #[serde(default, deserialize_with = "Variables::deserialize")]
    #[schemars(with = "Variables")]
    pub env: Vec<Variable>,
    /// Secrets of the workspace for it, each as a variable; on the command line
    /// NAME alone gives it its own name.
    #[arg(long, value_name = "NAME[=VARIABLE]")]
    #[serde(default, deserialize_with = "SecretVariables::deserialize")]
    #[schemars(with = "SecretVariables")]
    pub secret_env: Vec<SecretVariable>,
    /// The guest's user to run it as, `USER[:GROUP]`; root if not given.
    #[arg(long, value_name = "USER")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  shell=$(pyro workspace shell open fix-parser --id-only)
  pyro workspace shell write fix-parser $shell --input 'make test'
  pyro workspace shell read fix-parser $shell --plain --wait-for-idle-ms 500";

impl Operation for ShellOpen {
    const PATH: &'static [&'static str] = &["workspace", "shell", "open"];
    const TOOL: Option<&'static str> = Some("shell_open");
    const EFFECT: Effect = Effect::Changes;
    const CREATES: Creates = Creates::Something;
    type Output = ShellFacts;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ShellFacts> {
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let mut env = Variables::resolve(self.env, &pyro.config);
        live.add_secrets(&mut env, &self.secret_env)?;
        let request = OpenRequest {
            argv: Vec::new(),
            cwd: self.cwd.map(|PathInGuest(path)| path),
            env,
            user: self.user,
            size: terminal_size(self.cols, self.rows),
        };
        let shell = open(pyro, &live, request, &context).await?;
        Ok(ShellFacts::of(&live, &shell))
    }
}
