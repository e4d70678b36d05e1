use crate::secret::Redactor;
use crate::workspace::history::quoted;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A program and its arguments, as they are.
    Argv(Vec<OsString>),
    /// A line for the guest's `/bin/sh -c`.
    Shell(OsString),
    /// The guest's shell, at the caller's terminal.
    Interactive,
}

/// The switch of the command line with which nothing needs to be named.
pub const TTY: &str = "tty";

/// The guest's shell, which most environments have.
const SHELL: &str = "/bin/sh";

impl CommandLine {
    /// The program and its arguments; none is the guest's interactive shell.
    #[must_use]
    pub fn into_argv(self) -> Vec<Vec<u8>> {
        match self {
            Self::Argv(argv) => argv.into_iter().map(OsString::into_vec).collect(),
            Self::Shell(line) => vec![SHELL.into(), "-c".into(), line.into_vec()],
            Self::Interactive => Vec::new(),
        }
    }
}

impl CommandLine {
    /// What somebody else chose to run; nothing is the guest's interactive shell.
    #[must_use]
    pub fn of_argv(argv: &[Vec<u8>]) -> Self {
        if argv.is_empty() {
            return Self::Interactive;
        }
        Self::Argv(argv.iter().map(|word| OsString::from_vec(word.clone())).collect())
    }

    /// As one line to read; what is not UTF-8 is replaced.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Shell(line) => line.to_string_lossy().into_owned(),
            Self::Argv(argv) => quoted(argv.iter().map(|word| word.as_bytes())),
            Self::Interactive => "interactive shell".into(),
        }
    }
}

impl CommandLine {
    /// The same without secrets, for telling what was asked.
    #[must_use]
    pub(crate) fn without(self, redactor: &Redactor) -> Self {
        let told = |word: OsString| OsString::from_vec(redactor.bytes(word.into_vec()));
        match self {
            Self::Argv(argv) => Self::Argv(argv.into_iter().map(told).collect()),
            Self::Shell(line) => Self::Shell(told(line)),
            Self::Interactive => Self::Interactive,
        }
    }
}

impl<S: Into<OsString>, const N: usize> From<[S; N]> for CommandLine {
    fn from(argv: [S; N]) -> Self {
        Self::Argv(argv.map(Into::into).into())
    }
}

impl<S: Into<OsString>> From<Vec<S>> for CommandLine {
    fn from(argv: Vec<S>) -> Self {
        Self::Argv(argv.into_iter().map(Into::into).collect())
    }
}

/// The two ways in which the command line spells it.
#[derive(Debug, Args)]
#[group(id = "command", required = true, multiple = false)]
struct Words {
    /// Let the guest's `/bin/sh -c` run this line, instead of one program.
    #[arg(long, value_name = "LINE")]
    shell: Option<OsString>,
    /// The program to run and its arguments, passed on exactly as they are.
    #[arg(last = true, value_name = "ARG")]
    argv: Vec<OsString>,
}

impl Args for CommandLine {
    fn augment_args(command: Command) -> Command {
        Words::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Words::augment_args_for_update(command)
    }
}

impl FromArgMatches for CommandLine {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match Words::from_arg_matches(matches)? {
            Words { shell: Some(line), .. } => Ok(Self::Shell(line)),
            Words { argv, .. } if !argv.is_empty() => Ok(Self::Argv(argv)),
            Words { .. } if is_at_terminal(matches) => Ok(Self::Interactive),
            Words { .. } => Err(clap::Error::new(ErrorKind::MissingRequiredArgument)),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn is_at_terminal(matches: &ArgMatches) -> bool {
    // Not every command has the switch.
    matches.try_get_one(TTY).is_ok_and(|switch| switch == Some(&true))
}

/// The two ways in which JSON spells it.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Json<'a> {
    Line(Cow<'a, str>),
    Argv(Vec<Cow<'a, str>>),
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bad = |what| Err(de::Error::custom(what));
        match Json::deserialize(deserializer) {
            Err(_) => bad("a string (for the shell) or an array of strings is needed"),
            Ok(Json::Argv(argv)) if argv.is_empty() => bad("the array is empty"),
            Ok(Json::Line(line)) if line.trim().is_empty() => bad("the string is empty"),
            Ok(Json::Argv(argv)) if argv.iter().any(|word| word.contains('\0')) => {
                bad("an argument holds a NUL character")
            }
            Ok(Json::Line(line)) if line.contains('\0') => bad("the line holds a NUL character"),
            Ok(Json::Argv(argv)) => {
                Ok(Self::Argv(argv.into_iter().map(|word| word.into_owned().into()).collect()))
            }
            Ok(Json::Line(line)) => Ok(Self::Shell(line.into_owned().into())),
        }
    }
}

/// As it was asked; what is not UTF-8 is replaced, for this is for reading only.
impl Serialize for CommandLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = match self {
            Self::Argv(argv) => {
                Json::Argv(argv.iter().map(|word| word.to_string_lossy()).collect())
            }
            Self::Shell(line) => Json::Line(line.to_string_lossy()),
            Self::Interactive => Json::Argv(Vec::new()),
        };
        json.serialize(serializer)
    }
}

impl JsonSchema for CommandLine {
    fn schema_name() -> Cow<'static, str> {
        "CommandLine".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "minLength": 1 },
                { "type": "array", "items": { "type": "string" }, "minItems": 1 },
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_for_the_shell_and_an_array_is_not() {
        let shell: CommandLine = serde_json::from_str(r#""a | b""#).unwrap();
        assert_eq!(shell.into_argv(), [b"/bin/sh".to_vec(), b"-c".to_vec(), b"a | b".to_vec()]);
        let argv: CommandLine = serde_json::from_str(r#"["a", "| b"]"#).unwrap();
        assert_eq!(argv.into_argv(), [b"a".to_vec(), b"| b".to_vec()]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["[]", "\"\"", "\" \"", "3", "[1]", "null", r#""a\u0000b""#, r#"["a\u0000"]"#] {
            assert!(serde_json::from_str::<CommandLine>(bad).is_err(), "{bad}");
        }
    }
}
