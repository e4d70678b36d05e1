//! `pyro mcp install`: registers the server with another program.

use super::render::{self, Format};
use super::{streams, tree};
use crate::config::Homes;
use crate::context::Roots;
use crate::mcp::install::Client;
use crate::{Config, Error, Result};
use clap::ArgMatches;
use std::process::ExitCode;

pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    match install(matches) {
        Ok(text) => render::finish(streams::write_stdout(text.as_bytes()), 0),
        Err(error) => render::failure(&error, Format::Text),
    }
}

fn install(matches: &ArgMatches) -> Result<String> {
    // The parser admits no other name.
    let client = tree::client(matches).unwrap_or(Client::Claude);
    let (mut registration, only_show) =
        tree::registration(matches, Config::from_environment()?.installed_executable()?);
    // The program starts servers wherever it likes.
    for root in &mut registration.roots {
        *root = std::path::absolute(&*root)
            .map_err(|error| Error::io(format!("cannot resolve {}", root.display()), error))?;
    }
    Roots::below(&registration.roots)?;
    let change = registration.plan(client, &Homes::from_environment()?)?;
    let (title, path) = (client.title(), change.path.display());
    if !change.is_needed() {
        return Ok(format!("{title} has it already: {path}\n"));
    }
    if only_show {
        return Ok(change.diff());
    }
    let kept = match change.make()? {
        Some(copy) => format!("; what it was is in {}", copy.display()),
        None => String::new(),
    };
    Ok(format!(
        "{title} now starts pyro: {path}{kept}\nRestart {title}, and ask it what tools it has.\n"
    ))
}
