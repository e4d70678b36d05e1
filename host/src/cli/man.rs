//! `pyro man`: the tree of commands as manual pages.

use crate::{Error, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_mangen::Man;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) const MAN: &str = "man";

const WORDS: &str = "command";
const DIRECTORY: &str = "directory";

pub(super) fn command() -> Command {
    Command::new(MAN)
        .about("Print the manual page of a command, or write those of all")
        .arg(
            Arg::new(WORDS)
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .help("The words of the command, without `pyro`; none for pyro's own page"),
        )
        .arg(
            Arg::new(DIRECTORY)
                .long(DIRECTORY)
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with(WORDS)
                .help("Write the page of every command to a file in this directory of the host"),
        )
        .after_help(
            "Examples:\n  pyro man workspace exec | man -l -\n  \
             pyro man --directory ~/.local/share/man/man1",
        )
}

/// The page that a `man` command asks for, nothing if it asked for all of them
/// in files, or the word that is no command.
pub(super) fn page(matches: &ArgMatches, mut root: Command) -> Result<Vec<u8>> {
    // Gives every command its whole name.
    root.build();
    if let Some(directory) = matches.get_one::<PathBuf>(DIRECTORY) {
        fs::create_dir_all(directory).map_err(|error| refused(directory, error))?;
        write_all(&root, "", directory)?;
        return Ok(Vec::new());
    }
    let mut command = &root;
    for word in matches.get_many::<String>(WORDS).into_iter().flatten() {
        command = command.find_subcommand(word).ok_or_else(|| {
            let message = format!("there is no command {word:?}");
            Error::new(crate::ErrorKind::InvalidInput, message)
                .hint("`pyro --help` shows what there is")
        })?;
    }
    Ok(rendered(command))
}

fn write_all(command: &Command, before: &str, directory: &Path) -> Result<()> {
    let name = format!("{before}{}", command.get_name());
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, rendered(command)).map_err(|error| refused(&path, error))?;
    let inner = command.get_subcommands().filter(|inner| inner.get_name() != "help");
    for inner in inner {
        write_all(inner, &format!("{name}-"), directory)?;
    }
    Ok(())
}

fn rendered(command: &Command) -> Vec<u8> {
    let mut page = Vec::new();
    // A vector takes whatever is written to it.
    let _ = Man::new(command.clone()).render(&mut page);
    page
}

fn refused(path: &Path, error: std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display()), error)
}
