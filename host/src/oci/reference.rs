//! What an image is called: `[REGISTRY/]NAME[:TAG][@DIGEST]`, as Docker reads it.

use crate::digest::Sha256;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest registry and name together: what registries take.
const NAME_MAX: usize = 255;

/// The longest tag.
const TAG_MAX: usize = 128;

/// The registry of a reference that names none.
const DOCKER_HUB: &str = "docker.io";

/// What is meant by a reference that has neither tag nor digest.
const LATEST: &str = "latest";

/// A reference with everything in it that may be left out when it is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    name: String,
    version: Version,
}

/// Which of the images of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// Whatever has the tag at the time.
    Tag(String),
    /// This one for ever. The tag is for people.
    Digest(Sha256, Option<String>),
}

/// What is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// Of the registry or its port.
    #[error("its registry is no host with an optional port")]
    Registry,
    /// Of the name: it also has to be lower case.
    #[error("its name is not made of lower-case words with `/` between")]
    Name,
    /// Of the tag.
    #[error("its tag is not 1 to {TAG_MAX} letters, digits, `_`, `.` and `-`")]
    Tag,
    /// Of the digest.
    #[error("its digest is not `sha256:` and 64 hexadecimal digits")]
    Digest,
    /// Together.
    #[error("its name is longer than {NAME_MAX} bytes")]
    TooLong,
}

impl Reference {
    /// The registry's host and port as the reference names it.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The host and port that answer for the registry.
    #[must_use]
    pub fn server(&self) -> &str {
        if self.registry == DOCKER_HUB { "registry-1.docker.io" } else { &self.registry }
    }

    /// The name within the registry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which image of that name.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// Whether the registry is on this host: nobody can listen in on the way.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = host(&self.registry);
        host == "localhost"
            || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
            || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
    }
}

/// The host of `HOST[:PORT]`, without the brackets of an IPv6 address.
fn host(registry: &str) -> &str {
    match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| BadReference::Digest)?)),
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((first, rest)) if is_registry(first) => (first, rest),
            _ => (DOCKER_HUB, rest),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag)),
            None => (rest, None),
        };
        check_registry(registry)?;
        if !name.split('/').all(is_component) {
            return Err(BadReference::Name);
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(BadReference::Tag);
        }
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        let name = match name {
            one if registry == DOCKER_HUB && !one.contains('/') => format!("library/{one}"),
            name => name.to_owned(),
        };
        if registry.len() + 1 + name.len() > NAME_MAX {
            return Err(BadReference::TooLong);
        }
        let tag = tag.map(str::to_owned);
        let version = match digest {
            Some(digest) => Version::Digest(digest, tag),
            None => Version::Tag(tag.unwrap_or_else(|| LATEST.to_owned())),
        };
        Ok(Self { registry: registry.to_owned(), name, version })
    }
}

/// Docker's rule: the first word is a registry if it cannot be part of a name on
/// Docker Hub.
fn is_registry(word: &str) -> bool {
    word == "localhost"
        || word.contains(['.', ':', '['])
        || word.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), BadReference> {
    let (host, rest) = match registry.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(BadReference::Registry)?,
        None => registry.split_at(registry.find(':').unwrap_or(registry.len())),
    };
    let is_host = if registry.starts_with('[') {
        host.parse::<Ipv6Addr>().is_ok()
    } else {
        host.split('.').all(is_label)
    };
    let is_port = match rest.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => rest.is_empty(),
    };
    if is_host && is_port { Ok(()) } else { Err(BadReference::Registry) }
}

fn is_label(label: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    alphanumeric(label.bytes().next())
        && alphanumeric(label.bytes().next_back())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Lower-case letters and digits, with one `.`, one or two `_`, or dashes between.
fn is_component(component: &str) -> bool {
    let separated = |byte: u8| b"._-".contains(&byte);
    let bytes = component.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(|byte| !separated(*byte)))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || separated(*byte))
        && bytes
            .split(|byte| !separated(*byte))
            .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=TAG_MAX).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || b".-".contains(&byte))
}

/// Whole: with its registry, and its tag or digest.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)?;
        match &self.version {
            Version::Tag(tag) | Version::Digest(_, Some(tag)) => write!(f, ":{tag}")?,
            Version::Digest(_, None) => {}
        }
        match &self.version {
            Version::Digest(digest, _) => write!(f, "@{digest}"),
            Version::Tag(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|bad| bad.to_string(), |it| it.to_string())
    }

    #[test]
    fn references_are_read_as_docker_reads_them() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        for (text, reads) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("index.docker.io/busybox:musl", "docker.io/library/busybox:musl"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("ghcr.io/org/app__x:V1.2_rc-1", "ghcr.io/org/app__x:V1.2_rc-1"),
        ] {
            assert_eq!(whole(text), reads, "{text}");
        }
        let pinned = format!("ghcr.io/org/app:1@{digest}");
        assert_eq!(whole(&pinned), pinned);
        assert_eq!(whole(&format!("app@{digest}")), format!("docker.io/library/app@{digest}"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for bad in [
            "",
            ":x",
            "/x",
            "x/",
            "a//b",
            "UPPER",
            "a/../b",
            "a.._b",
            "_a",
            "a:",
            "a: b",
            "a:b/c:d",
            "a@b",
            "a@sha256:0",
            "-a.b/x",
            "a.b:x/y",
            "a.b:99999/y",
            "a.b:+1/y",
            "[::1/x",
            "a b",
            "a\0",
            "https://a.b/c",
            "a.b/c?d",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
        assert!(format!("a.b/{}", "x".repeat(252)).parse::<Reference>().is_err());
        assert!(format!("a:{}", "x".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn what_is_on_this_host_is_known() {
        let is_loopback = |text: &str| text.parse::<Reference>().expect(text).is_loopback();
        for near in
            ["localhost/x", "localhost:1/x", "127.0.0.1:5000/x", "127.9.9.9:1/x", "[::1]:5/x"]
        {
            assert!(is_loopback(near), "{near}");
        }
        for far in
            ["x", "10.0.0.1:5000/x", "localhost.evil.org/x", "127.0.0.1.evil.org/x", "[::2]/x"]
        {
            assert!(!is_loopback(far), "{far}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_reference_means_itself(text in "([a-z]{1,4}\\.[a-z]{1,3}(:[0-9]{1,4})?/)?[a-z0-9]{1,5}(/[a-z0-9]{1,3}){0,2}(:[A-Za-z0-9_]{1,9})?") {
            let reference: Reference = text.parse().expect("it is one");
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[a-z.:/_@\\[\\]-]{0,16}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let whole = reference.to_string();
                prop_assert_eq!(whole.parse(), Ok(reference));
                prop_assert!(!whole.contains("..") && !whole.contains("//"));
            }
        }
    }
}
