//! Who may know whom. The text of the files is enough to tell.

#[path = "support/sources.rs"]
mod sources;

use sources::{Source, sources_of_workspace};

/// The layers of `host/src`, the upper first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// How you ask: the command line, MCP, the library's front page.
    Surface,
    /// What can be asked.
    Operation,
    /// What it means, and how it is done.
    Below,
}

fn layer_of(path: &str) -> Option<Layer> {
    let path = path.strip_prefix("host/src/")?;
    let head = path.split('/').next()?.trim_end_matches(".rs");
    Some(match head {
        "main" | "lib" | "cli" | "mcp" => Layer::Surface,
        "operation" => Layer::Operation,
        _ => Layer::Below,
    })
}

/// The lines that ship, without comments and unit tests.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let shipped = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = shipped.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// Lines of `host/src` that hold one of the words where they must not.
fn offences(words: &[&str], allowed: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let sources = sources_of_workspace();
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| layer_of(&source.path).is_some()) {
        for (number, line) in code(source) {
            let offends = words.iter().any(|word| line.contains(word));
            if offends && !allowed(&source.path, line) {
                found.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    found
}

#[test]
fn nothing_below_operations_knows_how_it_is_asked() {
    let words = ["clap", "rmcp", "crate::cli", "crate::mcp", "crate::operation", "operation::"];
    let found = offences(&words, |path, _| layer_of(path) != Some(Layer::Below));
    assert!(found.is_empty(), "{found:#?}");
}

/// Types that an answer carries as they are describe themselves by a derive;
/// that is all the lower layers may have to do with schemas.
#[test]
fn below_operations_schemas_are_derived_only() {
    let found = offences(&["schemars", "JsonSchema"], |path, line| {
        let attribute = line.starts_with("#[derive(") || line.starts_with("#[schemars(");
        // A line of a derive that rustfmt broke.
        let paths = |c: char| c.is_alphanumeric() || ":_, ".contains(c);
        layer_of(path) != Some(Layer::Below) || attribute || line.chars().all(paths)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn operations_know_no_surface() {
    let words = ["rmcp", "crate::cli", "crate::mcp"];
    let found = offences(&words, |path, _| layer_of(path) != Some(Layer::Operation));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn surfaces_know_no_operation_by_name() {
    let words = ["Run", "vm_run", "Doctor", "EnvList", "EnvBuild", "EnvInspect", "EnvPrune"];
    let names = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| words.contains(&word))
    };
    // A profile is a list of names, and prose may give an example.
    let data = |path: &str| path.ends_with("mcp/profile.rs");
    let prose = |line: &str| line.contains("INSTRUCTIONS") || line.starts_with("with vm_run");
    let found = offences(&words, |path, line| {
        layer_of(path) != Some(Layer::Surface) || data(path) || prose(line) || !names(line)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_command_line_touches_the_terminal() {
    let words =
        ["println!", "print!", "io::stdout", "io::stderr", "io::stdin", "stdio::std", "stderr()"];
    let found = offences(&words, |path, _| path.starts_with("host/src/cli"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let words = [
        "env::var",
        "env::vars",
        "env::current_dir",
        "env::current_exe",
        "env::home_dir",
        "env::temp_dir",
        "env::set_var",
    ];
    let found = offences(&words, |path, _| path == "host/src/config.rs");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_leaves_the_process_from_the_middle() {
    let found = offences(&["process::exit(", "process::abort("], |_, _| false);
    assert!(found.is_empty(), "{found:#?}");
}
