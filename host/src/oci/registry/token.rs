//! Tokens: what a registry wants to be shown, from whom it says gives it.

use super::challenge::{self, Challenge};
use super::credentials::Credentials;
use super::{Registry, read};
use crate::error::{Error, ErrorKind, Result};
use crate::fetch::{Answer, Ask, FetchError, Url};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The longest answer with a token in it.
const ANSWER_MAX: u64 = 1 << 20;

/// Who asks for a token by a token.
const CLIENT: &str = "pyro";

/// An answer with a token in it, by its old and its new name.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

impl Registry<'_> {
    /// Gets what the registry wants to be shown.
    pub(super) async fn authorize(&self, refusal: &Answer) -> Result<HeaderValue> {
        let challenges: Vec<_> =
            refusal.headers(header::WWW_AUTHENTICATE.as_str()).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some((realm, service)),
            Challenge::Basic => None,
        });
        if let (Some(_), Some(Credentials::Token(token))) = (bearer, &self.credentials) {
            return secret(&format!("Bearer {}", token.as_str()));
        }
        if let Some((realm, service)) = bearer {
            return self.token(realm, service.as_deref()).await;
        }
        match &self.credentials {
            Some(Credentials::Login { user, password })
                if challenges.contains(&Challenge::Basic) =>
            {
                basic(user, password)
            }
            Some(_) | None => Err(self.login_needed(refusal.status())),
        }
    }

    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue> {
        let realm = self.realm(realm)?;
        let scope = format!("repository:{}:pull", self.reference.name());
        let mut asked = vec![("scope", scope.as_str())];
        asked.extend(service.map(|service| ("service", service)));
        let (url, ask) = match &self.credentials {
            Some(Credentials::Identity(token)) => {
                asked.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", CLIENT),
                    ("refresh_token", token.as_str()),
                ]);
                let form = Zeroizing::new(query(&asked));
                let form = Some(Bytes::copy_from_slice(form.as_bytes()));
                (realm, Ask { form, ..Ask::default() })
            }
            Some(Credentials::Login { user, password }) => {
                let headers =
                    HeaderMap::from_iter([(header::AUTHORIZATION, basic(user, password)?)]);
                (asking(&realm, &asked)?, Ask { headers, ..Ask::default() })
            }
            Some(Credentials::Token(_)) | None => (asking(&realm, &asked)?, Ask::default()),
        };
        let mut answer = self.fetcher.open(&url, &ask).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.login_needed(answer.status()));
            }
            status => {
                let message = format!("{} answers {status} instead of a token", url.origin());
                return Err(Error::new(ErrorKind::Network, message));
            }
        }
        let text = Zeroizing::new(read(&self.fetcher, &mut answer, ANSWER_MAX).await?);
        let granted: Option<Granted> = serde_json::from_slice(&text).ok();
        let token = granted.and_then(|granted| granted.token.or(granted.access_token));
        let token = token.map(Zeroizing::new).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| {
            Error::new(ErrorKind::Network, format!("{} gives no token", url.origin()))
        })?;
        secret(&format!("Bearer {}", token.as_str()))
    }

    /// Who gives tokens. It has to prove who it is, unless the registry need not
    /// either and it is the same host.
    fn realm(&self, realm: &str) -> Result<Url> {
        let refused = |why: &str| {
            let registry = self.reference.registry();
            Error::new(ErrorKind::Untrusted, format!("{registry} sends for a token to {why}"))
        };
        let url: Url = realm.parse().map_err(|bad| refused("what is no URL").because(bad))?;
        let near = !self.base.is_https() && url.host() == self.base.host();
        if url.is_https() || near {
            Ok(url)
        } else {
            Err(refused(&format!("{}, which proves nothing", url.origin())))
        }
    }
}

fn basic(user: &str, password: &str) -> Result<HeaderValue> {
    let pair = Zeroizing::new(format!("{user}:{password}"));
    secret(&format!("Basic {}", STANDARD.encode(pair.as_bytes())))
}

/// A header that is shown to nobody else and in no message.
fn secret(value: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::new(ErrorKind::Untrusted, "a token is nothing that a header takes"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn asking(realm: &Url, pairs: &[(&str, &str)]) -> Result<Url> {
    realm.asking(&query(pairs)).map_err(|bad| FetchError::from(bad).into())
}

fn query(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        text.bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect::<String>()
    };
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}
