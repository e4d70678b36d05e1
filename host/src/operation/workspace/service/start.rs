use super::{RestartPolicy, ServiceReport, ServiceReportState, StopReason};
use crate::event::{Event, Stream};
use crate::operation::argument::{
    CommandLine, Number, PathInGuest, PortMapping, SecretVariables, ServiceRef, Variable,
    Variables, WorkspaceRef,
};
use crate::operation::output::{Collected, HEADINGS, Output};
use crate::operation::{Answer, AnyAnswer as _, Context, Effect, Ink, Operation, Page, Streams};
use crate::secret::SecretVariable;
use crate::workspace::service::{self, Served, Wanted};
use crate::workspace::{Live, Program};
use crate::{Error, ErrorKind, Pyro, Result};
use pyro_protocol::GuestPath;
use pyro_protocol::service::{HttpUrl, Probe, Readiness, Restart, TcpAddress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How long a service may take to become ready.
pub type ReadyTimeoutSeconds = Number<1, 30, { 24 * 3600 }>;

/// How long after one look for readiness the next begins.
pub type ReadyIntervalMs = Number<10, 500, { 600 * 1000 }>;

/// How often in a row a service is started again. With pauses that double up to
/// half a minute the default is about three minutes.
pub type RestartLimit = Number<0, 12, { u32::MAX }>;

/// How many bytes of each stream of a service that did not start are told.
const LAST_WORDS_MAX: u32 = 16 * 1024;

/// Start a service in a workspace, and wait until it is ready.
///
/// It lives until it is stopped, or the workspace is. Unless told what makes it
/// ready, it is so as soon as it runs. Look at its state: one that failed ended
/// before, or was not ready in time and was stopped; what it wrote is told too.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub struct ServiceStart {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// What to call the service: letters, digits, `.`, `_`, `-`; 64 at most.
    #[arg(value_name = "SERVICE")]
    #[schemars(with = "ServiceRef")]
    pub service_name: ServiceRef,
    /// What to run: a string is a line for the guest's shell, an array is a
    /// program and its arguments.
    #[command(flatten)]
    pub command: CommandLine,
    /// Where to run it in the guest, `/workspace` if not given.
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub cwd: Option<PathInGuest>,
    /// Variables for the program, on top of the guest's own; on the command line
    /// NAME alone passes on the caller's value. They are written down nowhere.
    #[arg(long, value_name = "NAME[=VALUE]")]
    #[serde(default, deserialize_with = "Variables::deserialize")]
    #[schemars(with = "Variables")]
    pub env: Vec<Variable>,
    /// Secrets of the workspace for the program, each as a variable, with the
    /// value that they have now also when it is started again; on the command line
    /// NAME alone gives it its own name.
    #[arg(long, value_name = "NAME[=VARIABLE]")]
    #[serde(default, deserialize_with = "SecretVariables::deserialize")]
    #[schemars(with = "SecretVariables")]
    pub secret_env: Vec<SecretVariable>,
    /// The guest's user to run it as, `USER[:GROUP]`; root if not given.
    #[arg(long, value_name = "USER")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
    /// Ready once this path is there.
    #[arg(long, value_name = "PATH", group = "readiness")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub ready_file: Option<PathInGuest>,
    /// Ready once this address in the guest accepts a connection: `localhost`, an
    /// IPv4 address or an IPv6 address in brackets, and a TCP port.
    #[arg(long, value_name = "HOST:PORT", group = "readiness")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub ready_tcp: Option<TcpAddress>,
    /// Ready once a GET of this `http://` URL in the guest is answered with a
    /// status of 200 to 399.
    #[arg(long, value_name = "URL", group = "readiness")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub ready_http: Option<HttpUrl>,
    /// Ready once this line for the guest's shell exits with 0.
    #[arg(long, value_name = "LINE", group = "readiness")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub ready_command: Option<String>,
    /// How many seconds it may take to become ready.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub ready_timeout_seconds: ReadyTimeoutSeconds,
    /// How many milliseconds after one look for readiness the next begins.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub ready_interval_ms: ReadyIntervalMs,
    /// Whether to start it again when it ends by itself after it was ready.
    #[arg(long, value_name = "never|on-failure|always", default_value_t)]
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How often in a row at most, after pauses that double from 0.1 to 30 s; ten
    /// seconds up begin a new row.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub restart_limit: RestartLimit,
    /// TCP ports to publish on 127.0.0.1 of the host before it starts and until it
    /// is stopped: each a port of the guest, at any free one of the host, or
    /// `HOST:GUEST`.
    #[arg(long, value_name = "[HOST:]GUEST")]
    #[serde(default)]
    pub publish: Vec<PortMapping>,
}

const USAGE: &str = "\
pyro workspace service start [OPTIONS] <WORKSPACE> <SERVICE> -- <ARG>...
       pyro workspace service start [OPTIONS] <WORKSPACE> <SERVICE> --shell <LINE>";

const EXAMPLES: &str = "\
Examples:
  pyro workspace service start fix-parser web --ready-http http://localhost:8000/ \\
      -- python3 -m http.server 8000
  pyro workspace service start fix-parser app --publish 8080:80 --shell ./serve
  pyro workspace service start fix-parser db --ready-tcp localhost:5432 \\
      --restart on-failure -- ./run-database

Exit codes: 0 when it is ready; when it ended before, its own; 124 when it was not
ready in time; 1 when it failed otherwise; 125 pyro failed, 126 not executable,
127 not found, 2 wrong usage.";

impl ServiceStart {
    /// A program under a name, everything else by default.
    pub fn new(
        workspace: impl Into<WorkspaceRef>,
        name: ServiceRef,
        command: impl Into<CommandLine>,
    ) -> Self {
        Self {
            workspace_id: workspace.into(),
            service_name: name,
            command: command.into(),
            cwd: None,
            env: Vec::new(),
            secret_env: Vec::new(),
            user: None,
            ready_file: None,
            ready_tcp: None,
            ready_http: None,
            ready_command: None,
            ready_timeout_seconds: ReadyTimeoutSeconds::default(),
            ready_interval_ms: ReadyIntervalMs::default(),
            restart: RestartPolicy::default(),
            restart_limit: RestartLimit::default(),
            publish: Vec::new(),
        }
    }

    /// # Errors
    /// When more than one thing is to tell it.
    fn readiness(&self) -> Result<Option<Readiness>> {
        let file = self.ready_file.clone().map(|PathInGuest(path)| Probe::File(path));
        let tcp = self.ready_tcp.clone().map(Probe::Tcp);
        let http = self.ready_http.clone().map(Probe::Http);
        let command = self.ready_command.clone().map(|line| {
            let words = CommandLine::Shell(line.into()).into_argv();
            Probe::Command(words.into_iter().map(Into::into).collect())
        });
        let mut probes = [file, tcp, http, command].into_iter().flatten();
        let Some(probe) = probes.next() else { return Ok(None) };
        if probes.next().is_some() {
            let message = "more than one thing is to tell readiness";
            return Err(Error::new(ErrorKind::InvalidInput, message).hint(
                "give one of `ready_file`, `ready_tcp`, `ready_http` and `ready_command`; a \
                 command can look at several things",
            ));
        }
        Ok(Some(Readiness {
            probe,
            interval_ms: self.ready_interval_ms.get(),
            timeout_ms: self.ready_timeout_seconds.get() * 1000,
        }))
    }

    fn restart(&self) -> Restart {
        let limit = self.restart_limit.get();
        match self.restart {
            RestartPolicy::Never => Restart::Never,
            RestartPolicy::OnFailure => Restart::OnFailure { limit },
            RestartPolicy::Always => Restart::Always { limit },
        }
    }
}

/// The service, ready or failed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServiceStartAnswer {
    /// How it is.
    #[serde(flatten)]
    pub service: ServiceReport,
    /// What it wrote last, if it failed.
    #[serde(flatten)]
    pub output: Output,
}

impl Operation for ServiceStart {
    const PATH: &'static [&'static str] = &["workspace", "service", "start"];
    const TOOL: Option<&'static str> = Some("service_start");
    const EFFECT: Effect = Effect::Destroys;
    const STREAMS: Streams = Streams::Answer;
    type Output = ServiceStartAnswer;

    fn subject(&self) -> Option<&WorkspaceRef> {
        Some(&self.workspace_id)
    }

    fn about(&self) -> Option<String> {
        Some(format!("{}: {}", self.service_name.0, self.command.line()))
    }

    fn guest_path(&self) -> Option<&GuestPath> {
        self.cwd.as_ref().map(|path| &path.0)
    }

    async fn run(self, pyro: &Pyro, context: Context) -> Result<ServiceStartAnswer> {
        let (readiness, restart) = (self.readiness()?, self.restart());
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let mut env = Variables::resolve(self.env, &pyro.config);
        live.add_secrets(&mut env, &self.secret_env)?;
        let wanted = Wanted {
            name: self.service_name.0,
            program: Program {
                argv: self.command.into_argv(),
                cwd: self.cwd.map(|PathInGuest(path)| path),
                env,
                user: self.user,
                timeout: None,
            },
            readiness,
            restart,
            ports: self.publish.into_iter().map(|PortMapping(mapping)| mapping).collect(),
        };
        let served = service::start(pyro, &live, wanted, &context).await?;
        Ok(ServiceStartAnswer::new(&live, served, &context).await)
    }
}

impl ServiceStartAnswer {
    /// One that failed says with its last words why. They go to standard error:
    /// they are no answer.
    pub(super) async fn new(live: &Live, served: Served, context: &Context) -> Self {
        let name = served.service.name.clone();
        let report = ServiceReport::of(live, served);
        let mut output = Collected::new(LAST_WORDS_MAX);
        if report.state == ServiceReportState::Failed {
            for (stream, bytes) in service::last_words(live, &name, context).await {
                output.push(stream, &bytes);
                context.events.emit(Event::Output { stream: Stream::Stderr, bytes }).await;
            }
        }
        Self { service: report, output: output.finish() }
    }
}

impl Answer for ServiceStartAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        self.service.render(page)?;
        let room = page.room().saturating_sub(HEADINGS);
        self.output.render(page, room).map(drop)
    }

    fn after_streams(&self) -> Option<(Stream, String)> {
        // Its last words have passed already.
        Some((Stream::Stdout, self.service.to_text(Ink::Plain)))
    }

    fn exit_code(&self) -> u8 {
        match self.service.stop_reason {
            // Whatever has become of it since, it was ready.
            None => 0,
            Some(StopReason::ReadinessTimeout) => 124,
            // One that ends well before it is ready failed all the same.
            Some(StopReason::ProcessExitedBeforeReady | StopReason::RestartLimit) => {
                self.service.exit_code.filter(|code| *code != 0).unwrap_or(1)
            }
            Some(
                StopReason::Sigterm
                | StopReason::Sigkill
                | StopReason::StoppedInBackoff
                | StopReason::StartCancelled
                | StopReason::NotStarted,
            ) => 1,
        }
    }
}
