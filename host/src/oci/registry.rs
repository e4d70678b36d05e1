//! A registry, as the OCI's distribution specification has it: manifests and blobs
//! by their digests, behind a token if it asks for one.
//!
//! What is secret goes to the registry and to where it sends for tokens, never to
//! where it sends for content, and into no message.

pub mod challenge;
mod credentials;
mod token;

#[cfg(test)]
mod tests;

use super::document::{BYTES_MAX, Descriptor};
use super::reference::{Reference, Version};
use crate::config::{Config, Network};
use crate::digest::{Measured, Sha256};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Events};
use crate::fetch::{Answer, Ask, FetchError, Fetcher, Patience, Url};
use credentials::Credentials;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderValue};
use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;

/// The documents that are taken for a manifest.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How often a blob that broke off is taken up again, as long as each time brings
/// some of it.
const RESUMES_MAX: usize = 16;

/// How long one blob may take, however steadily it trickles.
const BLOB_MAX: Duration = Duration::from_secs(6 * 60 * 60);

/// After how many bytes of a blob its progress is told again.
const STEP_BYTES: u64 = 16 << 20;

/// Whether a registry that proves nothing may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// Only on this host.
    Loopback,
    /// Wherever it is: its owner says so.
    Anywhere,
}

/// A registry, asked for one name.
#[derive(Debug)]
pub struct Registry<'a> {
    fetcher: Fetcher,
    reference: &'a Reference,
    base: Url,
    credentials: Option<Credentials>,
    /// What the registry wants to be shown.
    authorization: Option<HeaderValue>,
    events: &'a Events,
}

/// The two kinds of things that a registry has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A manifest or an index.
    Manifest,
    /// A configuration or a layer.
    Blob,
}

impl<'a> Registry<'a> {
    /// Finds out how a registry is spoken to. What the user has to log in with is
    /// looked up, and shown only when it is asked for.
    ///
    /// # Errors
    /// When it cannot be reached in a way that is allowed, or the file with
    /// credentials is damaged.
    pub async fn connect(
        config: &Config,
        reference: &'a Reference,
        plain: Plain,
        patience: Patience,
        events: &'a Events,
    ) -> Result<Self> {
        let network = if reference.is_loopback() {
            // A proxy's loopback is another one.
            Network { http_proxy: None, https_proxy: None, ..config.network.clone() }
        } else {
            config.network.clone()
        };
        let fetcher = Fetcher::new(&network, patience);
        let base = base(&fetcher, reference, plain).await?;
        let credentials = credentials::find(config, reference.registry()).await?;
        Ok(Self { fetcher, reference, base, credentials, authorization: None, events })
    }

    /// The document that the reference leads to, and its digest.
    ///
    /// # Errors
    /// `NotFound` when there is none; when the registry does not give it, or gives
    /// another one.
    pub async fn resolve(&mut self) -> Result<(Sha256, Vec<u8>)> {
        let (version, wanted) = match self.reference.version() {
            Version::Tag(tag) => (tag.clone(), None),
            Version::Digest(digest, _) => (digest.to_string(), Some(*digest)),
        };
        let text = self.text(Part::Manifest, &version).await?;
        let digest = Sha256::of(&text);
        match wanted {
            Some(wanted) if wanted != digest => Err(self.other(&wanted.to_string(), digest)),
            Some(_) | None => Ok((digest, text)),
        }
    }

    /// A document by its digest.
    ///
    /// # Errors
    /// As [`Registry::resolve`].
    pub async fn document(&mut self, part: Part, what: &Descriptor) -> Result<Vec<u8>> {
        let text = self.text(part, &what.digest.to_string()).await?;
        let is = Sha256::of(&text);
        if is == what.digest { Ok(text) } else { Err(self.other(&what.digest.to_string(), is)) }
    }

    async fn text(&mut self, part: Part, version: &str) -> Result<Vec<u8>> {
        let mut headers = HeaderMap::new();
        if part == Part::Manifest {
            headers.insert(header::ACCEPT, HeaderValue::from_static(MANIFESTS));
        }
        let url = self.url(part, version)?;
        let mut answer = self.ask(&url, Ask { headers, ..Ask::default() }).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.refused(&answer));
        }
        read(&self.fetcher, &mut answer, BYTES_MAX).await
    }

    /// Fetches a blob into a file, going on behind what the file has already. The
    /// file is the whole blob afterwards; after an error it is as much as came, or
    /// nothing if what came was wrong.
    ///
    /// # Errors
    /// When it does not come, or is not what its digest says.
    pub async fn blob(&mut self, what: &Descriptor, path: &Path, told: &str) -> Result<()> {
        let fetched = timeout(BLOB_MAX, self.fetch(what, path, told)).await;
        fetched.map_err(|_| {
            let hours = BLOB_MAX.as_secs() / 3600;
            Error::new(ErrorKind::TimedOut, format!("{told} took longer than {hours} h"))
        })??;
        let file = path.to_owned();
        let is = crate::blocking::blocking(move || {
            let measured = std::fs::File::open(&file).and_then(Sha256::of_reader);
            measured.map_err(|error| Error::io("cannot read what was fetched", error))
        })
        .await?;
        if is == what.digest {
            return Ok(());
        }
        // Nothing of it can be trusted to be the beginning of the right one.
        drop(tokio::fs::remove_file(path).await);
        Err(self.other(&what.digest.to_string(), is))
    }

    async fn fetch(&mut self, what: &Descriptor, path: &Path, told: &str) -> Result<()> {
        let unwritable = |error| Error::io("cannot write what is fetched", error);
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).await.map_err(unwritable)?;
        let mut have = file.metadata().await.map_err(unwritable)?.len();
        if have > what.size {
            have = 0;
        }
        let mut resumes = 0;
        while have < what.size || have == 0 {
            let before = have;
            match self.attempt(what, &mut file, &mut have, told).await {
                Ok(()) if have >= what.size => break,
                Ok(()) => {}
                Err(Attempt::Passing(error)) if have > before && resumes < RESUMES_MAX => {
                    self.events.emit(Event::Progress(format!("{error}; going on"))).await;
                }
                Err(Attempt::Passing(error)) => return Err(error.into()),
                Err(Attempt::Final(error)) => return Err(error),
            }
            resumes += 1;
            if have <= before || resumes > RESUMES_MAX {
                let message = format!("{told} ends after {have} of {} bytes", what.size);
                return Err(Error::new(ErrorKind::Network, message).hint("try again: it goes on"));
            }
        }
        file.set_len(have).await.map_err(unwritable)?;
        file.sync_data().await.map_err(unwritable)
    }

    /// Fetches the rest of a blob, as far as it comes.
    async fn attempt(
        &mut self,
        what: &Descriptor,
        file: &mut File,
        have: &mut u64,
        told: &str,
    ) -> Result<(), Attempt> {
        let unwritable = |error| Attempt::Final(Error::io("cannot write what is fetched", error));
        let url = self.url(Part::Blob, &what.digest.to_string())?;
        let ask = Ask { from: (*have > 0).then_some(*have), ..Ask::default() };
        let mut answer = self.ask_passing(&url, ask).await?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT if answer.begin() == Some(*have) => {}
            // All of it, also where the rest was asked for.
            StatusCode::OK => *have = 0,
            _ => return Err(self.refused(&answer).into()),
        }
        file.set_len(*have).await.map_err(unwritable)?;
        file.seek(SeekFrom::Start(*have)).await.map_err(unwritable)?;
        let mut next_step = *have + STEP_BYTES;
        while let Some(chunk) = self.fetcher.next(&mut answer, *have).await? {
            if chunk.len() as u64 > what.size - *have {
                let message = format!("{told} has more than the {} bytes it should", what.size);
                return Err(Error::new(ErrorKind::Untrusted, message).into());
            }
            file.write_all(&chunk).await.map_err(unwritable)?;
            *have += chunk.len() as u64;
            if *have >= next_step {
                next_step = *have + STEP_BYTES;
                let (have, all) = (*have >> 20, what.size >> 20);
                self.events.emit(Event::Progress(format!("{told}: {have} of {all} MiB"))).await;
            }
        }
        file.flush().await.map_err(unwritable)
    }

    fn url(&self, part: Part, version: &str) -> Result<Url> {
        let part = match part {
            Part::Manifest => "manifests",
            Part::Blob => "blobs",
        };
        let path = format!("/v2/{}/{part}/{version}", self.reference.name());
        self.base.join(&path).map_err(|bad| Error::from(FetchError::from(bad)))
    }

    async fn ask(&mut self, url: &Url, ask: Ask) -> Result<Answer> {
        self.ask_passing(url, ask).await.map_err(|attempt| match attempt {
            Attempt::Passing(error) => error.into(),
            Attempt::Final(error) => error,
        })
    }

    /// Asks, and shows what the registry wants to see.
    async fn ask_passing(&mut self, url: &Url, mut ask: Ask) -> Result<Answer, Attempt> {
        for is_first in [true, false] {
            if let Some(authorization) = &self.authorization {
                ask.headers.insert(header::AUTHORIZATION, authorization.clone());
            }
            let answer = self.fetcher.open(url, &ask).await?;
            // Another server's refusal is nobody's question.
            let is_asked = answer.status() == StatusCode::UNAUTHORIZED
                && answer.url().origin() == url.origin();
            if !is_asked || !is_first {
                return Ok(answer);
            }
            self.authorization = Some(self.authorize(&answer).await?);
        }
        Err(Error::new(ErrorKind::Internal, "a registry was asked twice").into())
    }

    fn refused(&self, answer: &Answer) -> Error {
        let (registry, reference) = (self.reference.registry(), self.reference);
        let status = answer.status();
        match status {
            StatusCode::NOT_FOUND => {
                Error::new(ErrorKind::NotFound, format!("{registry} has no image {reference}"))
                    .hint("is its name right, and does it exist for you? `docker login` if not")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.login_needed(status),
            StatusCode::TOO_MANY_REQUESTS => {
                let message = format!("{registry} has had too many requests from here");
                Error::new(ErrorKind::Network, message)
                    .hint(format!("try later, or `docker login {registry}` for a higher limit"))
            }
            _ => {
                let message = format!("{registry} answers {status} for {reference}");
                Error::new(ErrorKind::Network, message)
            }
        }
    }

    fn login_needed(&self, status: StatusCode) -> Error {
        let (registry, reference) = (self.reference.registry(), self.reference);
        let message = match self.credentials {
            Some(_) => format!("{registry} does not let you have {reference} ({status})"),
            None => format!("{registry} wants a login for {reference} ({status})"),
        };
        Error::new(ErrorKind::Network, message)
            .hint(format!("`docker login {registry}` writes what pyro reads"))
    }

    fn other(&self, wanted: &str, is: Sha256) -> Error {
        let message = format!("{} gave {is} for {wanted}", self.reference.registry());
        Error::new(ErrorKind::Untrusted, message)
            .hint("it may have been damaged on the way: try again")
    }
}

/// How an attempt failed.
enum Attempt {
    /// The same may go well a moment later.
    Passing(FetchError),
    Final(Error),
}

impl From<FetchError> for Attempt {
    fn from(error: FetchError) -> Self {
        if error.is_passing() { Self::Passing(error) } else { Self::Final(error.into()) }
    }
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Where a registry answers. Elsewhere over TLS, and in the clear only if that does
/// not work and somebody allowed it; on this host the other way round.
async fn base(fetcher: &Fetcher, reference: &Reference, plain: Plain) -> Result<Url> {
    let at = |scheme: &str| {
        let url: Result<Url, _> = format!("{scheme}://{}/v2/", reference.server()).parse();
        url.map_err(|bad| Error::from(FetchError::from(bad)))
    };
    let (secure, clear) = (at("https")?, at("http")?);
    if reference.is_loopback()
        && let Ok(answer) = fetcher.open(&clear, &Ask::default()).await
        // What a server of TLS answers to whom it does not understand.
        && answer.status() != StatusCode::BAD_REQUEST
        && !answer.url().is_https()
    {
        return Ok(clear);
    }
    let error = match fetcher.open(&secure, &Ask::default()).await {
        Ok(_) => return Ok(secure),
        Err(error) => error,
    };
    let may_be_clear = match &error {
        FetchError::Unreachable { .. }
        | FetchError::Silent { .. }
        | FetchError::NoCertificates(_) => plain == Plain::Anywhere,
        FetchError::Url(_)
        | FetchError::Slow { .. }
        | FetchError::Refused { .. }
        | FetchError::Astray { .. }
        | FetchError::TooLarge { .. }
        | FetchError::Broken { .. }
        | FetchError::Write(_) => false,
    };
    if may_be_clear && fetcher.open(&clear, &Ask::default()).await.is_ok() {
        return Ok(clear);
    }
    // What went wrong where it should have gone well is more telling.
    Err(error.into())
}

/// All of an answer, if it is not too long.
async fn read(fetcher: &Fetcher, answer: &mut Answer, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = fetcher.next(answer, bytes.len() as u64).await? {
        if (bytes.len() + chunk.len()) as u64 > bytes_max {
            let too_large = FetchError::TooLarge { url: answer.url().clone(), bytes_max };
            return Err(too_large.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
