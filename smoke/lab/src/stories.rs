//! Which stories there are: those of the story programs, built as they are for
//! the bare machine, and tests of pyro's own that need a Firecracker.

use crate::story::Story;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test program of pyro's, and the modules of it that show what is promised of
/// a VMM: on a Firecracker, as root and on cgroups, where there are these.
const PROMISES: (&str, &[&str]) =
    ("machinery", &["confinement::", "firecracker::", "given::", "jail::", "limits::"]);

/// The programs that have stories, by their names.
pub fn programs() -> io::Result<Vec<(String, PathBuf)>> {
    let mut programs = built(&["--package", "pyro-smoke", "--tests"])?;
    programs.extend(built(&["--package", "pyro", "--test", PROMISES.0])?);
    Ok(programs)
}

fn built(which: &[&str]) -> io::Result<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--locked", "--quiet"])
        .args(which)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other("the stories do not build"));
    }
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let built = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(built.filter_map(|artifact| story_program(&artifact)).collect())
}

fn story_program(artifact: &Value) -> Option<(String, PathBuf)> {
    let is_test = artifact["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let path = Path::new(artifact["executable"].as_str().filter(|_| is_test)?);
    Some((artifact["target"]["name"].as_str()?.to_owned(), path.to_owned()))
}

/// The stories of a program.
pub fn stories_of(program: &str, path: &Path) -> io::Result<Vec<Story>> {
    let output = Command::new(path).args(["--list", "--format", "terse"]).output()?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    let is_story = |test: &&str| {
        program != PROMISES.0 || PROMISES.1.iter().any(|module| test.starts_with(module))
    };
    let stories = tests.filter(is_story);
    Ok(stories.map(|test| Story { program: program.to_owned(), test: test.to_owned() }).collect())
}
