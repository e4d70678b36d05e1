//! One program in a fresh machine.

use super::argument::{
    ChosenCommand, CommandLine, MemMib, NetworkConnections, NetworkKibPerSecond, NetworkRule,
    OutputLimit, PathInGuest, TimeoutSeconds, Variable, Variables, VcpuCount, WantedNetwork,
};
use super::output::{Collector, HEADINGS, Output, ending};
use super::{Answer, Context, Effect, Operation, Page, Streams};
use crate::egress::NetworkPolicy;
use crate::vmm::{RateLimit, Rung};
use crate::workspace::history::exit_code;
use crate::workspace::template::Start;
use crate::workspace::{self, Program, Ran, RunRequest, Shape};
use crate::{Pyro, Result, disk};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::time::Duration;

/// Run a program in a fresh microVM, then remove the machine.
///
/// Nothing of the host is visible to the program, it has no network unless asked
/// for, and nothing of what it writes is kept. A program that fails is an answer, not an error:
/// look at its exit code, which is 124 after a time-out and 128+N after signal
/// N. Errors mean that the program never ran or that the machine was lost.
#[derive(Debug, Clone, clap::Args, Deserialize, JsonSchema)]
#[command(override_usage = USAGE, after_help = EXAMPLES)]
pub struct Run {
    /// The environment to boot, such as `debian:12`.
    pub environment: String,
    /// What to run: a string is a line for the guest's shell, an array is a
    /// program and its arguments; what the environment's image says if not given.
    #[command(flatten)]
    #[serde(default)]
    pub command: ChosenCommand,
    /// Where to run it in the guest; the environment says if not given, mostly
    /// `/workspace`.
    #[arg(long, value_name = "DIR")]
    #[serde(default)]
    #[schemars(with = "PathInGuest")]
    pub cwd: Option<PathInGuest>,
    /// Variables for the program, on top of the guest's own; on the command line
    /// NAME alone passes on the caller's value.
    #[arg(long, value_name = "NAME[=VALUE]")]
    #[serde(default, deserialize_with = "Variables::deserialize")]
    #[schemars(with = "Variables")]
    pub env: Vec<Variable>,
    /// The guest's user to run it as, by name or number, and optionally a group:
    /// `USER[:GROUP]`; the environment's default if not given, mostly root.
    #[arg(long, value_name = "USER")]
    #[serde(default)]
    #[schemars(with = "String")]
    pub user: Option<String>,
    /// Kill everything the program started after so many seconds; 0 is no limit.
    /// 600 on the command line. In JSON 45 if not given: what takes longer goes on
    /// in a workspace.
    #[arg(long, value_name = "N")]
    #[serde(default = "timeout_in_json")]
    #[schemars(with = "TimeoutSeconds")]
    pub timeout_seconds: Option<TimeoutSeconds>,
    /// How many virtual CPUs the machine has, 1 to 32.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub vcpu_count: VcpuCount,
    /// How much memory the machine has, in MiB, at least 128.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub mem_mib: MemMib,
    /// How to run the machine; the best way that works here if not given.
    #[arg(long, value_name = "firecracker|qemu-kvm|qemu-tcg")]
    #[serde(default)]
    #[schemars(with = "Rung")]
    pub vmm: Option<Rung>,
    /// Boot instead of restoring a template.
    #[arg(long)]
    #[serde(default)]
    pub cold: bool,
    /// What its network may do. `egress`: it reaches the public Internet, or what
    /// `--allow` names; never the host or its network unless named.
    #[arg(long, value_name = "off|egress", default_value_t)]
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
    /// How many bytes of stdout, and of stderr, an answer in JSON holds: the
    /// first half and the last half of what was written.
    #[arg(long, value_name = "N", default_value_t)]
    #[serde(default)]
    pub output_limit_bytes: OutputLimit,
}

/// What JSON means when it says nothing. Clients of tools give up after a minute,
/// and the machine must boot first.
fn timeout_in_json() -> Option<TimeoutSeconds> {
    const IN_JSON: TimeoutSeconds = match TimeoutSeconds::new(45) {
        Ok(seconds) => seconds,
        Err(_) => panic!("out of bounds"),
    };
    Some(IN_JSON)
}

const USAGE: &str = "\
pyro run [OPTIONS] <ENVIRONMENT> -- <ARG>...
       pyro run [OPTIONS] <ENVIRONMENT> --shell <LINE>
       pyro run [OPTIONS] <ENVIRONMENT>
       pyro run -it [OPTIONS] <ENVIRONMENT> [-- <ARG>...]";

const EXAMPLES: &str = "\
Examples:
  pyro run debian:12 -- git --version
  pyro run -it debian:12
  pyro run debian:12 --shell 'ls /etc | wc -l'
  tar c . | pyro run debian:12-build --mem-mib 2048 -- sh -c 'tar x && make test'
  pyro run debian:12 --network-policy egress --allow '*.debian.org' -- apt-get update
  pyro run debian:12 --json -- python3 -c 'print(6 * 7)'

Exit codes: the program's own; 124 timed out, 125 pyro failed, 126 not
executable, 127 not found, 128+N killed by signal N, 2 wrong usage.";

impl Run {
    /// A program and its arguments in an environment, everything else by default.
    pub fn new(environment: impl Into<String>, command: impl Into<CommandLine>) -> Self {
        Self {
            environment: environment.into(),
            command: ChosenCommand(Some(command.into())),
            cwd: None,
            env: Vec::new(),
            user: None,
            timeout_seconds: None,
            vcpu_count: VcpuCount::default(),
            mem_mib: MemMib::default(),
            vmm: None,
            cold: false,
            network_policy: NetworkPolicy::default(),
            allow: Vec::new(),
            network_connections: NetworkConnections::default(),
            network_up_kib_per_second: None,
            network_down_kib_per_second: None,
            output_limit_bytes: OutputLimit::default(),
        }
    }
}

/// How the program ended, what it wrote, what it took.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RunAnswer {
    /// The environment that was booted.
    pub environment: String,
    /// The command as it was asked for, or as the environment says it.
    #[schemars(with = "CommandLine")]
    pub command: CommandLine,
    /// The program's exit code; 124 after a time-out, 128+N after signal N.
    pub exit_code: u8,
    /// The number of the signal that ended the program.
    pub signal: Option<u8>,
    /// Whether the program was killed because its time was over.
    pub timed_out: bool,
    /// What the program wrote.
    #[serde(flatten)]
    pub output: Output,
    /// How long the program ran, in milliseconds.
    pub duration_ms: u64,
    /// How long the machine took until it could run anything, in milliseconds.
    pub boot_ms: u64,
    /// Whether a template was restored, in place of a boot.
    pub restored: bool,
    /// What its network was refused: to `connect`, `send` or `resolve` what, and by
    /// which rule; the first few, each once.
    pub network_refused: Vec<String>,
    /// The machine's id.
    pub vm_id: String,
    /// What became of the machine.
    pub cleanup: Cleanup,
}

/// What became of a machine.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Cleanup {
    /// The machine's id.
    pub vm_id: String,
    /// Whether the machine and all that was made for it are gone.
    pub deleted: bool,
    /// Why it was removed.
    pub reason: String,
}

impl Operation for Run {
    const PATH: &'static [&'static str] = &["run"];
    const TOOL: Option<&'static str> = Some("vm_run");
    const EFFECT: Effect = Effect::Changes;
    const STREAMS: Streams = Streams::Program;
    type Output = RunAnswer;

    async fn run(self, pyro: &Pyro, mut context: Context) -> Result<RunAnswer> {
        let collector = Collector::tap(&mut context.events, self.output_limit_bytes.get());
        let network = WantedNetwork {
            policy: self.network_policy,
            allow: self.allow,
            connections: self.network_connections,
            up: self.network_up_kib_per_second,
            down: self.network_down_kib_per_second,
        };
        let timeout = match self.timeout_seconds {
            // Whoever sits there ends it.
            None if context.terminal.is_some() => None,
            given => given.unwrap_or_default().duration(),
        };
        let request = RunRequest {
            environment: self.environment.clone(),
            shape: Shape {
                vcpu_count: self.vcpu_count.get(),
                mem_mib: self.mem_mib.get(),
                disk_mib: disk::DEFAULT_MIB,
                disk_limit: RateLimit::NONE,
            },
            vmm: self.vmm,
            start: Start::unless(self.cold),
            network: network.resolve(&pyro.config)?,
            program: Program {
                argv: self.command.clone().into_argv(),
                cwd: self.cwd.map(|PathInGuest(path)| path),
                env: Variables::resolve(self.env, &pyro.config),
                user: self.user,
                timeout,
            },
        };
        let ran = workspace::run(pyro, request, context).await?;
        let command = self.command.0.unwrap_or_else(|| CommandLine::of_argv(&ran.argv));
        Ok(RunAnswer::new(self.environment, command, ran, collector.finish()))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Answer for RunAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        let ending = ending(self.exit_code, self.signal, self.timed_out);
        writeln!(page, "{ending} after {} ms", self.duration_ms)?;
        if self.timed_out {
            writeln!(page, "give it more `timeout_seconds`, or a workspace, where it can go on")?;
        }
        for refused in &self.network_refused {
            writeln!(page, "the network policy refused to {refused}")?;
        }
        let room = page.room().saturating_sub(HEADINGS);
        self.output.render(page, room).map(drop)
    }

    fn note(&self) -> Option<String> {
        let over = self.timed_out.then(|| {
            format!("the time was over after {} ms; everything was killed", self.duration_ms)
        });
        let refused = (!self.network_refused.is_empty())
            .then(|| format!("the network policy refused to {}", self.network_refused.join(", ")));
        let notes: Vec<_> = [over, refused].into_iter().flatten().collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl RunAnswer {
    fn new(environment: String, command: CommandLine, ran: Ran, output: Output) -> Self {
        let (exit_code, signal, timed_out) = exit_code(ran.outcome);
        Self {
            environment,
            command,
            exit_code,
            signal,
            timed_out,
            output,
            duration_ms: milliseconds(ran.took),
            boot_ms: milliseconds(ran.boot),
            restored: ran.restored,
            network_refused: ran.refused,
            vm_id: ran.id.to_string(),
            cleanup: Cleanup {
                vm_id: ran.id.to_string(),
                deleted: ran.removed,
                reason: "post_exec_cleanup".into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stream;
    use crate::operation::output::Collected;
    use crate::operation::{AnyAnswer, Ink};
    use pyro_protocol::process::Outcome;

    fn answer(outcome: Outcome, stdout: &[u8], stderr: &[u8]) -> RunAnswer {
        let mut collected = Collected::new(16);
        collected.push(Stream::Stdout, stdout);
        collected.push(Stream::Stderr, stderr);
        let ran = Ran {
            removed: true,
            argv: Vec::new(),
            refused: vec!["resolve evil.org by otherwise".into()],
            id: "0123456789ab".parse().unwrap(),
            outcome,
            boot: Duration::from_millis(412),
            restored: true,
            took: Duration::from_micros(35_900),
        };
        RunAnswer::new("debian:12".into(), ["a", "b"].into(), ran, collected.finish())
    }

    #[test]
    fn ends_are_told_as_shells_do() {
        let cases = [
            (Outcome::Exited { code: 7 }, 7, None, false),
            (Outcome::Signaled { signal: 9 }, 137, Some(9), false),
            (Outcome::Signaled { signal: 255 }, 255, Some(255), false),
            (Outcome::TimedOut, 124, None, true),
        ];
        for (outcome, code, signal, timed_out) in cases {
            let answer = answer(outcome, b"", b"");
            assert_eq!(
                (answer.exit_code, answer.signal, answer.timed_out),
                (code, signal, timed_out)
            );
        }
    }

    #[test]
    fn an_answer_as_json() {
        let answer = answer(Outcome::Exited { code: 0 }, b"git version\n", b"\xff");
        insta::assert_json_snapshot!(answer.to_json().unwrap());
    }

    #[test]
    fn an_answer_as_text() {
        let long = b"first line\nsecond line\nthird line\n";
        let answer = answer(Outcome::Signaled { signal: 15 }, long, b"oh\n");
        insta::assert_snapshot!(answer.to_text(Ink::Plain));
    }
}
