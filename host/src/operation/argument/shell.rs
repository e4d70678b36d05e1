use super::Number;
use pyro_protocol::shell::{COLS_MAX, ROWS_MAX, ShellId, TerminalSize};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::str::FromStr;

/// How wide a terminal is: wide enough for most output not to be broken.
pub type Cols = Number<1, 120, { COLS_MAX as u32 }>;

/// How high a terminal is.
pub type Rows = Number<1, 30, { ROWS_MAX as u32 }>;

/// The size that these say.
#[must_use]
pub fn terminal_size(cols: Cols, rows: Rows) -> TerminalSize {
    let fits = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    TerminalSize { cols: fits(cols.get()), rows: fits(rows.get()) }
}

/// A shell of a workspace's, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShellRef(pub ShellId);

/// What is no shell id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shell id is twelve hexadecimal digits, as `shell list` shows them")]
pub struct NoShell;

impl FromStr for ShellRef {
    type Err = NoShell;

    fn from_str(text: &str) -> Result<Self, NoShell> {
        text.parse().map(Self).map_err(|_| NoShell)
    }
}

impl<'de> Deserialize<'de> for ShellRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ShellRef {
    fn schema_name() -> Cow<'static, str> {
        "ShellRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-f]{12}$" })
    }
}
