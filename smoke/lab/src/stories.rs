//! Which stories there are: those of the story programs, built as they are for
//! the bare machine.

use crate::story::Story;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The programs of `smoke/tests`, by their names.
pub fn programs() -> io::Result<Vec<(String, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--locked", "--quiet", "--package", "pyro-smoke", "--tests"])
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

/// The tests of a program.
pub fn stories_of(program: &str, path: &Path) -> io::Result<Vec<Story>> {
    let output = Command::new(path).args(["--list", "--format", "terse"]).output()?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.map(|test| Story { program: program.to_owned(), test: test.to_owned() }).collect())
}
