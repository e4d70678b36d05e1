//! `pyro man`: the tree of commands as manual pages.

use clap::{Arg, ArgAction, ArgMatches, Command};
use clap_mangen::Man;

pub(super) const MAN: &str = "man";

const WORDS: &str = "command";

pub(super) fn command() -> Command {
    Command::new(MAN)
        .about("Print the manual page of a command")
        .arg(
            Arg::new(WORDS)
                .value_name("COMMAND")
                .action(ArgAction::Append)
                .help("The words of the command, without `pyro`; none for pyro's own page"),
        )
        .after_help(
            "Examples:\n  pyro man workspace exec | man -l -\n  \
             pyro man > ~/.local/share/man/man1/pyro.1",
        )
}

/// The page that a `man` command asks for, or the word that is no command.
pub(super) fn page(matches: &ArgMatches, root: Command) -> Result<Vec<u8>, String> {
    let mut root = root;
    // Gives every command its whole name.
    root.build();
    let mut command = &root;
    for word in matches.get_many::<String>(WORDS).into_iter().flatten() {
        command = command.find_subcommand(word).ok_or_else(|| word.clone())?;
    }
    let mut page = Vec::new();
    // A vector takes whatever is written to it.
    let _ = Man::new(command.clone()).render(&mut page);
    Ok(page)
}
