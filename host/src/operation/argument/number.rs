use crate::egress::FLOWS_MAX;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// How many virtual CPUs a machine has.
pub type VcpuCount = Number<1, 1, 32>;

/// How much memory a machine has. What the host can spare bounds it above.
pub type MemMib = Number<128, 1024, { u32::MAX }>;

/// How large a workspace's file system is.
pub type DiskMib = Number<64, { 16 * 1024 }, { 64 * 1024 }>;

/// How much a disk moves in a second, in MiB: up to what no disk does, which a
/// VMM can still count in bytes.
pub type DiskMibPerSecond = Number<1, 100, { 1 << 20 }>;

/// How many reads and writes a disk does in a second.
pub type DiskOpsPerSecond = Number<1, 1000, { 1 << 20 }>;

/// How many connections and datagram flows a network has at the same time.
pub type NetworkConnections = Number<1, FLOWS_MAX, FLOWS_MAX>;

/// How much passes through a network in a second, in KiB: from what carries one of
/// the guest's longest packets in four seconds, to what no network does.
pub type NetworkKibPerSecond = Number<16, 1024, { 1 << 24 }>;

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

    /// The number, of a kind that is never zero.
    #[must_use]
    pub const fn positive(self) -> NonZeroU32 {
        const { assert!(MIN > 0) };
        NonZeroU32::new(self.0).expect("its least is more than zero")
    }
}

impl TimeoutSeconds {
    /// For how long, if there is a limit.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        (self.0 > 0).then(|| Duration::from_secs(self.0.into()))
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
        let out_of_bounds = OutOfBounds { min: MIN, max: MAX };
        let number = whole(deserializer).map_err(|_| de::Error::custom(out_of_bounds))?;
        let fits = u32::try_from(number).map_err(|_| out_of_bounds).and_then(Self::new);
        fits.map_err(de::Error::custom)
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

/// Reads a whole number without bounds of its own, as clients spell it.
pub(crate) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    // Some clients write every number as a float.
    let float = || {
        // Beyond this a float does not say which number is meant.
        let exact = 0.0..=(1_u64 << f64::MANTISSA_DIGITS) as f64;
        number.as_f64().filter(|float| float.fract() == 0.0 && exact.contains(float))
    };
    number
        .as_u64()
        .or_else(|| float().map(|float| float as u64))
        .ok_or_else(|| de::Error::custom("a whole number from 0 is needed"))
}

/// Reads an optional [`u64`] or [`u32`] field.
pub(crate) fn maybe_count<'de, D, N>(deserializer: D) -> Result<Option<N>, D::Error>
where
    D: Deserializer<'de>,
    N: TryFrom<u64>,
{
    N::try_from(whole(deserializer)?)
        .map(Some)
        .map_err(|_| de::Error::custom("the number is too large"))
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
