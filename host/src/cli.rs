//! The command line: [`OPERATIONS`] folded into a tree of commands.
//!
//! What the words ask for becomes one operation; here is only how it is asked,
//! shown and interrupted. Besides the operations there are `mcp serve`, `mcp
//! install`, `completions`, `man`, the terminals that attach to a shell, and the hidden word by which `pyro` starts its supervisors.

mod attach;
mod install;
mod interrupt;
mod man;
mod progress;
mod render;
mod session;
mod streams;
mod terminal;
mod tree;

pub use tree::command;

use crate::mcp::Tools;
use crate::operation::{Entry, OPERATIONS};
use crate::supervisor;
use clap::ArgMatches;
use render::Format;
use std::ffi::OsString;
use std::process::ExitCode;

/// Does what the words of the command line ask, the program's name first.
#[must_use]
pub fn main(words: Vec<OsString>) -> ExitCode {
    if words.get(1).is_some_and(|word| word == supervisor::ARGUMENT) {
        return supervisor::main();
    }
    run(OPERATIONS, &words)
}

/// The same for any table of operations.
#[must_use]
pub fn run(table: &'static [Entry], words: &[OsString]) -> ExitCode {
    let parse = |mut branch: clap::Command| branch.try_get_matches_from_mut(words).ok();
    if let Some(matches) = tree::branch(table, words).and_then(parse) {
        return dispatch(table, matches);
    }
    // Whatever else there is to say, the whole tree says.
    let mut command = command(table);
    match command.try_get_matches_from_mut(words) {
        Ok(matches) => dispatch(table, matches),
        Err(mut error) => {
            tree::advise(&mut error, &command, words);
            render::parser_verdict(&error, Format::guessed(words))
        }
    }
}

fn dispatch(table: &'static [Entry], mut matches: ArgMatches) -> ExitCode {
    let mut path = Vec::new();
    while let Some((word, inner)) = matches.remove_subcommand() {
        path.push(word);
        matches = inner;
    }
    if let Some(entry) = table.iter().find(|entry| entry.path == path) {
        let (format, at_terminal) = (tree::format(entry, &matches), tree::is_at_terminal(&matches));
        return match entry.from_arg_matches(&mut matches) {
            Ok(prepared) => session::run(entry, prepared, format, at_terminal),
            Err(error) => render::parser_verdict(&error, format),
        };
    }
    if path == tree::MCP_SERVE {
        return session::serve(Tools::of(table, tree::profile(&matches)), &tree::roots(&matches));
    }
    let attachment = match path.as_slice() {
        path if path == tree::ATTACH => Some(attach::new_asked(&matches)),
        path if path == tree::SHELL_ATTACH => Some(attach::asked(&matches)),
        _ => None,
    };
    match attachment {
        Some(Ok(asked)) => return attach::run(asked),
        Some(Err(error)) => return render::parser_verdict(&error, Format::Text),
        None => {}
    }
    if path == tree::MCP_INSTALL {
        return install::run(&matches);
    }
    if path == [man::MAN] {
        return match man::page(&matches, command(table)) {
            Ok(page) => render::finish(streams::write_stdout(&page), 0),
            Err(error) => render::failure(&error, Format::Text),
        };
    }
    let script = tree::completions(&matches, table).unwrap_or_default();
    render::finish(streams::write_stdout(&script), 0)
}
