use super::ServiceReport;
use crate::event::{Event, Stream};
use crate::operation::argument::{Number, OutputLimit, ServiceRef, WorkspaceRef};
use crate::operation::output::{Collector, HEADINGS, Output};
use crate::operation::{Answer, Context, Effect, Operation, Page, Streams};
use crate::workspace::Live;
use crate::workspace::service::{self, Told};
use crate::{Error, ErrorKind, Pyro, Result};
use jiff::Timestamp;
use pyro_protocol::service::ServiceLogs as ServiceLogsCall;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// How many last lines of each stream to show.
pub type TailLines = Number<0, 200, { u32::MAX }>;

/// Show what a service wrote.
///
/// The last lines of its standard output and of its standard error. The guest
/// keeps the last 4 MiB of both together; a restart does not clear them.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(after_help = EXAMPLES)]
pub struct ServiceLogs {
    /// The workspace: its id, a unique prefix of it, or its name.
    #[arg(value_name = "WORKSPACE")]
    pub workspace_id: WorkspaceRef,
    /// The service.
    #[arg(value_name = "SERVICE")]
    #[schemars(with = "ServiceRef")]
    pub service_name: ServiceRef,
    /// How many last lines of each stream to show.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub tail_lines: TailLines,
    /// Show all that is kept, instead of the last lines.
    #[arg(long, conflicts_with = "tail_lines")]
    #[serde(default)]
    pub all: bool,
    /// Then pass on what it writes until it is over; not in JSON.
    #[arg(long)]
    #[serde(default)]
    pub follow: bool,
    /// Begin each line with the time at which it was read, RFC 3339 in UTC.
    #[arg(long)]
    #[serde(default)]
    pub timestamps: bool,
    /// How many bytes of each stream an answer in JSON holds: the first half and
    /// the last half of them.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub output_limit_bytes: OutputLimit,
}

const EXAMPLES: &str = "\
Examples:
  pyro workspace service logs fix-parser web
  pyro workspace service logs fix-parser web --tail-lines 20 --follow
  pyro workspace service logs fix-parser web --all --timestamps 2> errors.log";

/// What a service wrote, and how it is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServiceLogsAnswer {
    /// How it is.
    #[serde(flatten)]
    pub service: ServiceReport,
    /// What it wrote.
    #[serde(flatten)]
    pub output: Output,
    /// How many last lines of each stream this is; null is all that is kept.
    pub tail_lines: Option<u32>,
    /// Whether it wrote more before.
    pub truncated: bool,
}

impl Operation for ServiceLogs {
    const PATH: &'static [&'static str] = &["workspace", "service", "logs"];
    const TOOL: Option<&'static str> = Some("service_logs");
    const EFFECT: Effect = Effect::Reads;
    const STREAMS: Streams = Streams::Answer;
    type Output = ServiceLogsAnswer;

    async fn run(self, pyro: &Pyro, mut context: Context) -> Result<ServiceLogsAnswer> {
        if self.follow && !context.takes_output {
            let message = "a log can be followed as text only";
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .hint("leave out `follow`, and ask again for what is new"));
        }
        let live = Live::open(pyro, self.workspace_id.as_str(), &context).await?;
        let tail_lines = (!self.all).then(|| self.tail_lines.get());
        let ServiceRef(name) = self.service_name;
        let call = ServiceLogsCall { name, tail_lines, follow: self.follow };
        let collector = Collector::tap(&mut context.events, self.output_limit_bytes.get());
        let mut clocks = self.timestamps.then(Clocks::default);
        let hear = |stream: Stream, at_ns: i64, bytes: Vec<u8>| {
            let bytes = match &mut clocks {
                Some(clocks) => clocks.of(stream).stamped(at_ns, &bytes),
                None => bytes,
            };
            context.events.emit(Event::Output { stream, bytes })
        };
        let Told { service, truncated } = service::logs(&live, call, &context, hear).await?;
        let served = service::as_published(&live, service, &context).await;
        Ok(ServiceLogsAnswer {
            service: ServiceReport::of(&live, served),
            output: collector.finish(),
            tail_lines,
            truncated,
        })
    }
}

/// Where each stream is in its line.
#[derive(Debug, Default)]
struct Clocks {
    stdout: Clock,
    stderr: Clock,
}

impl Clocks {
    fn of(&mut self, stream: Stream) -> &mut Clock {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Whether a line has begun.
#[derive(Debug, Default)]
struct Clock {
    within: bool,
}

impl Clock {
    /// The bytes with a time before each line that begins in them.
    fn stamped(&mut self, at_ns: i64, bytes: &[u8]) -> Vec<u8> {
        let at = Timestamp::from_nanosecond(at_ns.into()).unwrap_or_default();
        let stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ ").to_string();
        let mut stamped = Vec::with_capacity(bytes.len() + stamp.len());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.within {
                stamped.extend(stamp.as_bytes());
            }
            stamped.extend(line);
            self.within = !line.ends_with(b"\n");
        }
        stamped
    }
}

impl Answer for ServiceLogsAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        writeln!(page, "{} {}", self.service.service_name, self.service.condition())?;
        let room = page.room().saturating_sub(HEADINGS);
        let is_whole = self.output.render(page, room)?;
        match self.truncated || !is_whole {
            true => writeln!(page, "there is more: ask for more or fewer `tail_lines`"),
            false => Ok(()),
        }
    }

    fn note(&self) -> Option<String> {
        let name = &self.service.service_name;
        Some(format!("service {name}: {}", self.service.condition()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_the_time_of_its_beginning_once() {
        let mut clock = Clock::default();
        let mut told = clock.stamped(0, b"one\ntw");
        told.extend(clock.stamped(1_500_000, b"o\n\nthree"));
        told.extend(clock.stamped(9_000_000, b"!"));
        let expected = "1970-01-01T00:00:00.000000Z one\n1970-01-01T00:00:00.000000Z two\n\
                        1970-01-01T00:00:00.001500Z \n1970-01-01T00:00:00.001500Z three!";
        assert_eq!(String::from_utf8_lossy(&told), expected);
    }
}
