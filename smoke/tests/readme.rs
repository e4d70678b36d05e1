//! The README's examples do what they say: every `console` block is run as it
//! stands, and `...` stands for what varies within a line.

use pyro_smoke::{Home, pyro_executable};
use std::process::Command;

const README: &str = include_str!("../../README.md");

/// The blocks fenced as `console`: a command after `$ `, then what it prints.
fn examples() -> Vec<(&'static str, Vec<&'static str>)> {
    let blocks = README.split("```console\n").skip(1);
    blocks
        .map(|rest| {
            let block = rest.split("```").next().expect("a fenced block ends");
            let mut lines = block.lines();
            let command = lines.next().and_then(|line| line.strip_prefix("$ "));
            (command.expect("a block starts with a command"), lines.collect())
        })
        .collect()
}

/// Whether a line is as announced, `...` standing for anything.
fn is_like(announced: &str, said: &str) -> bool {
    let mut parts = announced.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = said.strip_prefix(first) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        open = part.is_empty();
    }
    open || rest.is_empty()
}

#[test]
fn every_example_prints_what_it_says() {
    let home = Home::new();
    let directory = pyro_executable().parent().expect("it is in a directory").to_owned();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").expect("PATH is set"));
    let examples = examples();
    assert!(examples.len() >= 5, "{examples:?}");
    for (command, announced) in examples {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .env("PATH", &path)
            .env("PYRO_HOME", home.path())
            .current_dir(home.path())
            .output()
            .expect("a shell starts");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            lines.len() == announced.len()
                && lines.iter().zip(&announced).all(|(said, announced)| is_like(announced, said)),
            "$ {command}\nannounced {announced:#?}\nsaid {lines:#?}"
        );
    }
}
