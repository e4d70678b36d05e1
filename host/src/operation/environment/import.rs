use crate::environment::{Environment, Environments, Import};
use crate::operation::argument::HostPath;
use crate::operation::{Context, Effect, Operation};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Make an environment of an image or a root file system on this host.
///
/// Takes a directory of the OCI's layout, an archive of one or of `docker save`, a
/// tar of a root file system, or a directory with one; archives plain or compressed
/// by gzip or zstd. Everything in a directory becomes root's; a tar says whose its
/// files are.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct EnvImport {
    /// The directory or archive.
    pub path: HostPath,
    /// What to call the environment; as the image calls itself if not given.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Which image to take where there are several, by what it calls itself.
    #[arg(long, value_name = "IMAGE")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub image: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  docker save app:1.2 | gzip > app.tar.gz && pyro env import app.tar.gz
  pyro env import rootfs.tar --name mine
  pyro run mine -- /bin/hello";

impl Operation for EnvImport {
    const PATH: &'static [&'static str] = &["env", "import"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = Environment;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<Environment> {
        let place = self.path.resolve(&context)?;
        let import = Import { place, name: self.name, image: self.image };
        let environments = Environments::new(&pyro.config);
        environments.import(import, &context.events, &context.cancel).await
    }
}
