//! Where probes of readiness look: addresses in the guest that need no resolver,
//! so that a look never waits for one.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest address: a bracketed IPv6 address and a port.
pub const ADDRESS_MAX: usize = 64;

/// The longest URL.
pub const URL_MAX: usize = 2048;

/// The port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// `HOST:PORT` in the guest, where the host is an IPv4 address, an IPv6 address
/// in brackets, or `localhost`, which is both loopback addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub struct TcpAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Localhost,
    Ip(IpAddr),
}

/// A text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an address in the guest is HOST:PORT, with `localhost`, an IPv4 address or an IPv6 address \
     in brackets, and a port from 1 to 65535"
)]
pub struct BadAddress;

/// `http://HOST[:PORT][/PATH]` in the guest, the host as in a [`TcpAddress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "String"))]
pub struct HttpUrl {
    url: String,
    authority: usize,
    address: TcpAddress,
}

/// A text that is no URL that a probe can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// It is no `http://` URL.
    #[error("a probe asks for `http://HOST[:PORT][/PATH]`, in ASCII, without user or fragment")]
    Syntax,
    /// Its host or port is none.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// See [`URL_MAX`].
    #[error("the URL is longer than {URL_MAX} bytes")]
    TooLong,
}

impl TcpAddress {
    /// What to connect to, one after the other.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let (first, second) = match self.host {
            Host::Ip(ip) => (ip, None),
            Host::Localhost => {
                (Ipv4Addr::LOCALHOST.into(), Some(IpAddr::from(Ipv6Addr::LOCALHOST)))
            }
        };
        let port = self.port;
        std::iter::once(first).chain(second).map(move |ip| SocketAddr::new(ip, port))
    }
}

impl FromStr for TcpAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(BadAddress)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or(BadAddress)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(ip) => Host::Ip(IpAddr::V6(ip.parse().map_err(|_| BadAddress)?)),
            None if host == "localhost" => Host::Localhost,
            None => Host::Ip(IpAddr::V4(host.parse().map_err(|_| BadAddress)?)),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Host::Localhost => write!(f, "localhost:{}", self.port),
            Host::Ip(ip) => SocketAddr::new(ip, self.port).fmt(f),
        }
    }
}

impl TryFrom<String> for TcpAddress {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Self, BadAddress> {
        text.parse()
    }
}

impl From<TcpAddress> for String {
    fn from(address: TcpAddress) -> Self {
        address.to_string()
    }
}

impl HttpUrl {
    const SCHEME: &str = "http://";

    /// What to connect to.
    #[must_use]
    pub fn address(&self) -> &TcpAddress {
        &self.address
    }

    /// The host and port as they were written, for the request's `Host`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.url[Self::SCHEME.len()..self.authority]
    }

    /// The path and query to ask for.
    #[must_use]
    pub fn target(&self) -> &str {
        match &self.url[self.authority..] {
            "" => "/",
            target => target,
        }
    }
}

impl TryFrom<String> for HttpUrl {
    type Error = BadUrl;

    fn try_from(url: String) -> Result<Self, BadUrl> {
        if url.len() > URL_MAX {
            return Err(BadUrl::TooLong);
        }
        // What could end the request line early is refused with the rest.
        let printable = url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let rest = url.strip_prefix(Self::SCHEME).filter(|_| printable).ok_or(BadUrl::Syntax)?;
        let length = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(length);
        // A target begins with a slash; `http://host?x` has none.
        if target.starts_with('?') || host.contains('@') {
            return Err(BadUrl::Syntax);
        }
        let named = host.ends_with(']') || !host.contains(':');
        let address =
            if named { format!("{host}:{HTTP_PORT}") } else { host.to_owned() }.parse()?;
        let authority = Self::SCHEME.len() + length;
        Ok(Self { url, authority, address })
    }
}

impl FromStr for HttpUrl {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        url.to_owned().try_into()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> Self {
        url.url
    }
}

const _: () = assert!("[0000:0000:0000:0000:0000:0000:255.255.255.255]:65535".len() <= ADDRESS_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_need_no_resolver() {
        for good in ["127.0.0.1:80", "0.0.0.0:1", "[::1]:65535", "localhost:8080"] {
            assert_eq!(good.parse::<TcpAddress>().map(String::from).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ":80",
            "80",
            "127.0.0.1",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "127.0.0.1:+8",
            "::1:80",
        ] {
            assert_eq!(bad.parse::<TcpAddress>(), Err(BadAddress), "{bad}");
        }
        for bad in ["example.org:80", "[127.0.0.1]:80", "[::1]", "localhost:", "LOCALHOST:1"] {
            assert_eq!(bad.parse::<TcpAddress>(), Err(BadAddress), "{bad}");
        }
        let localhost: TcpAddress = "localhost:7".parse().expect("an address");
        let sockets: Vec<_> = localhost.sockets().map(|socket| socket.to_string()).collect();
        assert_eq!(sockets, ["127.0.0.1:7", "[::1]:7"]);
    }

    #[test]
    fn urls_are_split_into_what_a_request_needs() {
        for (url, authority, target, socket) in [
            ("http://127.0.0.1", "127.0.0.1", "/", "127.0.0.1:80"),
            ("http://localhost:8000/a?b=c", "localhost:8000", "/a?b=c", "127.0.0.1:8000"),
            ("http://[::1]/", "[::1]", "/", "[::1]:80"),
            ("http://[::1]:9/x@y", "[::1]:9", "/x@y", "[::1]:9"),
        ] {
            let parsed: HttpUrl = url.parse().expect(url);
            assert_eq!((parsed.authority(), parsed.target()), (authority, target));
            assert_eq!(
                parsed.address().sockets().next().map(|s| s.to_string()).as_deref(),
                Some(socket)
            );
            assert_eq!(parsed.to_string(), url);
        }
        for bad in [
            "https://127.0.0.1/",
            "127.0.0.1:80",
            "http://",
            "http://example.org/",
            "http://u@127.0.0.1/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\nX: y",
            "http://127.0.0.1/#x",
            "http://127.0.0.1?x",
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
        }
        assert_eq!(
            format!("http://127.0.0.1/{}", "x".repeat(URL_MAX)).parse::<HttpUrl>(),
            Err(BadUrl::TooLong)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_is_taken_apart_without_a_panic(text: String, rest in "[ -~]{0,40}") {
            for text in [text.clone(), format!("http://{rest}"), format!("http://{text}"), rest] {
                if let Ok(url) = text.parse::<HttpUrl>() {
                    prop_assert!(url.target().starts_with('/'));
                    prop_assert_eq!(url.to_string().parse::<HttpUrl>(), Ok(url));
                }
                if let Ok(address) = text.parse::<TcpAddress>() {
                    prop_assert!(address.to_string().len() <= ADDRESS_MAX);
                    prop_assert_eq!(address.to_string().parse::<TcpAddress>(), Ok(address));
                }
            }
        }
    }
}
