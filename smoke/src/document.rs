//! Documents that are told as stories: every `console` block of one is run as it
//! stands, and prints what it says.
//!
//! In a block `$ ` begins a command, `> ` goes on with it, and the rest is what
//! it prints on both streams; `...` stands for what varies within a line. What
//! pyro says while it works, which a terminal does not keep, is left out.

use crate::{Home, pyro_executable};
use std::process::Command;

/// What pyro says while it works begins so where there is no terminal.
const PROGRESS: &str = "==> ";

/// A command and what it prints.
#[derive(Debug)]
pub struct Example {
    /// The command, of one line or several.
    pub command: String,
    /// The lines that it prints.
    pub printed: Vec<String>,
}

/// The commands of a document, in order.
///
/// # Panics
/// When a block does not begin with a command.
#[must_use]
pub fn examples(document: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for rest in document.split("```console\n").skip(1) {
        let block = rest.split("```").next().unwrap_or_default();
        assert!(block.starts_with("$ "), "a block starts with a command: {block}");
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                examples.push(Example { command: command.to_owned(), printed: Vec::new() });
                continue;
            }
            let Some(last) = examples.last_mut() else { continue };
            match line.strip_prefix("> ").or_else(|| line.strip_prefix('>')) {
                Some(more) if last.printed.is_empty() => {
                    last.command.push('\n');
                    last.command.push_str(more);
                }
                Some(_) | None => last.printed.push(line.to_owned()),
            }
        }
    }
    examples
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

/// Follows a document, `pyro` on `PATH`, in this home and in its directory.
///
/// # Panics
/// When a command prints something else than the document says.
pub fn follow(document: &str, home: &Home) {
    let pyro = pyro_executable().canonicalize().expect("it is there");
    let directory = pyro.parent().expect("it is in a directory");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").expect("PATH is set"));
    let examples = examples(document);
    assert!(examples.len() >= 5, "{examples:?}");
    for Example { command, printed } in examples {
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .env("PATH", &path)
            .env("PYRO_HOME", home.path())
            .current_dir(home.path())
            .output()
            .expect("a shell starts");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with(PROGRESS)).collect();
        let is_right = lines.len() == printed.len()
            && lines.iter().zip(&printed).all(|(said, printed)| is_like(printed, said));
        assert!(is_right, "$ {command}\nannounced {printed:#?}\nsaid {lines:#?}");
    }
}
