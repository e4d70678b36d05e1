use crate::environment::{Environment, Environments, Outdated};
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::workspace::history::quoted;
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

impl Environment {
    /// What its makers say programs get.
    fn told_defaults(&self) -> [(&'static str, String); 5] {
        let defaults = &self.defaults;
        let words = |words: &[String]| quoted(words.iter().map(String::as_bytes));
        let env: Vec<_> =
            defaults.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        [
            ("Entrypoint:", words(&defaults.entrypoint)),
            ("Command:", words(&defaults.cmd)),
            ("Variables:", words(&env)),
            ("User:", defaults.user.clone()),
            ("Directory:", defaults.cwd.clone()),
        ]
    }
}

impl Answer for Environment {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let mut rows = vec![
            ["Environment:", &self.name].map(String::from),
            ["Description:", &self.description].map(String::from),
        ];
        match &self.origin {
            None => rows.extend([
                [
                    "Distribution:".into(),
                    format!("{} {}", self.distribution, self.distribution_version),
                ],
                ["Packages:".into(), self.packages.join(", ")],
            ]),
            Some(origin) => {
                let digest = origin.digest.map(|digest| digest.to_string());
                let given = [("Digest:", digest.unwrap_or_default())];
                rows.extend(given.into_iter().chain(self.told_defaults()).filter_map(
                    |(title, text)| (!text.is_empty()).then(|| [title.to_owned(), text]),
                ));
            }
        }
        match &self.installed {
            None if self.origin.is_some() => rows.push(["Built:".into(), "no".into()]),
            None => {
                rows.push(["Built:".into(), format!("no; `pyro env build {}` does it", self.name)]);
            }
            Some(installed) => {
                for outdated in &installed.outdated {
                    let with = match outdated {
                        Outdated::Tree => "from another recipe",
                        Outdated::Agent => "with another agent",
                    };
                    let way = match &self.origin {
                        None => format!("`pyro env build {}` renews it", self.name),
                        Some(origin) => format!("{} renews it", origin.way(&self.name)),
                    };
                    rows.push(["Outdated:".into(), format!("built {with}; {way}")]);
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
