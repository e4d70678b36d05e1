use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// The names of the signals from 1 on, as Linux on x86-64 numbers them.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The largest signal that Linux knows; those above the named ones are
/// real-time signals.
const MAX: u8 = 64;

/// A signal, by its name, with or without `SIG`, or its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalRef(u8);

/// What is no signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a signal is a name such as TERM, INT or KILL, or a number from 1 to {MAX}")]
pub struct NoSignal;

impl SignalRef {
    /// The one that Ctrl-C sends.
    pub const INTERRUPT: Self = Self(2);

    /// Its number in the guest.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }
}

impl Default for SignalRef {
    /// The one that asks a program to end.
    fn default() -> Self {
        Self(15)
    }
}

impl fmt::Display for SignalRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl FromStr for SignalRef {
    type Err = NoSignal;

    fn from_str(text: &str) -> Result<Self, NoSignal> {
        if let Ok(number @ 1..=MAX) = text.parse() {
            return Ok(Self(number));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let at = NAMES.iter().position(|known| *known == name).ok_or(NoSignal)?;
        u8::try_from(at + 1).map(Self).map_err(|_| NoSignal)
    }
}

/// A name, or a number as it is.
#[derive(Deserialize)]
#[serde(untagged)]
enum Json {
    Name(String),
    Number(u8),
}

impl<'de> Deserialize<'de> for SignalRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Json::deserialize(deserializer) {
            Ok(Json::Name(name)) => name,
            Ok(Json::Number(number)) => number.to_string(),
            Err(_) => return Err(de::Error::custom(NoSignal)),
        };
        text.parse().map_err(de::Error::custom)
    }
}

impl serde::Serialize for SignalRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SignalRef {
    fn schema_name() -> Cow<'static, str> {
        "SignalRef".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for (text, number) in
            [("TERM", 15), ("sigint", 2), ("9", 9), ("SIGKILL", 9), ("sys", 31), ("64", 64)]
        {
            assert_eq!(text.parse().map(SignalRef::number), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "-9", "SIG", "SIGSIGTERM", "TERMINATE", "9 "] {
            assert!(bad.parse::<SignalRef>().is_err(), "{bad:?}");
        }
        assert_eq!(SignalRef::default().to_string(), "TERM");
        assert_eq!(serde_json::from_str::<SignalRef>("15").ok(), Some(SignalRef::default()));
        assert!(serde_json::from_str::<SignalRef>("0").is_err());
    }
}
