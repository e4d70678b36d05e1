//! Registers the server with the programs that use it, in their own
//! configuration files. Everything else in those stays as it is, byte for byte.

mod file;
mod json;
mod toml;

pub use file::Change;

use super::Profile;
use crate::config::Homes;
use crate::{Error, ErrorKind, Result};
use std::path::PathBuf;

/// How long Codex waits for a tool, in seconds; a program may run for ten
/// minutes if it is not told otherwise, and its machine must boot first.
const CODEX_TOOL_TIMEOUT_SEC: i64 = 660;

/// A longer name makes names of tools that models refuse.
const NAME_MAX: usize = 32;

/// What `mcp serve` takes.
const PROFILE: &str = "--profile";
const ROOT: &str = "--root";

/// A program that uses MCP servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// OpenCode.
    OpenCode,
    /// Cursor.
    Cursor,
}

impl Client {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Claude, Self::Codex, Self::OpenCode, Self::Cursor];

    /// As the command line spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::OpenCode => "opencode",
            Self::Cursor => "cursor",
        }
    }

    /// As its makers spell it.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Claude => "Claude Code",
            Self::Codex => "Codex",
            Self::OpenCode => "OpenCode",
            Self::Cursor => "Cursor",
        }
    }

    /// The file in which it keeps the servers of a user.
    fn configuration(self, homes: &Homes) -> PathBuf {
        match self {
            Self::Claude => homes.claude.join(".claude.json"),
            Self::Codex => homes.codex.join("config.toml"),
            Self::OpenCode => {
                let directory = homes.config.join("opencode");
                let spellings =
                    ["opencode.json", "opencode.jsonc"].map(|name| directory.join(name));
                let [usual, other] = spellings;
                if !usual.exists() && other.exists() { other } else { usual }
            }
            Self::Cursor => homes.home.join(".cursor/mcp.json"),
        }
    }
}

/// The server as a client is to start it.
#[derive(Debug, Clone)]
pub struct Registration {
    /// What the client calls it.
    pub name: String,
    /// The `pyro` to run. Not every client searches `PATH`.
    pub executable: PathBuf,
    /// The tools to offer; `None` is what it offered before, or the default.
    pub profile: Option<&'static Profile>,
    /// The directories of the host that tools may use; none is what it had before,
    /// or where it is started.
    pub roots: Vec<PathBuf>,
}

impl Registration {
    /// What registering it with a client changes, without changing anything yet.
    ///
    /// # Errors
    /// When the client's file cannot be read or makes no sense, or another server
    /// has this name there.
    pub fn plan(&self, client: Client, homes: &Homes) -> Result<Change> {
        let name = self.checked_name()?;
        let path = client.configuration(homes);
        let before = file::read(&path)?;
        let text = before.as_deref().unwrap_or_default();
        // A file that makes no sense is complained of below.
        let told = match client {
            Client::Claude | Client::Cursor => json::mcp_server_words(text, name),
            Client::OpenCode => json::opencode_server_words(text, name),
            Client::Codex => toml::server_words(text, name),
        };
        let words = self.words(&told)?;
        let after = match client {
            Client::Claude | Client::Cursor => json::with_mcp_server(text, name, &words),
            Client::OpenCode => json::with_opencode_server(text, name, &words),
            Client::Codex => toml::with_server(text, name, &words, CODEX_TOOL_TIMEOUT_SEC),
        };
        match after {
            Ok(after) => Ok(Change { path, before, after }),
            Err(misfit) => Err(misfit.into_error(client, &path, name)),
        }
    }

    fn checked_name(&self) -> Result<&str> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=NAME_MAX).contains(&self.name.len()) && self.name.chars().all(fits) {
            return Ok(&self.name);
        }
        let message = format!("{:?} cannot be the name of a server", self.name);
        Err(Error::new(ErrorKind::InvalidInput, message)
            .hint(format!("a name has 1 to {NAME_MAX} of the characters A-Z a-z 0-9 _ -")))
    }

    /// The command that starts the server, in words. What a server of ours was
    /// told `before` and is not told anew stays: to register it once more, as after
    /// an update, never lets it do more.
    fn words(&self, before: &[String]) -> Result<Vec<String>> {
        let mut words = vec![utf8(&self.executable)?, "mcp".into(), "serve".into()];
        let said = options(before);
        match self.profile {
            Some(profile) => words.extend([PROFILE.into(), profile.name.into()]),
            None => {
                words.extend(said.iter().filter(|(name, _)| *name == PROFILE).flat_map(spelled))
            }
        }
        if self.roots.is_empty() {
            words.extend(said.iter().filter(|(name, _)| *name == ROOT).flat_map(spelled));
        }
        for root in &self.roots {
            words.extend([ROOT.into(), utf8(root)?]);
        }
        Ok(words)
    }
}

/// The options that the words of a server of ours have, each with its value.
fn options(words: &[String]) -> Vec<(&str, &str)> {
    let mut rest = words.iter().map(String::as_str).skip_while(|word| *word != "serve").skip(1);
    let mut options = Vec::new();
    while let Some(word) = rest.next() {
        let option = word.split_once('=').or_else(|| Some((word, rest.next()?)));
        options.extend(option);
    }
    options
}

fn spelled(option: &(&str, &str)) -> [String; 2] {
    [option.0.into(), option.1.into()]
}

fn utf8(path: &std::path::Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let message = format!("the path {} is not UTF-8", path.display());
        Error::new(ErrorKind::InvalidInput, message)
    })
}

/// Why a file cannot take the server.
#[derive(Debug, PartialEq, Eq)]
enum Misfit {
    /// It is not what the client writes.
    Broken(String),
    /// Something stands where an object should.
    NoObject(String),
    /// Another server has the name.
    Taken,
}

impl Misfit {
    fn into_error(self, client: Client, path: &std::path::Path, name: &str) -> Error {
        let (title, shown) = (client.title(), path.display());
        match self {
            Self::Broken(what) => {
                let message = format!("{shown} is no configuration of {title}: {what}");
                Error::new(ErrorKind::InvalidInput, message)
                    .hint("nothing was changed; mend the file, then try again")
            }
            Self::NoObject(key) => {
                let message = format!("{shown} is no configuration of {title}: {key} is no object");
                Error::new(ErrorKind::InvalidInput, message)
                    .hint("nothing was changed; mend the file, then try again")
            }
            Self::Taken => {
                let message = format!("{shown} has another server with the name {name}");
                Error::new(ErrorKind::Conflict, message)
                    .hint("nothing was changed; choose another name with `--name`")
            }
        }
    }
}

/// Whether words start a server of ours, wherever `pyro` was then.
fn is_ours<'w>(words: impl IntoIterator<Item = &'w str>) -> bool {
    let words: Vec<_> = words.into_iter().collect();
    words.windows(2).any(|pair| pair == ["mcp", "serve"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::PROFILES;

    fn words(registration: &Registration, before: &[&str]) -> Vec<String> {
        let before: Vec<String> = before.iter().map(|&word| word.into()).collect();
        registration.words(&before).expect("UTF-8").split_off(1)
    }

    #[test]
    fn s9_registered_once_more_it_may_do_no_more() {
        let mut registration = Registration {
            name: "pyro".into(),
            executable: "/opt/pyro".into(),
            profile: None,
            roots: Vec::new(),
        };
        let before = ["mcp", "serve", "--root=/a", "--profile", "vm-run", "--root", "/b"];
        let kept = ["mcp", "serve", "--profile", "vm-run", "--root", "/a", "--root", "/b"];
        assert_eq!(words(&registration, &before), kept);
        assert_eq!(words(&registration, &[]), ["mcp", "serve"]);
        registration.roots = vec!["/c".into()];
        registration.profile = Some(&PROFILES[0]);
        let new = ["mcp", "serve", "--profile", PROFILES[0].name, "--root", "/c"];
        assert_eq!(words(&registration, &before), new);
    }
}
