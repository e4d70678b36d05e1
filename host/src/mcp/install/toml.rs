//! Servers in Codex's TOML.

use super::{Misfit, is_ours};
use toml_edit::{Array, DocumentMut, Item, Table, value};

/// `[mcp_servers.NAME]` with its command, arguments and time-out.
pub(super) fn with_server(
    text: &str,
    name: &str,
    words: &[String],
    tool_timeout_sec: i64,
) -> Result<String, Misfit> {
    let mut document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| Misfit::Broken(error.to_string()))?;
    let no_table = |key: &str| Misfit::NoObject(format!("`{key}`"));
    let servers = document
        .entry("mcp_servers")
        .or_insert_with(|| {
            let mut servers = Table::new();
            // Only the servers get headings.
            servers.set_implicit(true);
            Item::Table(servers)
        })
        .as_table_like_mut()
        .ok_or_else(|| no_table("mcp_servers"))?;
    let server = servers
        .entry(name)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or(Misfit::Taken)?;
    if !server.is_empty() && !is_ours(strings(server.get("args"))) {
        return Err(Misfit::Taken);
    }
    let (command, args) = words.split_first().ok_or(Misfit::Taken)?;
    let timeout = server.get("tool_timeout_sec").cloned();
    put(server, "command", value(command));
    put(server, "args", value(args.iter().collect::<Array>()));
    // A person's own choice stands.
    put(server, "tool_timeout_sec", timeout.unwrap_or_else(|| value(tool_timeout_sec)));
    Ok(document.to_string())
}

/// The words by which a server is started; none where there is none.
pub(super) fn server_words(text: &str, name: &str) -> Vec<String> {
    let Ok(document) = text.parse::<DocumentMut>() else { return Vec::new() };
    let server = document.get("mcp_servers").and_then(|servers| servers.get(name));
    strings(server.and_then(|server| server.get("args"))).map(str::to_owned).collect()
}

fn strings(item: Option<&Item>) -> impl Iterator<Item = &str> {
    item.and_then(Item::as_array).into_iter().flatten().filter_map(|word| word.as_str())
}

/// Sets a value; one that is the same already keeps its form and comments.
fn put(table: &mut dyn toml_edit::TableLike, key: &str, item: Item) {
    let spelled = |item: &Item| item.to_string().split_whitespace().collect::<String>();
    if table.get(key).is_none_or(|found| spelled(found) != spelled(&item)) {
        table.insert(key, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, Misfit> {
        let words = ["/opt/pyro", "mcp", "serve", "--root", "/a \"b\""].map(str::to_owned);
        with_server(text, "pyro", &words, 660)
    }

    #[test]
    fn a_new_file() {
        insta::assert_snapshot!(with("").expect("it fits"));
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = "# mine\nmodel   =  'x' # why\n\n[mcp_servers.other]\ncommand = \"x\"\n\n[tui]\na = {b=1}\n";
        let after = with(text).expect("it fits");
        let added: Vec<_> =
            after.lines().filter(|line| !text.lines().any(|l| l == *line)).collect();
        assert!(added.iter().all(|line| line.contains("pyro") || line.contains('=')), "{after}");
        let mut rest = after.as_str();
        for line in text.lines() {
            rest = rest.split_once(line).unwrap_or_else(|| panic!("{line} is gone: {after}")).1;
        }
        assert_eq!(with(&after).as_ref(), Ok(&after), "twice is once");
    }

    #[test]
    fn what_a_server_was_told_is_found_again() {
        let after = with("").expect("it fits");
        assert_eq!(server_words(&after, "pyro"), ["mcp", "serve", "--root", "/a \"b\""]);
        assert!(server_words(&after, "other").is_empty() && server_words("[", "pyro").is_empty());
    }

    #[test]
    fn an_own_server_is_brought_up_to_date() {
        let text = "[mcp_servers.pyro]\ncommand = \"pyro\"\nargs = [\"mcp\", \"serve\"]\ntool_timeout_sec = 9 # short\n\n[mcp_servers.pyro.env]\nA = \"b\"\n";
        let after = with(text).expect("it fits");
        assert!(
            after.contains("command = \"/opt/pyro\"") && after.contains("A = \"b\""),
            "{after}"
        );
        assert!(after.contains("tool_timeout_sec = 9 # short"), "{after}");
    }

    #[test]
    fn anothers_server_is_left_alone() {
        let text = "[mcp_servers.pyro]\nurl = \"https://pyro.test\"\n";
        assert_eq!(with(text), Err(Misfit::Taken));
        assert_eq!(with("mcp_servers.pyro = 3"), Err(Misfit::Taken));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["[", "mcp_servers = 3", "a = 1\na = 2"] {
            assert!(with(text).is_err(), "{text}");
        }
    }
}
