use crate::environment::{Environment, Environments, Outdated};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;

/// Show what an environment holds and where its files are.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct EnvInspect {
    /// The environment, such as `debian:12`.
    pub environment: String,
}

const EXAMPLES: &str = "\
Examples:
  pyro env inspect debian:12
  pyro env inspect debian:12 --json | jq -r .installed.root_digest";

impl Operation for EnvInspect {
    const PATH: &'static [&'static str] = &["env", "inspect"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Reads;
    type Output = Environment;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<Environment> {
        Environments::new(&pyro.config).inspect(&self.environment)
    }
}

impl Answer for Environment {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let mut rows = vec![
            ["Environment:", &self.name].map(String::from),
            ["Description:", &self.description].map(String::from),
            [
                "Distribution:".into(),
                format!("{} {}", self.distribution, self.distribution_version),
            ],
            ["Packages:".into(), self.packages.join(", ")],
        ];
        match &self.installed {
            None => {
                rows.push(["Built:".into(), format!("no; `pyro env build {}` does it", self.name)]);
            }
            Some(installed) => {
                for outdated in &installed.outdated {
                    let with = match outdated {
                        Outdated::Tree => "from another recipe",
                        Outdated::Agent => "with another agent",
                    };
                    rows.push([
                        "Outdated:".into(),
                        format!("built {with}; `pyro env build {}` renews it", self.name),
                    ]);
                }
                rows.extend([
                    ["Built:".into(), installed.built_at.to_string()],
                    ["Root image:".into(), installed.root_image.display().to_string()],
                    ["Root size:".into(), format!("{} MiB", installed.root_bytes >> 20)],
                    ["Root digest:".into(), installed.root_digest.to_string()],
                    ["Kernel:".into(), installed.kernel.display().to_string()],
                    ["Kernel flavor:".into(), installed.kernel_flavor.to_string()],
                    ["Kernel digest:".into(), installed.kernel_digest.to_string()],
                ]);
            }
        }
        if let Some(problem) = &self.problem {
            rows.push(["Problem:".into(), problem.clone()]);
        }
        page.table(&rows)
    }
}
