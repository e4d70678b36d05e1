use crate::guest_text;
use crate::operation::workspace::PublishedPort;
use crate::operation::workspace::summary::{shown_time, table};
use crate::operation::{Answer, Page};
use crate::secret::Redactor;
use crate::workspace::history::{exit_code, quoted};
use crate::workspace::service::Served;
use crate::workspace::{GUEST_PATH, Live};
use jiff::Timestamp;
use pyro_protocol::ByteString;
use pyro_protocol::guest_path::PATH_MAX;
use pyro_protocol::process::Exit;
use pyro_protocol::service::{
    Probe, Readiness, Restart, Service, ServiceFailure, ServiceState, StopHow, URL_MAX,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How much of a command an answer shows.
const COMMAND_SHOWN: usize = 1000;

/// A service: what it is, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServiceReport {
    /// The workspace.
    pub workspace_id: String,
    /// What the service is called.
    pub service_name: String,
    /// How it is.
    pub state: ServiceReportState,
    /// The beginning of its command.
    pub command: String,
    /// Where it runs.
    pub cwd: String,
    /// Its process in the guest; null when none runs.
    pub pid: Option<u32>,
    /// When it was last asked to start, by the guest's clock as all times here,
    /// RFC 3339 in UTC.
    #[schemars(with = "Option<String>")]
    pub started_at: Option<Timestamp>,
    /// What tells that it is ready; null is that it runs.
    pub readiness: Option<ReadinessReport>,
    /// Since when it is ready; null when it is not.
    #[schemars(with = "Option<String>")]
    pub ready_at: Option<Timestamp>,
    /// When it was over; null while it is not.
    #[schemars(with = "Option<String>")]
    pub ended_at: Option<Timestamp>,
    /// How it ended last; 128+N after signal N.
    pub exit_code: Option<u8>,
    /// The number of the signal that ended it last.
    pub signal: Option<u8>,
    /// Why it is stopped or failed; null when it is not.
    pub stop_reason: Option<StopReason>,
    /// Whether it is started again when it ends.
    pub restart: RestartPolicy,
    /// So often in a row at most; null when it never is.
    pub restart_limit: Option<u32>,
    /// How often it was, since it was asked to start.
    pub restart_count: u32,
    /// When it will be; null unless it waits for that.
    #[schemars(with = "Option<String>")]
    pub next_start_at: Option<Timestamp>,
    /// Its published TCP ports; none while it is stopped, or did not start.
    pub published_ports: Vec<PublishedPort>,
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceReportState {
    /// It runs, and is not ready yet.
    Starting,
    /// It runs and is ready.
    Running,
    /// It ended, and will be started again.
    Backoff,
    /// It ended by itself.
    Exited,
    /// It was told to stop.
    Stopped,
    /// It did not become ready, or ended too often.
    Failed,
}

/// What tells that a service is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ReadinessReport {
    /// Something is there.
    File {
        /// Where in the guest.
        path: String,
    },
    /// Something accepts connections.
    Tcp {
        /// Where in the guest.
        address: String,
    },
    /// Something answers requests.
    Http {
        /// What is asked for in the guest.
        url: String,
    },
    /// A command succeeds.
    Command {
        /// The beginning of it.
        command: String,
    },
}

/// Why a service is stopped or failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It obeyed TERM, with all that it started.
    Sigterm,
    /// Something was left after the grace and got KILL.
    Sigkill,
    /// It was stopped while it waited to be started again.
    StoppedInBackoff,
    /// It ended before it was ready.
    ProcessExitedBeforeReady,
    /// It was not ready in time.
    ReadinessTimeout,
    /// Its starter did not wait until it was ready.
    StartCancelled,
    /// It ended as often in a row as it is started again.
    RestartLimit,
    /// It could not be started again.
    NotStarted,
}

/// Whether a service is started again when it ends by itself.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// It is not.
    #[default]
    Never,
    /// It is unless it exited with 0.
    OnFailure,
    /// It is however it ended.
    Always,
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        })
    }
}

impl ServiceReportState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Backoff => "backoff",
            Self::Exited => "exited",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

impl ServiceReport {
    pub(super) fn of(live: &Live, Served { service, ports }: Served) -> Self {
        let Service { name, argv, cwd, readiness, restart, started_at_ns, restarts, state } =
            service;
        let (restart, restart_limit) = match restart {
            Restart::Never => (RestartPolicy::Never, None),
            Restart::OnFailure { limit } => (RestartPolicy::OnFailure, Some(limit)),
            Restart::Always { limit } => (RestartPolicy::Always, Some(limit)),
        };
        let redactor = live.redactor();
        let cwd =
            cwd.map_or_else(|| GUEST_PATH.to_owned(), |path| redactor.path(&path).to_string());
        let report = Self {
            workspace_id: live.id().to_string(),
            service_name: name.into(),
            state: ServiceReportState::Starting,
            command: shown(argv, redactor),
            cwd: guest_text::escaped(&cwd, PATH_MAX),
            pid: None,
            started_at: time(started_at_ns),
            readiness: readiness.map(|readiness| ReadinessReport::of(readiness, redactor)),
            ready_at: None,
            ended_at: None,
            exit_code: None,
            signal: None,
            stop_reason: None,
            restart,
            restart_limit,
            restart_count: restarts,
            next_start_at: None,
            published_ports: ports.into_iter().map(Into::into).collect(),
        };
        report.in_state(state)
    }

    fn in_state(self, state: ServiceState) -> Self {
        match state {
            ServiceState::Starting { pid, since_ns: _ } => Self { pid: Some(pid), ..self },
            ServiceState::Running { pid, since_ns: _, ready_at_ns } => Self {
                state: ServiceReportState::Running,
                pid: Some(pid),
                ready_at: time(ready_at_ns),
                ..self
            },
            ServiceState::Backoff { next_ns, exit } => Self {
                state: ServiceReportState::Backoff,
                next_start_at: time(next_ns),
                ..self.ended(Some(exit))
            },
            ServiceState::Exited { at_ns, exit } => Self {
                state: ServiceReportState::Exited,
                ended_at: time(at_ns),
                ..self.ended(Some(exit))
            },
            ServiceState::Stopped { at_ns, how, exit } => Self {
                state: ServiceReportState::Stopped,
                ended_at: time(at_ns),
                stop_reason: Some(match how {
                    StopHow::Terminated => StopReason::Sigterm,
                    StopHow::Killed => StopReason::Sigkill,
                    StopHow::Idle => StopReason::StoppedInBackoff,
                }),
                ..self.ended(exit)
            },
            ServiceState::Failed { at_ns, reason, exit } => Self {
                state: ServiceReportState::Failed,
                ended_at: time(at_ns),
                stop_reason: Some(match reason {
                    ServiceFailure::ExitedBeforeReady => StopReason::ProcessExitedBeforeReady,
                    ServiceFailure::ReadinessTimeout => StopReason::ReadinessTimeout,
                    ServiceFailure::StartCancelled => StopReason::StartCancelled,
                    ServiceFailure::RestartLimit => StopReason::RestartLimit,
                    ServiceFailure::NotStarted => StopReason::NotStarted,
                }),
                ..self.ended(exit)
            },
        }
    }

    fn ended(self, exit: Option<Exit>) -> Self {
        let Some(exit) = exit else { return self };
        let (exit_code, signal, _) = exit_code(exit.outcome);
        Self { exit_code: Some(exit_code), signal, ..self }
    }

    /// In a few words.
    pub(super) fn condition(&self) -> String {
        let ended = match (self.signal, self.exit_code) {
            (Some(signal), _) => Some(format!("signal {signal}")),
            (None, Some(code)) => Some(format!("exit code {code}")),
            (None, None) => None,
        };
        let why = self.stop_reason.map(|reason| reason.as_str().to_owned());
        let details: Vec<_> = why.into_iter().chain(ended).collect();
        match details.as_slice() {
            [] => self.state.as_str().into(),
            details => format!("{} ({})", self.state.as_str(), details.join(", ")),
        }
    }

    /// What people read of it, line by line.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("Service", self.service_name.clone()),
            ("State", self.condition()),
            ("Command", self.command.clone()),
            ("Directory", self.cwd.clone()),
        ];
        rows.extend(self.pid.map(|pid| ("Process", pid.to_string())));
        rows.extend(self.started_at.map(|at| ("Started", shown_time(at))));
        rows.extend(self.ready_at.map(|at| ("Ready", shown_time(at))));
        rows.extend(self.ended_at.map(|at| ("Ended", shown_time(at))));
        rows.extend(self.next_start_at.map(|at| ("Next start", shown_time(at))));
        if let Some(limit) = self.restart_limit {
            let count = self.restart_count;
            rows.push(("Restarts", format!("{count}, {} up to {limit} in a row", self.restart)));
        }
        rows.extend(self.published_ports.iter().map(|port| ("Port", port.connection())));
        rows
    }
}

impl StopReason {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sigterm => "sigterm",
            Self::Sigkill => "sigkill",
            Self::StoppedInBackoff => "stopped_in_backoff",
            Self::ProcessExitedBeforeReady => "process_exited_before_ready",
            Self::ReadinessTimeout => "readiness_timeout",
            Self::StartCancelled => "start_cancelled",
            Self::RestartLimit => "restart_limit",
            Self::NotStarted => "not_started",
        }
    }
}

impl ReadinessReport {
    fn of(readiness: Readiness, redactor: &Redactor) -> Self {
        let text = |text: &dyn fmt::Display| {
            guest_text::escaped(&redactor.text(&text.to_string()), PATH_MAX)
        };
        match readiness.probe {
            Probe::File(path) => Self::File { path: text(&path) },
            Probe::Tcp(address) => Self::Tcp { address: text(&address) },
            Probe::Http(url) => Self::Http { url: text(&url) },
            Probe::Command(words) => Self::Command { command: shown(words, redactor) },
        }
    }
}

const _: () = assert!(URL_MAX <= PATH_MAX);

fn shown(argv: Vec<ByteString>, redactor: &Redactor) -> String {
    let argv: Vec<_> = argv.into_iter().map(|word| redactor.bytes(word.0)).collect();
    guest_text::escaped(&quoted(argv.iter().map(Vec::as_slice)), COMMAND_SHOWN)
}

fn time(ns: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(ns.into()).ok()
}

impl Answer for ServiceReport {
    fn render(&self, page: &mut Page) -> fmt::Result {
        table(self.rows(), page)
    }
}
