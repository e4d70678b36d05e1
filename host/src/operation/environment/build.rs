use crate::environment::{BuildOptions, Environment, Environments};
use crate::operation::{Context, Effect, Operation};
use crate::vmm::KernelFlavor;
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Build an environment on this host from its distribution's packages.
///
/// Downloads and verifies the packages, makes the root image with the agent in
/// it and finds a kernel. What is cached is not fetched again, and what is built
/// already is left alone.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct EnvBuild {
    /// The environment, such as `debian:12`.
    pub environment: String,
    /// Build it again even if it is there.
    #[arg(long)]
    #[serde(default)]
    pub force: bool,
    /// The kernel to have: `tuned` compiles one that boots about twice as
    /// fast and takes some minutes to make; any will do if not given.
    #[arg(long, value_name = "FLAVOR")]
    #[serde(default)]
    pub kernel: Option<KernelFlavor>,
}

const EXAMPLES: &str = "\
Examples:
  pyro env build debian:12
  pyro env build debian:12-build --force
  pyro env build debian:12 --kernel tuned";

impl Operation for EnvBuild {
    const PATH: &'static [&'static str] = &["env", "build"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Changes;
    type Output = Environment;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<Environment> {
        let options = BuildOptions { force: self.force };
        let environments = Environments::new(&pyro.config);
        // An unknown name is refused before anything is made.
        environments.recipe(&self.environment)?;
        if let Some(flavor) = self.kernel {
            environments.build_kernel(flavor, options, &context.events, &context.cancel).await?;
        }
        environments.build(&self.environment, options, &context.events, &context.cancel).await
    }
}
