use super::CommandLine;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::ffi::OsString;

/// What to run in the guest, if somebody says so; else it is what the environment
/// says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChosenCommand(pub Option<CommandLine>);

impl ChosenCommand {
    /// The program and its arguments; none if nobody said.
    #[must_use]
    pub fn into_argv(self) -> Vec<Vec<u8>> {
        self.0.map(CommandLine::into_argv).unwrap_or_default()
    }
}

impl<C: Into<CommandLine>> From<C> for ChosenCommand {
    fn from(command: C) -> Self {
        Self(Some(command.into()))
    }
}

/// The two ways in which the command line spells it.
#[derive(Debug, Args)]
#[group(id = "command", required = false, multiple = false)]
struct Words {
    /// Let the guest's `/bin/sh -c` run this line, instead of one program.
    #[arg(long, value_name = "LINE")]
    shell: Option<OsString>,
    /// The program to run and its arguments, passed on exactly as they are;
    /// what the environment's image says if not given.
    #[arg(last = true, value_name = "ARG")]
    argv: Vec<OsString>,
}

impl Args for ChosenCommand {
    fn augment_args(command: Command) -> Command {
        Words::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Words::augment_args_for_update(command)
    }
}

impl FromArgMatches for ChosenCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(match Words::from_arg_matches(matches)? {
            Words { shell: Some(line), .. } => Some(CommandLine::Shell(line)),
            Words { argv, .. } if argv.is_empty() => None,
            Words { argv, .. } => Some(CommandLine::Argv(argv)),
        }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ChosenCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CommandLine::deserialize(deserializer).map(Some).map(Self)
    }
}

impl JsonSchema for ChosenCommand {
    fn schema_name() -> Cow<'static, str> {
        "ChosenCommand".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        CommandLine::json_schema(generator)
    }
}
