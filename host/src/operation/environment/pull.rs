use crate::environment::{Environment, Environments, Pull};
use crate::fetch::Patience;
use crate::oci::registry::Plain;
use crate::operation::{Context, Effect, Operation};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Make an environment of an image in a registry.
///
/// Takes what `docker pull` takes, for linux/amd64, and logs in as `docker login`
/// did. Every layer is compared with its digest; one that is here is not fetched
/// again, and one that broke off is gone on with.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct EnvPull {
    /// The image, such as `alpine:3.20` or `ghcr.io/org/app@sha256:...`.
    pub reference: String,
    /// What to call the environment; as the image if not given.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Also use a registry that speaks plain HTTP, which anybody on the way can
    /// read and change. One on this host always may.
    #[arg(long)]
    #[serde(default)]
    pub insecure: bool,
}

const EXAMPLES: &str = "\
Examples:
  pyro env pull alpine:3.20
  pyro run alpine:3.20 -- cat /etc/alpine-release
  pyro env pull ghcr.io/org/app:1.2 --name app
  pyro env pull localhost:5000/mine";

impl Operation for EnvPull {
    const PATH: &'static [&'static str] = &["env", "pull"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = Environment;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<Environment> {
        let plain = if self.insecure { Plain::Anywhere } else { Plain::Loopback };
        let (reference, name) = (self.reference, self.name);
        let pull = Pull { reference, name, plain, patience: Patience::default() };
        let environments = Environments::new(&pyro.config);
        environments.pull(pull, &context.events, &context.cancel).await
    }
}
