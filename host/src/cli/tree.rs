//! The tree of commands.

use crate::mcp::{PROFILES, Profile};
use crate::operation::Entry;
use clap::builder::{PossibleValue, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use std::ffi::OsString;

/// Where the MCP server stands.
const MCP_SERVE: &[&str] = &["mcp", "serve"];

const COMPLETIONS: &str = "completions";
const SHELL: &str = "shell";
const PROFILE: &str = "profile";

/// What the words that only hold other commands are about.
const GROUPS: &[(&str, &str)] = &[
    ("workspace", "Linux machines that stay until they are deleted"),
    ("patch", "Changes as text"),
    ("process", "What runs in a workspace without its caller"),
    ("env", "What machines are booted from"),
    ("mcp", "pyro as a server of tools for AI models"),
];

/// Wider lines are hard to read.
const WIDTH_MAX: usize = 100;

/// The whole command line of `pyro`, with the operations of a table.
#[must_use]
pub fn command(table: &[Entry]) -> Command {
    let root = Command::new("pyro")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Disposable Linux computers in microVMs, for coding agents and people")
        .after_help("Try it:\n  pyro doctor\n  pyro run debian:12 -- git --version")
        .max_term_width(WIDTH_MAX)
        .propagate_version(false)
        .subcommand_required(true)
        .arg_required_else_help(true);
    let root = table.iter().fold(root, |tree, entry| graft(tree, entry.path, operation(entry)));
    graft(root, MCP_SERVE, mcp_serve()).subcommand(completions_command())
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
    if !entry.creates {
        return command;
    }
    command.arg(
        Arg::new("id-only")
            .long("id-only")
            .action(ArgAction::SetTrue)
            .conflicts_with("json")
            .help("Answer with the id of what was made, and nothing else"),
    )
}

/// Whether the words ask for an id alone.
pub(super) fn id_only(entry: &Entry, matches: &ArgMatches) -> bool {
    entry.creates && matches.get_flag("id-only")
}

fn mcp_serve() -> Command {
    let profiles: Vec<_> = PROFILES
        .iter()
        .map(|profile| PossibleValue::new(profile.name).help(profile.about))
        .collect();
    Command::new("serve")
        .about("Serve the operations as MCP tools on stdin and stdout")
        .arg(
            Arg::new(PROFILE)
                .long(PROFILE)
                .value_name("PROFILE")
                .help("Which tools to offer")
                .value_parser(profiles)
                .default_value(PROFILES[0].name),
        )
        .after_help("Examples:\n  pyro mcp serve\n  pyro mcp serve --profile vm-run")
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

/// The script that a `completions` command asks for.
pub(super) fn completions(matches: &ArgMatches, table: &[Entry]) -> Option<Vec<u8>> {
    let shell = *matches.try_get_one::<Shell>(SHELL).ok()??;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(table), "pyro", &mut script);
    Some(script)
}
