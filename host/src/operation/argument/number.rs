use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// How many virtual CPUs a machine has.
pub type VcpuCount = Number<1, 1, 32>;

/// How much memory a machine has. What the host can spare bounds it above.
pub type MemMib = Number<128, 1024, { u32::MAX }>;

/// How large a workspace's file system is.
pub type DiskMib = Number<64, { 16 * 1024 }, { 64 * 1024 }>;

/// How long a workspace lives unless it is renewed: from ten seconds, which is
/// for trying it out, to a good century.
pub type TtlSeconds = Number<10, 3600, { u32::MAX }>;

/// How long a guest's program may take; 0 is no limit. Ten minutes: long enough
/// for a build, short enough for a model that started a server in the
/// foreground.
pub type TimeoutSeconds = Number<0, 600, { u32::MAX }>;

/// How much of a guest's output an answer holds, in bytes for each stream. The
/// default does not flood a model; the most is what a JSON document can bear.
pub type OutputLimit = Number<0, { 64 * 1024 }, { 16 * 1024 * 1024 }>;

/// A whole number from `MIN` to `MAX`, `DEFAULT` when it is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Number<const MIN: u32, const DEFAULT: u32, const MAX: u32>(u32);

/// A number is too small or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBounds {
    min: u32,
    max: u32,
}

impl fmt::Display for OutOfBounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {} to {} is needed", self.min, self.max)
    }
}

impl std::error::Error for OutOfBounds {}

impl<const MIN: u32, const DEFAULT: u32, const MAX: u32> Number<MIN, DEFAULT, MAX> {
    /// Checks the bounds.
    ///
    /// # Errors
    /// When the number is outside them.
    pub const fn new(number: u32) -> Result<Self, OutOfBounds> {
        if MIN <= number && number <= MAX {
            Ok(Self(number))
        } else {
            Err(OutOfBounds { min: MIN, max: MAX })
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl<const MIN: u32, const DEFAULT: u32, const MAX: u32> Default for Number<MIN, DEFAULT, MAX> {
    fn default() -> Self {
        const { assert!(MIN <= DEFAULT && DEFAULT <= MAX) };
        Self(DEFAULT)
    }
}

impl<const MIN: u32, const DEFAULT: u32, const MAX: u32> fmt::Display
    for Number<MIN, DEFAULT, MAX>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MIN: u32, const DEFAULT: u32, const MAX: u32> TryFrom<u32>
    for Number<MIN, DEFAULT, MAX>
{
    type Error = OutOfBounds;

    fn try_from(number: u32) -> Result<Self, OutOfBounds> {
        Self::new(number)
    }
}

impl<const MIN: u32, const DEFAULT: u32, const MAX: u32> FromStr for Number<MIN, DEFAULT, MAX> {
    type Err = OutOfBounds;

    fn from_str(text: &str) -> Result<Self, OutOfBounds> {
        match text.parse() {
            Ok(number) => Self::new(number),
            Err(_) => Err(OutOfBounds { min: MIN, max: MAX }),
        }
    }
}

impl<'de, const MIN: u32, const DEFAULT: u32, const MAX: u32> Deserialize<'de>
    for Number<MIN, DEFAULT, MAX>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        // Some clients write every number as a float.
        let whole = number.as_u64().or_else(|| {
            number.as_f64().filter(|float| float.fract() == 0.0 && *float >= 0.0).map(|f| f as u64)
        });
        let fits = whole.and_then(|whole| u32::try_from(whole).ok()).map(Self::new);
        fits.unwrap_or(Err(OutOfBounds { min: MIN, max: MAX })).map_err(de::Error::custom)
    }
}

impl<const MIN: u32, const DEFAULT: u32, const MAX: u32> JsonSchema for Number<MIN, DEFAULT, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("NumberFrom{MIN}To{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": "integer", "minimum": MIN });
        if MAX < u32::MAX {
            schema.insert("maximum".into(), MAX.into());
        }
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Number<1, 2, 3>;

    #[test]
    fn bounds_hold_for_words_and_json() {
        for (text, expected) in [("0", None), ("1", Some(1)), ("3", Some(3)), ("4", None)] {
            assert_eq!(text.parse::<Small>().ok().map(Small::get), expected, "{text}");
            let json: Option<Small> = serde_json::from_str(text).ok();
            assert_eq!(json.map(Small::get), expected, "{text}");
        }
        assert_eq!(Small::default().get(), 2);
    }

    #[test]
    fn floats_count_when_whole() {
        assert_eq!(serde_json::from_str::<Small>("2.0").ok().map(Small::get), Some(2));
        for bad in ["2.5", "-1", "1e99", "\"2\"", "null"] {
            assert!(serde_json::from_str::<Small>(bad).is_err(), "{bad}");
        }
    }
}
