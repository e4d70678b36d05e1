use super::summary::shown_time;
use super::{PublishedPort, WorkspaceSummary};
use crate::operation::argument::WorkspaceRef;
use crate::operation::{Answer, Context, Effect, Operation, Page};
use crate::supervisor::keep::Running;
use crate::vmm::{Metrics, Rung};
use crate::workspace::find::find;
use crate::workspace::service::{self, COUNT_PATIENCE};
use crate::workspace::{pause, port, shell};
use crate::{Pyro, Result};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::time::Instant;

/// Show what a workspace is and what it is doing.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct WorkspaceStatus {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace status fix-parser
  pyro workspace status 4f2a --json | jq -r .state
  pyro workspace status fix-parser --json | jq .machine.metrics.disk_write_bytes";

/// A workspace, and its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceStatusAnswer {
    /// The workspace.
    #[serde(flatten)]
    pub workspace: WorkspaceSummary,
    /// How many services it has, also those that are over; null when that cannot
    /// be said at once.
    pub service_count: Option<u32>,
    /// How many of them run and are ready; null as before.
    pub running_service_count: Option<u32>,
    /// How many shells it has, also those whose program has ended; null as before.
    pub shell_count: Option<u32>,
    /// In how many of them a program runs; null as before.
    pub running_shell_count: Option<u32>,
    /// The machine that it runs in; null when there is none.
    pub machine: Option<MachineStatus>,
    /// Its published TCP ports; null when its supervisor does not say so soon.
    pub published_ports: Option<Vec<PublishedPort>>,
}

/// A machine that runs, or is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MachineStatus {
    /// How it is run; null when an older pyro started it.
    pub vmm: Option<Rung>,
    /// The process of its VMM on the host.
    pub vmm_pid: Option<u32>,
    /// When it answered its first call, RFC 3339 in UTC.
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    /// How long ago that was, in seconds.
    pub uptime_seconds: u64,
    /// How long it took until then, in milliseconds.
    pub boot_ms: u64,
    /// Whether a template was restored, in place of a boot.
    pub restored: bool,
    /// Since when it is paused, RFC 3339 in UTC; null when it is not.
    #[schemars(with = "Option<String>")]
    pub paused_at: Option<Timestamp>,
    /// What its VMM has counted; null when that does not say so soon.
    pub metrics: Option<Metrics>,
}

impl MachineStatus {
    fn new(running: &Running, metrics: Option<Metrics>) -> Self {
        let Running { since, ready, rung, paused_at } = running;
        let uptime = Timestamp::now().duration_since(*since).as_secs();
        Self {
            vmm: *rung,
            vmm_pid: ready.vmm_pid,
            started_at: *since,
            // The host's clock may be set back.
            uptime_seconds: u64::try_from(uptime).unwrap_or(0),
            boot_ms: ready.boot_ms(),
            restored: ready.is_restored(),
            paused_at: *paused_at,
            metrics,
        }
    }
}

impl Operation for WorkspaceStatus {
    const PATH: &'static [&'static str] = &["workspace", "status"];
    const TOOL: Option<&'static str> = Some("workspace_status");
    const EFFECT: Effect = Effect::Reads;
    type Output = WorkspaceStatusAnswer;

    async fn run(self, pyro: &Pyro, _: Context) -> Result<WorkspaceStatusAnswer> {
        let place = find(&pyro.config, self.workspace_id.as_str())?;
        let workspace = WorkspaceSummary::of(&place)?;
        let running = pause::running(&place);
        let machine = async {
            match running {
                Some(_) => tokio::join!(pause::metrics(&place), port::glance(&place)),
                None => (None, Some(Vec::new())),
            }
        };
        let deadline = Instant::now() + COUNT_PATIENCE;
        let services = service::count(pyro, &place, deadline);
        let shells = shell::count(pyro, &place, deadline);
        let ((metrics, ports), counts, shells) = tokio::join!(machine, services, shells);
        Ok(WorkspaceStatusAnswer {
            workspace,
            service_count: counts.map(|counts| counts.services),
            running_service_count: counts.map(|counts| counts.running),
            shell_count: shells.map(|shells| shells.all),
            running_shell_count: shells.map(|shells| shells.running),
            machine: running.map(|running| MachineStatus::new(&running, metrics)),
            published_ports: ports.map(|ports| ports.into_iter().map(Into::into).collect()),
        })
    }
}

impl Answer for WorkspaceStatusAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let mut rows = self.workspace.rows();
        if let (Some(all @ 1..), Some(running)) = (self.service_count, self.running_service_count) {
            rows.push(("Services", format!("{running} of {all} running")));
        }
        if let (Some(all @ 1..), Some(running)) = (self.shell_count, self.running_shell_count) {
            rows.push(("Shells", format!("{running} of {all} running")));
        }
        if let Some(machine) = &self.machine {
            rows.extend(machine.rows());
        }
        for port in self.published_ports.iter().flatten() {
            let service = port.service_name.as_ref().map(|name| format!(", service {name}"));
            rows.push(("Port", port.connection() + &service.unwrap_or_default()));
        }
        super::summary::table(rows, page)
    }

    fn id(&self) -> Option<String> {
        self.workspace.id()
    }
}

impl MachineStatus {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut machine = self.vmm.map_or_else(|| "running".into(), |vmm| vmm.to_string());
        if let Some(pid) = self.vmm_pid {
            machine.push_str(&format!(", process {pid}"));
        }
        machine.push_str(&format!(", up {} s", self.uptime_seconds));
        let mut rows = vec![("Machine", machine)];
        rows.extend(self.paused_at.map(|at| ("Paused", format!("since {}", shown_time(at)))));
        if let Some(Metrics {
            disk_read_bytes,
            disk_read_count,
            disk_write_bytes,
            disk_write_count,
            vsock_received_bytes: _,
            vsock_sent_bytes: _,
        }) = self.metrics
        {
            let read = format!("{disk_read_bytes} bytes read in {disk_read_count}");
            let written = format!("{disk_write_bytes} written in {disk_write_count}");
            rows.push(("Disk", format!("{read}, {written}")));
        }
        rows
    }
}
