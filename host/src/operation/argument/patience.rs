use super::{Number, OutOfBounds};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

/// The bounds, and what JSON means when it says nothing: clients of tools give
/// up after a minute.
type Seconds = Number<0, 45, { 24 * 3600 }>;

/// How long a caller stays with a program, in whole seconds.
///
/// As an argument it is an `Option`: a person at a terminal stays until it ends,
/// a caller in JSON for [`Patience::in_json`], each unless they say otherwise.
/// So it has no default that could be shown for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience(Seconds);

impl Patience {
    /// What JSON means when it says nothing.
    #[must_use]
    pub fn in_json() -> Option<Self> {
        Some(Self(Seconds::default()))
    }

    /// How long.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.get().into())
    }
}

impl FromStr for Patience {
    type Err = OutOfBounds;

    fn from_str(text: &str) -> Result<Self, OutOfBounds> {
        text.parse().map(Self)
    }
}

impl<'de> Deserialize<'de> for Patience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Seconds::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for Patience {
    fn schema_name() -> Cow<'static, str> {
        "Patience".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Seconds::json_schema(generator)
    }
}
