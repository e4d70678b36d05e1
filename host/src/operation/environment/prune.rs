use crate::blocking::blocking;
use crate::environment::{Environments, PruneOptions, Pruned};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// Remove files of environments that nothing needs any more.
///
/// Those are images that a newer build replaced and that no workspace uses, and
/// what an interrupted build left behind.
#[derive(Debug, Clone, Default, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct EnvPrune {
    /// Only say what would be removed.
    #[arg(long)]
    #[serde(default)]
    pub dry_run: bool,
    /// Also what environments would boot next, if no workspace needs it.
    #[arg(long)]
    #[serde(default)]
    pub all: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro env prune --dry-run
  pyro env prune";

/// What was removed, or would be.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EnvPruneAnswer {
    /// Whether it is all still there.
    pub dry_run: bool,
    /// The files and directories.
    #[serde(flatten)]
    pub pruned: Pruned,
}

impl Operation for EnvPrune {
    const PATH: &'static [&'static str] = &["env", "prune"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Destroys;
    type Output = EnvPruneAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<EnvPruneAnswer> {
        let options = PruneOptions { dry_run: self.dry_run, all: self.all };
        let environments = Environments::new(&pyro.config);
        let pruning = blocking(move || environments.prune(options));
        let pruned = context.unless_cancelled(pruning).await?;
        Ok(EnvPruneAnswer { dry_run: self.dry_run, pruned })
    }
}

impl Answer for EnvPruneAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        for removed in &self.pruned.removed {
            let (mib, path) = (removed.bytes >> 20, removed.path.display());
            writeln!(page, "{mib:>6} MiB  {path}  {}", removed.what)?;
        }
        for problem in &self.pruned.problems {
            writeln!(page, "{problem}")?;
        }
        let verb = if self.dry_run { "would be" } else { "were" };
        writeln!(page, "{} MiB {verb} freed.", self.pruned.bytes >> 20)
    }
}
