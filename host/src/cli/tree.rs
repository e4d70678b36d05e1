//! The tree of commands.

use super::attach;
use super::man;
use super::render::Format;
use crate::mcp::install::{Client, Registration};
use crate::mcp::{PROFILES, Profile};
use crate::operation::argument::TTY;
use crate::operation::{Creates, Entry, Streams};
use clap::builder::{PossibleValue, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where the commands stand that are no operations.
pub(super) const MCP_SERVE: &[&str] = &["mcp", "serve"];
pub(super) const MCP_INSTALL: &[&str] = &["mcp", "install"];
pub(super) const ATTACH: &[&str] = &["workspace", "attach"];
pub(super) const SHELL_ATTACH: &[&str] = &["workspace", "shell", "attach"];
const COMPLETIONS: &str = "completions";

const SHELL: &str = "shell";
const PROFILE: &str = "profile";
const ROOT: &str = "root";
const CLIENT: &str = "client";
const NAME: &str = "name";
const DRY_RUN: &str = "dry-run";

/// What the words that only hold other commands are about.
const GROUPS: &[(&str, &str)] = &[
    ("workspace", "Linux machines that stay until they are deleted"),
    ("network", "Where a workspace may go on the network"),
    ("port", "Servers of a workspace, reached from the host"),
    ("process", "What runs in a workspace without its caller"),
    ("service", "What is kept going in a workspace under a name"),
    ("shell", "Terminals in a workspace that stay"),
    ("file", "Files of a workspace"),
    ("snapshot", "What a workspace's disk was, under a name"),
    ("disk", "What is on the disk of a workspace that is stopped"),
    ("secret", "What programs in a workspace know and nobody else is told"),
    ("patch", "Changes of files, into a workspace"),
    ("sync", "Files of the host, into a workspace"),
    ("env", "What machines are booted from"),
    ("mcp", "pyro as a server of tools for AI models"),
];

/// Wider lines are hard to read.
const WIDTH_MAX: usize = 100;

/// The whole command line of `pyro`, with the operations of a table.
#[must_use]
pub fn command(table: &[Entry]) -> Command {
    let root = table.iter().fold(root(), |tree, entry| graft(tree, entry.path, operation(entry)));
    let root = graft(root, ATTACH, attach::new_command());
    let root = graft(root, SHELL_ATTACH, attach::command());
    let root = graft(root, MCP_SERVE, mcp_serve());
    let root = graft(root, MCP_INSTALL, mcp_install());
    root.subcommand(completions_command()).subcommand(man::command())
}

/// As much of it as words need that begin with an operation's path. To describe
/// every option of all others would take a short command's time once more.
pub(super) fn branch(table: &[Entry], words: &[OsString]) -> Option<Command> {
    let given = words.get(1..)?;
    let is_asked = |entry: &&Entry| {
        let mut pairs = entry.path.iter().zip(given);
        given.len() >= entry.path.len() && pairs.all(|(part, word)| word == part)
    };
    table.iter().find(is_asked).map(|entry| graft(root(), entry.path, operation(entry)))
}

fn root() -> Command {
    Command::new("pyro")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Disposable Linux computers in microVMs, for coding agents and people")
        .after_help("Try it:\n  pyro doctor\n  pyro run debian:12 -- git --version")
        .max_term_width(WIDTH_MAX)
        .propagate_version(false)
        .subcommand_required(true)
        .arg_required_else_help(true)
}

/// Hangs a command into the tree, making the groups on its path as needed.
fn graft(tree: Command, path: &[&'static str], leaf: Command) -> Command {
    match path {
        [] | [_] => tree.subcommand(leaf),
        [head, rest @ ..] if tree.find_subcommand(head).is_some() => {
            tree.mut_subcommand(head, |group| graft(group, rest, leaf))
        }
        [head, rest @ ..] => tree.subcommand(graft(group(head), rest, leaf)),
    }
}

fn group(name: &'static str) -> Command {
    let about = GROUPS.iter().find(|(group, _)| *group == name).map_or("", |(_, about)| about);
    Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true)
}

fn operation(entry: &Entry) -> Command {
    let name = entry.path.last().copied().unwrap_or_default();
    let command = entry.augment_args(Command::new(name)).arg(
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("Answer with one JSON document on stdout, also when it fails"),
    );
    let command = match entry.streams {
        Streams::Program => at_terminal(command),
        Streams::None | Streams::Answer => command,
    };
    let id_only = Arg::new("id-only")
        .long("id-only")
        .action(ArgAction::SetTrue)
        .conflicts_with("json")
        .help("Answer with the id of what was made, and nothing else");
    match entry.creates {
        Creates::Nothing => command,
        Creates::Something => command.arg(id_only),
        Creates::With(argument) => command.arg(id_only.requires(argument)),
    }
}

/// Adds what gives its program the caller's terminal; then nothing needs to be
/// named.
fn at_terminal(command: Command) -> Command {
    const ELSEWHERE: &[&str] =
        &["json", "detach", "yield_seconds", "keep_stdin", "output_limit_bytes"];
    let is_there = |id: &&&str| command.get_arguments().any(|argument| argument.get_id() == **id);
    let tty = Arg::new(TTY)
        .long(TTY)
        .short('t')
        .action(ArgAction::SetTrue)
        .conflicts_with_all(ELSEWHERE.iter().filter(is_there))
        .help(
            "Give the program this terminal, and no time limit that is not asked for; without a \
             program it is a shell's",
        );
    let interactive = Arg::new("interactive")
        .long("interactive")
        .short('i')
        .action(ArgAction::SetTrue)
        .help("Pass standard input on, as is done anyway");
    let command = command.args([interactive, tty]);
    if !command.get_groups().any(|group| group.get_id() == "command") {
        return command;
    }
    command
        .mut_arg("shell", |argument| argument.conflicts_with("argv"))
        .mut_group("command", |group| group.arg(TTY).multiple(true))
}

/// Whether the words ask for a program at the caller's terminal.
pub(super) fn is_at_terminal(matches: &ArgMatches) -> bool {
    // Not every command has the switch.
    matches.try_get_one(TTY).is_ok_and(|switch| switch == Some(&true))
}

/// How the words ask for the answer.
pub(super) fn format(entry: &Entry, matches: &ArgMatches) -> Format {
    if entry.creates != Creates::Nothing && matches.get_flag("id-only") {
        Format::Id
    } else if matches.get_flag("json") {
        Format::Json
    } else {
        Format::Text
    }
}

fn mcp_serve() -> Command {
    Command::new("serve")
        .about("Serve the operations as MCP tools on stdin and stdout")
        .args(served())
        .after_help(
            "Examples:\n  pyro mcp serve\n  pyro mcp serve --profile vm-run\n  \
             pyro mcp serve --root ~/src/app --root /tmp/out",
        )
}

fn mcp_install() -> Command {
    let clients = Client::ALL.map(|client| PossibleValue::new(client.name()).help(client.title()));
    Command::new("install")
        .about("Register the MCP server with a program that uses such servers")
        .arg(
            Arg::new(CLIENT)
                .required(true)
                .value_name("CLIENT")
                .help("The program, in whose configuration of this user the server is entered")
                .value_parser(clients),
        )
        .arg(
            Arg::new(NAME)
                .long(NAME)
                .value_name("NAME")
                .help("What the program is to call the server")
                .default_value("pyro"),
        )
        .args(served())
        .arg(
            Arg::new(DRY_RUN)
                .long(DRY_RUN)
                .action(ArgAction::SetTrue)
                .help("Show what would change, and change nothing"),
        )
        .after_help(
            "The rest of the file stays as it is, and a copy of it beside it, as `.before-pyro`. \
             A profile and roots that were chosen before stay, too, unless others are given.\n\n\
             Examples:\n  pyro mcp install claude\n  pyro mcp install codex --dry-run\n  \
             pyro mcp install cursor --profile workspace-full --root ~/src",
        )
}

/// The program that an `mcp install` command names.
pub(super) fn client(matches: &ArgMatches) -> Option<Client> {
    let name = matches.get_one::<String>(CLIENT)?;
    Client::ALL.into_iter().find(|client| client.name() == name)
}

/// What it asks to register, with this `pyro`; and whether only to show it.
pub(super) fn registration(matches: &ArgMatches, executable: PathBuf) -> (Registration, bool) {
    let chosen = matches.value_source(PROFILE) == Some(ValueSource::CommandLine);
    let registration = Registration {
        name: matches.get_one::<String>(NAME).cloned().unwrap_or_default(),
        executable,
        profile: chosen.then(|| profile(matches)),
        roots: roots(matches),
    };
    (registration, matches.get_flag(DRY_RUN))
}

/// What a server can be told.
fn served() -> [Arg; 2] {
    let profiles =
        PROFILES.iter().map(|profile| PossibleValue::new(profile.name).help(profile.about));
    [
        Arg::new(PROFILE)
            .long(PROFILE)
            .value_name("PROFILE")
            .help("Which tools to offer")
            .value_parser(profiles.collect::<Vec<_>>())
            .default_value(PROFILES[0].name),
        Arg::new(ROOT)
            .long(ROOT)
            .value_name("DIR")
            .action(ArgAction::Append)
            .value_parser(value_parser!(PathBuf))
            .help(
                "Let tools read and write files of the host below this directory; relative \
                 paths count from the first [default: where the server is started]",
            ),
    ]
}

fn completions_command() -> Command {
    Command::new(COMPLETIONS)
        .about("Print a completion script for a shell")
        .arg(
            Arg::new(SHELL)
                .required(true)
                .value_name("SHELL")
                .help("The shell")
                .value_parser(value_parser!(Shell)),
        )
        .after_help("Examples:\n  source <(pyro completions bash)")
}

/// Tells who forgot the `--` before a program where it belongs.
pub(super) fn advise(error: &mut clap::Error, root: &Command, words: &[OsString]) {
    let Some(ContextValue::String(stray)) = error.get(ContextKind::InvalidArg) else { return };
    let asked = words.iter().skip(1).try_fold(root, |command, word| {
        let inner = word.to_str().and_then(|word| command.find_subcommand(word));
        inner.ok_or(command)
    });
    let (Ok(command) | Err(command)) = asked;
    let takes_program = command.get_positionals().any(Arg::is_last_set);
    if error.kind() == ErrorKind::UnknownArgument && takes_program && !stray.starts_with('-') {
        let tip = format!("a program and its arguments stand after `--`: `-- {stray} ...`");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
}

/// The profile that an `mcp serve` command asks for.
pub(super) fn profile(matches: &ArgMatches) -> &'static Profile {
    let name = matches.get_one::<String>(PROFILE);
    // The parser admits no other name.
    PROFILES.iter().find(|profile| name.is_some_and(|n| n == profile.name)).unwrap_or(&PROFILES[0])
}

/// The roots that it asks for.
pub(super) fn roots(matches: &ArgMatches) -> Vec<PathBuf> {
    matches.get_many(ROOT).into_iter().flatten().cloned().collect()
}

/// The script that a `completions` command asks for.
pub(super) fn completions(matches: &ArgMatches, table: &[Entry]) -> Option<Vec<u8>> {
    let shell = *matches.try_get_one::<Shell>(SHELL).ok()??;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(table), "pyro", &mut script);
    Some(script)
}
