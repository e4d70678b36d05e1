//! Next steps in a model's words.
//!
//! An error is written once, for every surface; what it tells to type stands in
//! backquotes. A model cannot type, so here each command becomes the tool that
//! does the same, each option the argument. What no tool of the profile does, a
//! person must do on the host.

use super::Tools;
use crate::operation::Entry;
use serde_json::Value;

/// The hint of an error of this operation.
pub(super) fn for_model(hint: &str, tools: &Tools, asked: Option<&Entry>) -> String {
    let mut advice = String::new();
    let mut rest = hint;
    while let Some((text, (code, after))) =
        rest.split_once('`').and_then(|(text, quoted)| Some((text, quoted.split_once('`')?)))
    {
        advice.push_str(text);
        advice.push_str(&reworded(code, tools, asked));
        rest = after;
    }
    advice + rest
}

fn reworded(code: &str, tools: &Tools, asked: Option<&Entry>) -> String {
    let words: Vec<&str> = code.split_whitespace().collect();
    match words.as_slice() {
        ["pyro", command @ ..] => call(command, tools)
            .unwrap_or_else(|| format!("`{code}` (on the host; ask the person who runs it)")),
        [option, ..] => match asked.and_then(|entry| entry.argument_of_option(option)) {
            Some(argument) => format!("`{argument}`"),
            None => format!("`{code}`"),
        },
        [] => format!("`{code}`"),
    }
}

/// The call of a tool that does what a command does.
fn call(command: &[&str], tools: &Tools) -> Option<String> {
    let (entry, words) = tools.of_words(command)?;
    let tool = entry.tool.filter(|tool| tools.find(tool).is_some())?;
    Some(match entry.arguments_of_words(words) {
        Some(arguments) if !arguments.is_empty() => {
            format!("`{tool}` with {}", Value::Object(arguments))
        }
        _ => format!("`{tool}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::PROFILES;
    use crate::operation::OPERATIONS;

    #[track_caller]
    fn check(hint: &str, asked: &str, expected: &str) {
        let tools = Tools::of(OPERATIONS, &PROFILES[0]);
        assert_eq!(for_model(hint, &tools, tools.find(asked)), expected);
    }

    #[test]
    fn commands_become_tools() {
        check(
            "`pyro workspace list` shows those there are",
            "workspace_reset",
            "`workspace_list` shows those there are",
        );
        check(
            "start it: `pyro workspace start 0123456789ab`",
            "workspace_reset",
            "start it: `workspace_start` with {\"workspace_id\":\"0123456789ab\"}",
        );
        check(
            "`pyro workspace delete x --ignore-missing`",
            "workspace_reset",
            "`workspace_delete` with {\"workspace_id\":\"x\",\"ignore_missing\":true}",
        );
    }

    #[test]
    fn what_no_tool_does_is_done_on_the_host() {
        check(
            "`pyro env build debian:12`",
            "workspace_create",
            "`pyro env build debian:12` (on the host; ask the person who runs it)",
        );
    }

    #[test]
    fn options_become_arguments() {
        check("give less `--mem-mib`", "workspace_create", "give less `mem_mib`");
        check("with `--mem-mib N`", "workspace_list", "with `--mem-mib N`");
    }

    #[test]
    fn other_text_stays() {
        for text in ["", "no quotes", "a `word`", "an `odd one", "``"] {
            check(text, "workspace_list", text);
        }
    }
}
