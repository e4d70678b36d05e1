use super::WorkspaceSummary;
use super::secret::warn_of_short;
use crate::config::Config;
use crate::egress::{Network, NetworkPolicy};
use crate::operation::argument::{
    DiskMib, DiskMibPerSecond, DiskOpsPerSecond, ForkOf, HostPath, Label, Labels, MemMib,
    NetworkConnections, NetworkKibPerSecond, NetworkRule, NewSecrets, Number, TtlSeconds,
    VcpuCount, WantedNetwork,
};
use crate::operation::{Context, Creates, Effect, Operation};
use crate::secret::{SecretValue, SecretVariable, Secrets};
use crate::seed::Source;
use crate::vmm::{RateLimit, Rung};
use crate::workspace::create::{NewWorkspace, Origin};
use crate::workspace::find::find;
use crate::workspace::fork::Fork;
use crate::workspace::record::{Record, TtlAction};
use crate::workspace::template::Start;
use crate::workspace::{self, Shape};
use crate::{Error, ErrorKind, Pyro, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// Create a workspace and start it.
///
/// A workspace is a Linux machine of its own that stays until it is deleted.
/// What it is seeded with becomes `/workspace` and the immutable baseline that
/// `diff` and `reset` compare with. Nothing it does touches the host.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceCreate {
    /// The environment to boot, such as `debian:12`; left out with `--from`.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub environment: Option<String>,
    /// Begin with what another workspace has on its disk: as it is, or as a
    /// snapshot or `baseline` has it. Environment, seed, size and network are the
    /// other's unless given.
    #[arg(long, value_name = "WORKSPACE[@SNAPSHOT]")]
    #[arg(conflicts_with_all = ["seed_path", "seed_git", "disk_mib"])]
    #[serde(default)]
    #[schemars(with = "ForkOf")]
    pub from: Option<ForkOf>,
    /// Seed it with this directory or `.tar`, `.tar.gz`, `.tar.zst` archive of
    /// the host.
    #[arg(long, value_name = "PATH", conflicts_with = "seed_git")]
    #[serde(default)]
    #[schemars(with = "HostPath")]
    pub seed_path: Option<HostPath>,
    /// Seed it with this git work tree of the host: its history, what is
    /// tracked, and what is neither tracked nor ignored, as it is now.
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    #[schemars(with = "HostPath")]
    pub seed_git: Option<HostPath>,
    /// What to call it; commands take it in place of the id.
    #[arg(long, value_name = "NAME")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub name: Option<String>,
    /// Mark it with a label; `list` can filter by labels.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    #[serde(default, deserialize_with = "Labels::deserialize")]
    #[schemars(with = "Labels")]
    pub labels: Vec<Label>,
    /// What it keeps to itself: for the name of each secret the file of the host
    /// that has its value.
    #[command(flatten)]
    #[serde(default)]
    pub secrets: NewSecrets,
    /// How many virtual CPUs it has, 1 to 32; 1 if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "VcpuCount")]
    pub vcpu_count: Option<VcpuCount>,
    /// How much memory it has, in MiB, at least 128; 1024 if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "MemMib")]
    pub mem_mib: Option<MemMib>,
    /// How large its file system is, in MiB, 64 to 65536; 16384 if not given. It
    /// takes no more room on the host than is written.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "DiskMib")]
    pub disk_mib: Option<DiskMib>,
    /// How many MiB it reads and writes on that in a second at most, together; no
    /// limit if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "DiskMibPerSecond")]
    pub disk_mib_per_second: Option<DiskMibPerSecond>,
    /// How many reads and writes it does there in a second at most; no limit if
    /// not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "DiskOpsPerSecond")]
    pub disk_ops_per_second: Option<DiskOpsPerSecond>,
    /// How to run it, always; the best way that works here if not given.
    #[arg(long, value_name = "firecracker|qemu-kvm|qemu-tcg")]
    #[serde(default)]
    #[schemars(with = "Rung")]
    pub vmm: Option<Rung>,
    /// Boot instead of restoring a template.
    #[arg(long)]
    #[serde(default)]
    pub cold: bool,
    /// What its network may do; `off` if not given. `egress`: it reaches the public
    /// Internet, or what `--allow` names; never the host or its network unless named.
    #[arg(long, value_name = "off|egress|egress+published-ports")]
    #[serde(default)]
    #[schemars(with = "NetworkPolicy")]
    pub network_policy: Option<NetworkPolicy>,
    /// Let its network reach this, and nothing that no rule allows:
    /// `pypi.org:443`, `*.debian.org`, `10.0.0.0/8:5432`; `@NAME` is a set of rules
    /// of your configuration.
    #[arg(long, value_name = "RULE")]
    #[serde(default)]
    pub allow: Vec<NetworkRule>,
    /// How many connections and datagram flows its network has at the same time, 1
    /// to 512; 512 if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "NetworkConnections")]
    pub network_connections: Option<NetworkConnections>,
    /// How many KiB leave it in a second at most; no limit if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "NetworkKibPerSecond")]
    pub network_up_kib_per_second: Option<NetworkKibPerSecond>,
    /// How many KiB reach it in a second at most; no limit if not given.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "NetworkKibPerSecond")]
    pub network_down_kib_per_second: Option<NetworkKibPerSecond>,
    /// Stop it by itself after so many seconds; no limit if not given. A call
    /// that is running then is waited for, `process wait` included; a detached
    /// process that nobody waits for is not.
    #[arg(long, value_name = "N")]
    #[serde(default)]
    #[schemars(with = "TtlSeconds")]
    pub ttl_seconds: Option<TtlSeconds>,
    /// What happens when that time is over.
    #[arg(long, value_name = "stop|delete", default_value_t)]
    #[serde(default)]
    pub ttl_action: TtlAction,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace create debian:12 --seed-git . --name fix-parser
  id=$(pyro workspace create debian:12 --seed-path src.tar.gz --id-only)
  pyro workspace create --from fix-parser@before-upgrade --name second-try
  pyro workspace create debian:12 --network-policy egress --allow '*.debian.org'
  pyro workspace create debian:12-build --mem-mib 4096 --label branch=main --ttl-seconds 3600";

impl WorkspaceCreate {
    /// An empty workspace of an environment, everything else by default.
    pub fn new(environment: impl Into<String>) -> Self {
        Self { environment: Some(environment.into()), ..Self::nothing() }
    }

    /// One that begins with what another has on its disk.
    pub fn fork_of(from: ForkOf) -> Self {
        Self { from: Some(from), ..Self::nothing() }
    }

    fn nothing() -> Self {
        Self {
            environment: None,
            from: None,
            seed_path: None,
            seed_git: None,
            name: None,
            labels: Vec::new(),
            secrets: NewSecrets::default(),
            vcpu_count: None,
            mem_mib: None,
            disk_mib: None,
            disk_mib_per_second: None,
            disk_ops_per_second: None,
            vmm: None,
            cold: false,
            network_policy: None,
            allow: Vec::new(),
            network_connections: None,
            network_up_kib_per_second: None,
            network_down_kib_per_second: None,
            ttl_seconds: None,
            ttl_action: TtlAction::default(),
        }
    }

    /// What it begins with.
    fn origin(&self, pyro: &Pyro, context: &Context) -> Result<Origin> {
        let invalid = |message: &str| Error::new(ErrorKind::InvalidInput, message);
        let seed = match (&self.seed_path, &self.seed_git) {
            (None, None) => None,
            (Some(path), None) => Some(Source::from_path(path.resolve(context)?)?),
            (None, Some(path)) => Some(Source::git(&pyro.config, path.resolve(context)?)?),
            (Some(_), Some(_)) => {
                return Err(invalid("a workspace is seeded from one thing, not from two")
                    .hint("give seed_path or seed_git"));
            }
        };
        match (&self.environment, &self.from) {
            (Some(name), None) => {
                let seed = seed.unwrap_or(Source::Empty);
                Ok(Origin::Environment { name: name.clone(), seed })
            }
            (None, Some(_)) if seed.is_some() || self.disk_mib.is_some() => {
                Err(invalid("the seed and the disk's size are those of the other workspace")
                    .hint("leave seed_path, seed_git and disk_mib out, or leave out from"))
            }
            (None, Some(ForkOf { workspace, snapshot })) => {
                let of = find(&pyro.config, workspace.as_str())?;
                Fork::new(of, snapshot.clone()).map(Box::new).map(Origin::Workspace)
            }
            (Some(_), Some(_)) => {
                Err(invalid("a workspace begins with an environment or with another workspace")
                    .hint("give environment or from"))
            }
            (None, None) => Err(invalid("nothing says what the workspace begins with")
                .hint("give environment, such as `debian:12`, or from")),
        }
    }

    /// How large it is: as the workspace that it is made from, if any, unless said.
    fn shape(&self, from: Option<&Record>) -> Shape {
        let usual = Shape {
            vcpu_count: VcpuCount::default().get(),
            mem_mib: MemMib::default().get(),
            disk_mib: DiskMib::default().get().into(),
            disk_limit: RateLimit::NONE,
        };
        let Shape { vcpu_count, mem_mib, disk_mib, disk_limit } = from.map_or(usual, Record::shape);
        let mib_per_second = self.disk_mib_per_second.map(Number::positive);
        let operations_per_second = self.disk_ops_per_second.map(Number::positive);
        Shape {
            vcpu_count: self.vcpu_count.map_or(vcpu_count, Number::get),
            mem_mib: self.mem_mib.map_or(mem_mib, Number::get),
            disk_mib: self.disk_mib.map_or(disk_mib, |mib| mib.get().into()),
            disk_limit: RateLimit {
                mib_per_second: mib_per_second.or(disk_limit.mib_per_second),
                operations_per_second: operations_per_second.or(disk_limit.operations_per_second),
            },
        }
    }

    /// Its network: that of the workspace that it is made from, if any, unless
    /// anything is said of it.
    fn network(&self, from: Option<&Record>, config: &Config) -> Result<Network> {
        let says_nothing = self.network_policy.is_none()
            && self.allow.is_empty()
            && self.network_connections.is_none()
            && self.network_up_kib_per_second.is_none()
            && self.network_down_kib_per_second.is_none();
        match from {
            Some(from) if says_nothing => Ok(from.network()),
            Some(_) | None => WantedNetwork {
                policy: self.network_policy.unwrap_or_default(),
                allow: self.allow.clone(),
                connections: self.network_connections.unwrap_or_default(),
                up: self.network_up_kib_per_second,
                down: self.network_down_kib_per_second,
            }
            .resolve(config),
        }
    }

    /// What it is to keep to itself. Whatever is wrong with that is said before
    /// anything is made.
    async fn secrets(&self, pyro: &Pyro, context: &Context) -> Result<Secrets> {
        let mut secrets = Secrets::default();
        for file in &self.secrets.secret_file {
            let value = file.read(context).await?;
            warn_of_short(&file.name, &value, context).await;
            secrets.add(file.name.clone(), value)?;
        }
        for SecretVariable { secret, variable } in &self.secrets.secret_env {
            let Some(value) = pyro.config.host_variable(variable.as_str().as_ref()) else {
                let message = format!("variable {variable} for secret {secret} is not set");
                return Err(Error::new(ErrorKind::InvalidInput, message)
                    .hint(format!("set it, or use `--secret-file {secret}=PATH`")));
            };
            let value = SecretValue::new(value.into_encoded_bytes()).map_err(|error| {
                let message = format!("variable {variable} cannot be the value of {secret}");
                Error::new(ErrorKind::InvalidInput, message).because(error)
            })?;
            warn_of_short(secret, &value, context).await;
            secrets.add(secret.clone(), value)?;
        }
        Ok(secrets)
    }
}

impl Operation for WorkspaceCreate {
    const PATH: &'static [&'static str] = &["workspace", "create"];
    const TOOL: Option<&'static str> = Some("workspace_create");
    const EFFECT: Effect = Effect::Changes;
    const CREATES: Creates = Creates::Something;
    type Output = WorkspaceSummary;

    fn about(&self) -> Option<String> {
        self.environment.clone().or_else(|| self.from.as_ref().map(ToString::to_string))
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let origin = self.origin(pyro, &context)?;
        let secrets = self.secrets(pyro, &context).await?;
        let from = match &origin {
            Origin::Environment { .. } => None,
            Origin::Workspace(fork) => Some(fork.record()),
        };
        let wanted = NewWorkspace {
            shape: self.shape(from),
            vmm: self.vmm.or(from.and_then(|from| from.vmm)),
            start: Start::unless(self.cold),
            network: self.network(from, &pyro.config)?,
            name: self.name,
            labels: Labels::collect(self.labels),
            secrets,
            ttl: self.ttl_seconds.map(|seconds| (seconds.get(), self.ttl_action)),
            origin,
        };
        let place = workspace::create::create(pyro, wanted, &context).await?;
        WorkspaceSummary::of(&place)
    }
}
