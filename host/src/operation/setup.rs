//! What pyro needs from others and fetches itself.

use super::argument::HostPath;
use super::{Answer, Context, Effect, Operation, Page};
use crate::digest::Sha256;
use crate::fetch::{FetchError, Patience, Url};
use crate::vmm::firecracker::release::{self, Origin, PINNED};
use crate::{Pyro, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::path::PathBuf;

/// Set up Firecracker, which runs guests where KVM works.
///
/// Fetches the official release that this pyro was made for, and compares its
/// programs with digests that pyro knows. What is there already is left alone.
/// Without it guests run on QEMU.
#[derive(Debug, Clone, Default, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct Setup {
    /// Take the release's archive from this file of the host, or from this URL
    /// of http or https, instead of from where its project publishes it.
    #[arg(long, value_name = "FILE|URL")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub from: Option<HostPath>,
}

const EXAMPLES: &str = "\
Examples:
  pyro setup
  pyro setup --from firecracker-v1.12.1-x86_64.tgz
  pyro setup --from https://mirror.example/firecracker-v1.12.1-x86_64.tgz

Whatever it comes from, its programs have to have the digests that pyro knows.
Proxies are taken from https_proxy, http_proxy, all_proxy and no_proxy.";

/// What is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SetupAnswer {
    /// The version of Firecracker.
    pub version: String,
    /// Whether it was there before.
    pub already_there: bool,
    /// The VMM.
    pub firecracker: SetupProgram,
    /// What confines it, for root.
    pub jailer: SetupProgram,
}

/// A program that was set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SetupProgram {
    /// Where it is.
    pub path: PathBuf,
    /// What it hashes to: `sha256:` and 64 hexadecimal digits.
    #[schemars(with = "String")]
    pub digest: Sha256,
}

impl Operation for Setup {
    const PATH: &'static [&'static str] = &["setup"];
    const TOOL: Option<&'static str> = None;
    const EFFECT: Effect = Effect::Changes;
    const REPEATABLE: bool = true;
    type Output = SetupAnswer;

    async fn run(self, pyro: &Pyro, context: Context) -> Result<SetupAnswer> {
        let origin = match &self.from {
            None => Origin::Official,
            Some(from) => match from.as_path().to_str().filter(|text| text.contains("://")) {
                Some(url) => Origin::Url(url.parse::<Url>().map_err(FetchError::from)?),
                None => Origin::File(from.as_path().to_owned(), from.open(&context).await?),
            },
        };
        let (events, cancel) = (&context.events, &context.cancel);
        let patience = Patience::default();
        let made = release::set_up(&pyro.config, &PINNED, origin, patience, events, cancel).await?;
        let program = |path, digest| SetupProgram { path, digest };
        Ok(SetupAnswer {
            version: PINNED.version.into(),
            already_there: made.already_there,
            firecracker: program(made.programs.firecracker, PINNED.firecracker),
            jailer: program(made.programs.jailer, PINNED.jailer),
        })
    }
}

impl Answer for SetupAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let what = if self.already_there { "was set up already" } else { "is set up" };
        writeln!(page, "Firecracker {} {what}: {}", self.version, self.firecracker.path.display())
    }
}
