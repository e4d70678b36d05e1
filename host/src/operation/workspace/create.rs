use super::WorkspaceSummary;
use super::secret::warn_of_short;
use crate::egress::NetworkPolicy;
use crate::operation::argument::{
    DiskMib, DiskMibPerSecond, DiskOpsPerSecond, HostPath, Label, Labels, MemMib,
    NetworkConnections, NetworkKibPerSecond, NetworkRule, NewSecrets, Number, TtlSeconds,
    VcpuCount, WantedNetwork,
};
use crate::operation::{Context, Creates, Effect, Operation};
use crate::secret::{SecretValue, SecretVariable, Secrets};
use crate::seed::Source;
use crate::vmm::{RateLimit, Rung};
use crate::workspace::create::NewWorkspace;
use crate::workspace::record::TtlAction;
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
    /// The environment to boot, such as `debian:12`.
    pub environment: String,
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
    /// How many virtual CPUs it has, 1 to 32.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub vcpu_count: VcpuCount,
    /// How much memory it has, in MiB, at least 128.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub mem_mib: MemMib,
    /// How large its file system is, in MiB, 64 to 65536; it takes no more room
    /// on the host than is written.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub disk_mib: DiskMib,
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
    /// What its network may do. `egress`: it reaches the public Internet, or what
    /// `--allow` names; never the host or its network unless named.
    #[arg(long, value_name = "off|egress|egress+published-ports", default_value_t)]
    #[serde(default)]
    pub network_policy: NetworkPolicy,
    /// Let its network reach this, and nothing that no rule allows:
    /// `pypi.org:443`, `*.debian.org`, `10.0.0.0/8:5432`; `@NAME` is a set of rules
    /// of your configuration.
    #[arg(long, value_name = "RULE")]
    #[serde(default)]
    pub allow: Vec<NetworkRule>,
    /// How many connections and datagram flows its network has at the same time, 1
    /// to 512.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub network_connections: NetworkConnections,
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
  pyro workspace create debian:12 --network-policy egress --allow '*.debian.org'
  pyro workspace create debian:12-build --mem-mib 4096 --label branch=main --ttl-seconds 3600";

impl WorkspaceCreate {
    /// An empty workspace of an environment, everything else by default.
    pub fn new(environment: impl Into<String>) -> Self {
        Self {
            environment: environment.into(),
            seed_path: None,
            seed_git: None,
            name: None,
            labels: Vec::new(),
            secrets: NewSecrets::default(),
            vcpu_count: VcpuCount::default(),
            mem_mib: MemMib::default(),
            disk_mib: DiskMib::default(),
            disk_mib_per_second: None,
            disk_ops_per_second: None,
            vmm: None,
            network_policy: NetworkPolicy::default(),
            allow: Vec::new(),
            network_connections: NetworkConnections::default(),
            network_up_kib_per_second: None,
            network_down_kib_per_second: None,
            ttl_seconds: None,
            ttl_action: TtlAction::default(),
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
        Some(self.environment.clone())
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<WorkspaceSummary> {
        let seed = match (&self.seed_path, &self.seed_git) {
            (None, None) => Source::Empty,
            (Some(path), None) => Source::from_path(path.resolve(&context)?)?,
            (None, Some(path)) => Source::git(&pyro.config, path.resolve(&context)?)?,
            (Some(_), Some(_)) => {
                let message = "a workspace is seeded from one thing, not from two";
                return Err(
                    Error::new(ErrorKind::InvalidInput, message).hint("give seed_path or seed_git")
                );
            }
        };
        let secrets = self.secrets(pyro, &context).await?;
        let network = WantedNetwork {
            policy: self.network_policy,
            allow: self.allow,
            connections: self.network_connections,
            up: self.network_up_kib_per_second,
            down: self.network_down_kib_per_second,
        };
        let wanted = NewWorkspace {
            environment: self.environment,
            shape: Shape {
                vcpu_count: self.vcpu_count.get(),
                mem_mib: self.mem_mib.get(),
                disk_mib: self.disk_mib.get().into(),
                disk_limit: RateLimit {
                    mib_per_second: self.disk_mib_per_second.map(Number::positive),
                    operations_per_second: self.disk_ops_per_second.map(Number::positive),
                },
            },
            vmm: self.vmm,
            seed,
            name: self.name,
            network: network.resolve(&pyro.config)?,
            labels: Labels::collect(self.labels),
            secrets,
            ttl: self.ttl_seconds.map(|seconds| (seconds.get(), self.ttl_action)),
        };
        let place = workspace::create::create(pyro, wanted, &context).await?;
        WorkspaceSummary::of(&place)
    }
}
