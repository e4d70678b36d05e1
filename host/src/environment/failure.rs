//! The errors of this noun: what went wrong, with what, and what to type next.

use super::manifest::Origin;
use super::recipe::Name;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::oci::Reference;
use crate::store::record::RecordError;
use crate::store::verify::Fault;
use crate::vmm::KernelFlavor;
use std::collections::VecDeque;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// What a full disk is called in the C locale, which scripts run in. They give
/// no better sign of it: by the time they end they have removed what filled it.
const NO_SPACE: &str = "No space left on device";

/// More changes than this and a name is no likely slip of another.
const SLIPS_MAX: usize = 3;

pub fn unknown(name: &str, known: &[&str]) -> Error {
    let nearest = known
        .iter()
        .map(|known| (distance(name, known), known))
        .filter(|(slips, _)| *slips <= SLIPS_MAX)
        .min();
    let known = known.join(", ");
    let hint = match nearest {
        Some((_, nearest)) => format!("did you mean {nearest}? there are {known}"),
        None if name.parse::<Reference>().is_ok() => {
            format!("there are {known}; `pyro env pull {name}` gets it from a registry")
        }
        None => format!("there are {known}"),
    };
    Error::new(ErrorKind::NotFound, format!("there is no environment {name:?}")).hint(hint)
}

/// How many letters to insert, drop or replace to make one text the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

pub fn not_built(name: &Name) -> Error {
    Error::new(ErrorKind::EnvironmentMissing, format!("the environment {name} is not built yet"))
        .hint(format!("`pyro env build {name}`"))
}

pub fn pinned_gone(name: &str, root_digest: Digest) -> Error {
    let image = root_digest.short();
    Error::new(ErrorKind::EnvironmentMissing, format!("the image {image} of {name} is gone"))
        .hint("a workspace boots only the image that it was created with: create another one")
}

pub fn kernel_not_built(flavor: KernelFlavor) -> Error {
    Error::new(ErrorKind::EnvironmentMissing, format!("the {flavor} kernel is not built yet"))
        .hint(format!("`pyro env build debian:12 --kernel {flavor}`"))
}

pub fn unknown_kernel(name: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("there is no kernel {name:?}"))
        .hint("there are `tuned` and `stock`")
}

/// What makes it again, whatever is wrong with it.
pub fn repair(name: &Name) -> String {
    format!("`pyro env build {name} --force`")
}

/// The name of an environment that has a recipe cannot be another's.
pub fn name_taken(name: &Name) -> Error {
    let message = format!("{name} is the name of an environment that pyro builds itself");
    Error::new(ErrorKind::Conflict, message).hint("give it another one with `--name`")
}

pub fn no_recipe(name: &Name, origin: &Origin) -> Error {
    let message = format!("{name} was made of an image and has no recipe to build it by");
    Error::new(ErrorKind::InvalidInput, message)
        .hint(format!("{} renews it", origin.way(name.as_str())))
}

pub fn corrupt(file: &Path, fault: Fault, repair: &str) -> Error {
    Error::new(ErrorKind::EnvironmentCorrupt, format!("{} is damaged: {fault}", file.display()))
        .hint(repair)
}

pub fn corrupt_record(error: RecordError, repair: &str) -> Error {
    let message = error.to_string();
    Error::new(ErrorKind::EnvironmentCorrupt, message).because(Cause::of(error)).hint(repair)
}

/// What lies beneath a record's error, whose own words are the message.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("the file is not there")]
    Missing,
    #[error(transparent)]
    Unreadable(std::io::Error),
    #[error("{0}")]
    Damaged(Box<dyn std::error::Error + Send + Sync>),
    #[error("another version of pyro wrote it")]
    OtherVersion,
}

impl Cause {
    fn of(error: RecordError) -> Self {
        match error {
            RecordError::Missing { .. } => Self::Missing,
            RecordError::Unreadable { source, .. } => Self::Unreadable(source),
            RecordError::Damaged { source, .. } => Self::Damaged(source),
            RecordError::OtherVersion { .. } => Self::OtherVersion,
        }
    }
}

/// Programs that are not there, each with the Debian package that has it.
pub fn programs(doing: &str, missing: &[(&str, &str)]) -> Error {
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    Error::new(
        ErrorKind::HostRequirement,
        format!("{doing} needs {}, not found on PATH", programs.join(", ")),
    )
    .hint(format!("`apt-get install --no-install-recommends {}`", packages.join(" ")))
}

pub fn no_room(doing: &str, dir: &Path, needed: u64, free: u64) -> Error {
    const MIB: u64 = 1 << 20;
    Error::new(
        ErrorKind::DiskFull,
        format!(
            "{doing} needs {} MiB free in {}, there are {}",
            needed.div_ceil(MIB),
            dir.display(),
            free / MIB
        ),
    )
    .hint("free some space; `pyro env prune` removes unused images")
}

/// The end of a script's output.
#[derive(Debug, thiserror::Error)]
#[error("its last lines were\n{}", .0.join("\n"))]
struct LastWords(Vec<String>);

pub fn script(doing: &str, status: ExitStatus, last_words: VecDeque<String>) -> Error {
    let full = last_words.iter().any(|line| line.contains(NO_SPACE));
    let (kind, hint) = if full {
        (ErrorKind::DiskFull, "free some space; `pyro env prune` removes unused images")
    } else {
        (
            ErrorKind::Io,
            "the lines above say why; nothing was changed, so try again when it is mended",
        )
    };
    Error::new(kind, format!("{doing} failed ({status})"))
        .because(LastWords(last_words.into()))
        .hint(hint)
}

pub fn too_slow(doing: &str, limit: Duration, last_words: VecDeque<String>) -> Error {
    let message = format!("{doing} took longer than {} min", limit.as_secs() / 60);
    Error::new(ErrorKind::TimedOut, message)
        .because(LastWords(last_words.into()))
        .hint("is the network slow? try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised() {
        let names = ["debian:12-base", "debian:12", "debian:12-build"];
        let hint = |name| unknown(name, &names).next_step().map(str::to_owned);
        let all = "there are debian:12-base, debian:12, debian:12-build";
        assert_eq!(hint("debain:12"), Some(format!("did you mean debian:12? {all}")));
        assert_eq!(hint("debian:12-biuld"), Some(format!("did you mean debian:12-build? {all}")));
        assert_eq!(hint("../../etc/passwd"), Some(all.into()));
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        for (from, to, slips) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("ä", "a", 1)]
        {
            assert_eq!((distance(from, to), distance(to, from)), (slips, slips));
        }
    }
}
