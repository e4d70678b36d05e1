//! Programs of others, from PyPI and npm, installed once for every run of the tests
//! into a directory named by what it holds.

use crate::{stderr, user_cache};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Says that this host has no way to the registries, and that the tests with such
/// programs are not to be missed.
const WITHOUT_REGISTRIES: &str = "PYRO_TEST_WITHOUT_REGISTRIES";

/// Where a pinned package from PyPI lies, its programs in `bin`; `None` where a
/// person has said that there are no registries.
///
/// # Panics
/// When it cannot be installed: a test that nothing was tested with did not pass.
#[must_use]
pub fn from_pypi(pinned: &str) -> Option<PathBuf> {
    installed(pinned, |place| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--target"]).arg(place).arg(pinned);
        pip
    })
}

/// The same from npm, below `node_modules`.
///
/// # Panics
/// As [`from_pypi`].
#[must_use]
pub fn from_npm(pinned: &str) -> Option<PathBuf> {
    installed(pinned, |place| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--prefix"]).arg(place).arg(pinned);
        npm
    })
}

fn installed(what: &str, install: impl Fn(&Path) -> Command) -> Option<PathBuf> {
    if std::env::var_os(WITHOUT_REGISTRIES).is_some() {
        eprintln!("skipped: {what} is not installed where {WITHOUT_REGISTRIES} is set");
        return None;
    }
    let name: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let shelf = user_cache().with_file_name("pyro-tests");
    let place = shelf.join(name);
    if place.is_dir() {
        return Some(place);
    }
    std::fs::create_dir_all(&shelf).expect("the cache is writable");
    let making = TempDir::new_in(&shelf).expect("the cache is writable");
    match install(making.path()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => missing(what, &stderr(&output)),
        Err(error) => missing(what, &error.to_string()),
    }
    // Whoever was first made the same.
    if let Err(error) = std::fs::rename(making.path(), &place) {
        assert!(place.is_dir(), "{error}");
    }
    Some(place)
}

fn missing(what: &str, why: &str) -> ! {
    panic!(
        "{what} cannot be installed: {}\n`images/setup.sh test` installs what that takes; \
         {WITHOUT_REGISTRIES}=1 does without these tests",
        why.trim()
    )
}
