use crate::published::Mapping;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A TCP port of the guest, maybe with the one on the host: `[HOST:]GUEST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapping(pub Mapping);

/// What is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port is PORT or HOST_PORT:GUEST_PORT, each from 1 to 65535")]
pub struct NoPort;

impl FromStr for PortMapping {
    type Err = NoPort;

    fn from_str(text: &str) -> Result<Self, NoPort> {
        let (host, guest) = match text.split_once(':') {
            Some((host, guest)) => (Some(port(host)?), guest),
            None => (None, text),
        };
        Ok(Self(Mapping { host_port: host, guest_port: port(guest)? }))
    }
}

fn port(text: &str) -> Result<NonZeroU16, NoPort> {
    // A sign is no part of a port.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(NoPort)
}

impl<'de> Deserialize<'de> for PortMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for PortMapping {
    fn schema_name() -> Cow<'static, str> {
        "PortMapping".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]{1,5}:)?[0-9]{1,5}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_with_a_colon_at_most() {
        let at = |host, guest| {
            let port = |port| NonZeroU16::new(port).expect("not zero");
            PortMapping(Mapping { host_port: Option::map(host, port), guest_port: port(guest) })
        };
        assert_eq!("80".parse(), Ok(at(None, 80)));
        assert_eq!("8080:80".parse(), Ok(at(Some(8080), 80)));
        assert_eq!("65535:1".parse(), Ok(at(Some(65535), 1)));
        for bad in ["", ":", "80:", ":80", "0", "0:80", "65536", "+80", "80:80:80", "127.0.0.1:80"]
        {
            assert_eq!(bad.parse::<PortMapping>(), Err(NoPort), "{bad}");
        }
    }
}
