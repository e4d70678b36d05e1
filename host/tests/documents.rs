//! What documents tell people and models to type is what the command line takes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use pyro::operation::OPERATIONS;
use std::path::Path;

/// Those whose commands are not run by a story anyway.
const DOCUMENTS: &[&str] =
    &["SKILL.md", "docs/integrations.md", "docs/install.md", "docs/use-cases/README.md"];

fn text_of(document: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document))
        .unwrap()
}

/// Words as a shell has them, up to what is not for the command any more.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(end), _) if character == end => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '|' | ';' | '&' | '>' | '#') => break,
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

/// Commands of pyro's: lines of fenced blocks, and code in the text.
fn commands(document: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut is_fenced = false;
    for line in document.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            let line = trimmed.strip_prefix("$ ").unwrap_or(trimmed);
            commands.extend(line.starts_with("pyro ").then(|| line.to_owned()));
        } else {
            let code = trimmed.split('`').skip(1).step_by(2);
            commands.extend(
                code.filter(|code| code.starts_with("pyro ") && !code.contains("__"))
                    .map(str::to_owned),
            );
        }
    }
    commands
}

/// Whether these are a command's words alone, by which a text speaks of it.
fn is_name(words: &[String]) -> bool {
    let root = pyro::cli::command(OPERATIONS);
    let mut path = words.iter().skip(1);
    path.try_fold(&root, |command, word| command.find_subcommand(word)).is_some()
}

#[test]
fn every_command_in_a_document_parses() {
    let mut bad = Vec::new();
    for document in DOCUMENTS {
        let commands = commands(&text_of(document));
        assert!(!commands.is_empty(), "{document}");
        for line in commands {
            let mut words = words(&line);
            // Says that there may be more, or that another command has said it.
            words.retain(|word| word != "...");
            for id in words.iter_mut().filter(|word| *word == "ID") {
                *id = "0123456789ab".into();
            }
            let parsed = pyro::cli::command(OPERATIONS).try_get_matches_from(&words);
            let is_asked = |error: &clap::Error| error.exit_code() == 0;
            if let Err(error) = parsed
                && !is_asked(&error)
                && !is_name(&words)
            {
                bad.push(format!("{document}: `{line}`: {error}"));
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn every_tool_that_the_skill_names_is_one() {
    let skill = text_of("SKILL.md");
    let tools: Vec<&str> = OPERATIONS.iter().filter_map(|entry| entry.tool).collect();
    let last = skill.split("## As MCP tools").nth(1).unwrap();
    let named = last.split('`').skip(1).step_by(2).filter(|code| code.contains('_'));
    let strangers: Vec<_> = named.filter(|n| !tools.contains(n) && *n != "workspace_id").collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

/// As long as a model reads on the side.
#[test]
fn the_skill_is_short() {
    let skill = text_of("SKILL.md");
    assert!(skill.len() < 8 * 1024, "{} bytes", skill.len());
    assert!(skill.starts_with("---\nname: pyro\ndescription: "));
}

#[test]
fn words_are_those_of_a_shell() {
    let said = "pyro run a -- sh -c 'x | y' | tail > f";
    assert_eq!(words(said), ["pyro", "run", "a", "--", "sh", "-c", "x | y"]);
}

#[test]
fn the_contract_names_every_operation_and_tool() {
    let contract = text_of("docs/public-contract.md");
    let rows: Vec<&str> = contract.lines().filter(|line| line.starts_with("| `pyro ")).collect();
    let mut missing = Vec::new();
    for entry in OPERATIONS {
        let has = |row: &&&str| {
            let mut words = row.split(|c: char| !c.is_alphanumeric() && c != '-');
            entry.path.iter().all(|part| words.any(|word| word == *part))
        };
        if !rows.iter().any(|row| has(&row)) {
            missing.push(entry.path.join(" "));
        }
    }
    assert!(missing.is_empty(), "docs/public-contract.md has no row for {missing:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents =
        vec![root.join("README.md"), root.join("SKILL.md"), root.join("CHANGELOG.md")];
    for directory in ["docs", "docs/use-cases", "docs/decisions"] {
        let entries = std::fs::read_dir(root.join(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        documents.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    let mut broken = Vec::new();
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let file = target.split('#').next().unwrap_or_default();
            if !document.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
