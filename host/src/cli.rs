//! The command line: [`OPERATIONS`] folded into a tree of commands.
//!
//! What the words ask for becomes one operation; here is only how it is asked,
//! shown and interrupted. Besides the operations there are `mcp serve`,
//! `completions`, and the hidden word by which `pyro` starts its supervisors.

mod interrupt;
mod progress;
mod render;
mod session;
mod streams;
mod tree;

pub use tree::command;

use crate::operation::{Entry, OPERATIONS};
use crate::supervisor;
use clap::ArgMatches;
use render::Format;
use std::ffi::OsString;
use std::process::ExitCode;

/// The first word of a supervisor's own command line. Not for users.
pub const SUPERVISE: &str = "__supervise";

/// Does what the words of the command line ask, the program's name first.
#[must_use]
pub fn main(words: Vec<OsString>) -> ExitCode {
    if words.get(1).is_some_and(|word| word == SUPERVISE) {
        return supervisor::main(words.into_iter().skip(2).collect());
    }
    let format = Format::asked_for(&words);
    match command().try_get_matches_from(words) {
        Ok(matches) => dispatch(matches, format),
        Err(error) => render::parser_verdict(&error, format),
    }
}

fn dispatch(mut matches: ArgMatches, format: Format) -> ExitCode {
    let mut path = Vec::new();
    while let Some((word, inner)) = matches.remove_subcommand() {
        path.push(word);
        matches = inner;
    }
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    if let Some(entry) = OPERATIONS.iter().find(|entry| entry.path == path) {
        return operate(entry, matches, format);
    }
    match path.as_slice() {
        tree::MCP_SERVE => session::serve(tree::profile(&matches)),
        _ => match tree::completions(&matches) {
            Some(script) => render::finish(streams::write_stdout(&script), 0),
            None => unreachable!("the parser admits no other command"),
        },
    }
}

fn operate(entry: &'static Entry, mut matches: ArgMatches, format: Format) -> ExitCode {
    match entry.from_arg_matches(&mut matches) {
        Ok(prepared) => session::run(entry, prepared, format),
        Err(error) => render::parser_verdict(&error, format),
    }
}
