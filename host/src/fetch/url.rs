//! Where something is to be fetched from.

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use std::fmt;
use std::str::FromStr;

/// A URL of `http` or `https`. It is shown without its query, which may be what
/// lets its bearer in.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    https: bool,
    authority: Authority,
    path: PathAndQuery,
}

/// What is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Or of another kind.
    #[error("that is no URL of http or https")]
    Malformed,
    /// Command lines are no place for secrets: other users read them.
    #[error("user names and passwords in URLs are not taken")]
    Credentials,
}

impl Url {
    fn new(https: bool, authority: &str, path: &str) -> Result<Self, BadUrl> {
        if authority.contains('@') {
            return Err(BadUrl::Credentials);
        }
        let authority: Authority = authority.parse().map_err(|_| BadUrl::Malformed)?;
        let whole = match authority.port_u16() {
            Some(_) => authority.as_str().rsplit_once(':').map(|(host, _)| host),
            None => Some(authority.as_str()),
        };
        if authority.host().is_empty() || whole != Some(authority.host()) {
            return Err(BadUrl::Malformed);
        }
        let path = path.parse().map_err(|_| BadUrl::Malformed)?;
        Ok(Self { https, authority, path })
    }

    /// Whether the server has to prove who it is.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The scheme and the host, for errors.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme(), self.authority)
    }

    /// Where a reference in an answer to a request for this leads.
    ///
    /// # Errors
    /// When it is no URL that can be fetched.
    pub fn join(&self, reference: &str) -> Result<Self, BadUrl> {
        let reference = reference.split('#').next().unwrap_or_default();
        if reference.contains("://") && !reference.starts_with(['/', '.', '?']) {
            return reference.parse();
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return format!("{}://{rest}", self.scheme()).parse();
        }
        let path = if reference.starts_with('/') {
            reference.to_owned()
        } else if reference.starts_with('?') {
            format!("{}{reference}", self.path.path())
        } else {
            let (directory, _) = self.path.path().rsplit_once('/').unwrap_or_default();
            format!("{directory}/{reference}")
        };
        Self::new(self.https, self.authority.as_str(), &path)
    }

    /// The host alone.
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The same with a query behind what it has of one.
    ///
    /// # Errors
    /// When the query is none.
    pub fn asking(&self, query: &str) -> Result<Self, BadUrl> {
        let sign = if self.path.query().is_some() { '&' } else { '?' };
        Self::new(self.https, self.authority.as_str(), &format!("{}{sign}{query}", self.path))
    }

    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }

    /// As a proxy is told it.
    pub(super) fn whole(&self) -> Uri {
        let mut parts = hyper::http::uri::Parts::default();
        parts.scheme = Some(if self.https { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(self.path.clone());
        // It has all three parts; nothing else can be wrong with them.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// As the server itself is told it.
    pub(super) fn path(&self) -> Uri {
        Uri::from(self.path.clone())
    }

    /// As the `Host` header says it.
    pub(super) fn host_header(&self) -> HeaderValue {
        // What an authority may have, a header may have.
        HeaderValue::from_str(self.authority.as_str())
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Malformed)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(BadUrl::Malformed),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self::new(https, authority, &format!("{slash}{path}"))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(base: &str, reference: &str) -> String {
        let base: Url = base.parse().expect("a URL");
        base.join(reference).map_or_else(|error| error.to_string(), |url| url.whole().to_string())
    }

    #[test]
    fn references_lead_where_browsers_go() {
        let base = "https://one.example/a/b?c=d";
        for (reference, leads) in [
            ("https://two.example/x?y=z#there", "https://two.example/x?y=z"),
            ("http://two.example", "http://two.example/"),
            ("//two.example/x", "https://two.example/x"),
            ("/x", "https://one.example/x"),
            ("x", "https://one.example/a/x"),
            ("?x=https://three.example", "https://one.example/a/b?x=https://three.example"),
            ("file:///etc/passwd", "that is no URL of http or https"),
            ("https://me:secret@two.example/", "user names and passwords in URLs are not taken"),
        ] {
            assert_eq!(joined(base, reference), leads, "{reference}");
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_refused() {
        for bad in ["", "x", "ftp://a/b", "https://", "https:///x", "http://a:b/", "http://a b/"] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
        assert!("HTTP://[::1]:8080/x".parse::<Url>().is_ok());
    }

    #[test]
    fn a_query_is_not_shown() {
        let url: Url = "https://a.example/b?sig=secret".parse().expect("a URL");
        assert_eq!(format!("{url} {url:?}"), "https://a.example/b https://a.example/b");
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, reference: String) {
            let base: Url = "https://a.example/b".parse().expect("a URL");
            for url in [text.parse::<Url>(), base.join(&reference)].into_iter().flatten() {
                prop_assert!(url.whole().authority().is_some());
                prop_assert!(!url.host_header().is_empty());
            }
        }
    }
}
