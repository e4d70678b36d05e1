//! Files from elsewhere, over HTTP: through the user's proxy, trusting whom the
//! user's system trusts. Every silence has a deadline, every size a limit, and a
//! connection that breaks is taken up where it broke.
//!
//! What arrives is whatever the other side sent: whoever asked compares it with
//! a digest.

mod connect;
mod failure;
mod url;

#[cfg(test)]
pub(crate) mod serving;
#[cfg(test)]
mod tests;

pub use failure::FetchError;
pub use url::{BadUrl, Url};

use crate::config::Network;
use crate::event::{Event, Events};
use connect::{Connector, NotConnected};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use std::io::SeekFrom;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// How often a server may send us elsewhere. Downloads of GitHub's take one hop,
/// registries two or three.
const REDIRECTS_MAX: usize = 8;

/// How often a broken download is taken up again.
const RESUMES_MAX: usize = 4;

/// How many steps of progress are told where the size is known, and what a step
/// is where it is not.
const STEPS: u64 = 10;
const STEP_BYTES: u64 = 8 << 20;

/// Who asks, for the logs of servers and the rules of proxies.
const USER_AGENT: &str = concat!("pyro/", env!("CARGO_PKG_VERSION"));

/// How long to bear with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// To look its name up, connect and agree on keys. Where nothing answers,
    /// the user is to hear so within seconds.
    pub connect: Duration,
    /// To begin an answer, and to go on with it.
    pub silence: Duration,
    /// For all of it, however steadily it trickles.
    pub total: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            total: Duration::from_secs(60 * 60),
        }
    }
}

/// Fetches files. Nothing is looked at, loaded or opened before it does.
#[derive(Debug, Clone)]
pub struct Fetcher {
    connector: Connector,
    patience: Patience,
}

/// What is said besides where something is.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// Headers. Those that are secret are told to nobody but whom the URL names.
    pub headers: HeaderMap,
    /// What is sent; then it is a POST.
    pub form: Option<Bytes>,
    /// Where to begin; then the answer may be the rest or, from the start, all.
    pub from: Option<u64>,
}

/// An answer that has begun. Its connection ends with it.
pub struct Answer {
    url: Url,
    response: Response<Incoming>,
    _connection: AbortOnDropHandle<hyper::Result<()>>,
}

/// What there is of a file.
#[derive(Debug, Default)]
struct Progress {
    bytes: u64,
    /// What tells whether the rest is still the rest of the same.
    validator: Option<HeaderValue>,
    steps: u64,
}

impl Fetcher {
    /// One who goes as the configuration says.
    #[must_use]
    pub fn new(network: &Network, patience: Patience) -> Self {
        Self { connector: Connector::new(network), patience }
    }

    /// Fetches what is there into a file, which has nothing but that afterwards.
    /// It tells how far it is.
    ///
    /// # Errors
    /// See [`FetchError`]. Then what is in the file is worth nothing.
    pub async fn fetch(
        &self,
        url: &Url,
        into: std::fs::File,
        bytes_max: u64,
        events: &Events,
    ) -> Result<(), FetchError> {
        let after = self.patience.total;
        let all = self.with_resumes(url, File::from_std(into), bytes_max, events);
        let slow = |_| FetchError::Slow { url: url.clone(), after };
        timeout(after, all).await.map_err(slow)?
    }

    async fn with_resumes(
        &self,
        url: &Url,
        mut file: File,
        bytes_max: u64,
        events: &Events,
    ) -> Result<(), FetchError> {
        let mut progress = Progress::default();
        let mut resumes = 0;
        loop {
            let before = progress.bytes;
            let error = match self.attempt(url, &mut file, bytes_max, &mut progress, events).await {
                Ok(()) => return Ok(file.flush().await?),
                Err(error) => error,
            };
            // Where nothing arrives, nothing is gained by asking again.
            if !error.is_passing() || progress.bytes <= before || resumes == RESUMES_MAX {
                return Err(error);
            }
            resumes += 1;
            events.emit(Event::Progress(format!("{error}; going on"))).await;
        }
    }

    /// Fetches all, or the rest, as far as it comes.
    async fn attempt(
        &self,
        url: &Url,
        file: &mut File,
        bytes_max: u64,
        progress: &mut Progress,
        events: &Events,
    ) -> Result<(), FetchError> {
        let rest = progress.validator.clone().filter(|_| progress.bytes > 0);
        let rest = rest.map(|validator| (progress.bytes, validator));
        let mut answer = self.get(url, &rest_of(rest.as_ref())).await?;
        let (status, headers) = (answer.response.status(), answer.response.headers());
        if status == StatusCode::OK {
            // All of it, also where the rest was asked for.
            *progress = Progress { validator: validator(headers), ..Progress::default() };
            file.set_len(0).await?;
        } else if status != StatusCode::PARTIAL_CONTENT
            || rest.is_none_or(|(from, _)| begin(headers) != Some(from))
        {
            return Err(FetchError::Refused { url: answer.url, status });
        }
        file.seek(SeekFrom::Start(progress.bytes)).await?;
        let too_large = || FetchError::TooLarge { url: url.clone(), bytes_max };
        let length = length(headers).map(|length| progress.bytes.saturating_add(length));
        if length.is_some_and(|length| length > bytes_max) {
            return Err(too_large());
        }
        while let Some(chunk) = self.chunk(&mut answer, progress.bytes).await? {
            if chunk.len() as u64 > bytes_max - progress.bytes {
                return Err(too_large());
            }
            file.write_all(&chunk).await?;
            progress.bytes += chunk.len() as u64;
            progress.tell(length, events).await;
        }
        Ok(())
    }

    /// The next bytes of an answer; `None` is its end.
    async fn chunk(&self, answer: &mut Answer, bytes: u64) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = timeout(self.patience.silence, answer.response.body_mut().frame()).await;
            let frame = frame.map_err(|_| self.silent(&answer.url))?;
            let Some(frame) = frame else { return Ok(None) };
            let broken = |source| FetchError::Broken { url: answer.url.clone(), bytes, source };
            // What is not data is a trailer.
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Asks for something and gives the answer, whatever that is, as it begins.
    ///
    /// # Errors
    /// When there is no answer, or it leads astray.
    pub async fn open(&self, url: &Url, ask: &Ask) -> Result<Answer, FetchError> {
        self.get(url, ask).await
    }

    /// The next bytes of an answer that [`Fetcher::open`] gave; `None` is its end.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn next(
        &self,
        answer: &mut Answer,
        before: u64,
    ) -> Result<Option<Bytes>, FetchError> {
        self.chunk(answer, before).await
    }

    /// Asks for something, wherever the way leads. Who is sent to another server
    /// tells that nothing that is secret; what is sent is sent to nobody else.
    async fn get(&self, url: &Url, ask: &Ask) -> Result<Answer, FetchError> {
        let (mut url, mut ask) = (url.clone(), ask.clone());
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(url, &ask).await?;
            let headers = answer.response.headers();
            let location = match answer.response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => headers.get(header::LOCATION),
                _ => None,
            };
            let Some(location) = location else { return Ok(answer) };
            let astray = |why| FetchError::Astray { url: answer.url.clone(), why };
            let next = location.to_str().ok().and_then(|location| answer.url.join(location).ok());
            let next = next.ok_or_else(|| astray("that is no URL"))?;
            if answer.url.is_https() && !next.is_https() {
                return Err(astray("from https to http"));
            }
            if ask.form.is_some() {
                return Err(astray("it was sent something"));
            }
            if next.origin() != answer.url.origin() {
                ask.headers = without_secrets(&ask.headers);
            }
            url = next;
        }
        Err(FetchError::Astray { url, why: "again and again" })
    }

    /// One request, one answer, on a connection of its own.
    async fn ask(&self, url: Url, ask: &Ask) -> Result<Answer, FetchError> {
        let after = self.patience.connect;
        let connecting = timeout(after, self.connector.connect(&url)).await;
        let silent = |_| FetchError::Silent { origin: url.origin(), after };
        let connected = connecting.map_err(silent)?.map_err(|error| match error {
            NotConnected::NoCertificates(source) => FetchError::NoCertificates(source),
            NotConnected::Failed { through, source } => {
                FetchError::Unreachable { origin: through.unwrap_or(url.origin()), source }
            }
        })?;
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| {
            FetchError::Unreachable { origin: url.origin(), source }
        };
        let asking = async {
            let (mut sender, connection) = http1::handshake(connected.stream).await?;
            let connection = AbortOnDropHandle::new(tokio::spawn(connection));
            let mut request = Request::new(Full::new(ask.form.clone().unwrap_or_default()));
            if ask.form.is_some() {
                *request.method_mut() = Method::POST;
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers_mut().insert(header::CONTENT_TYPE, form);
            }
            *request.uri_mut() = if connected.by_proxy { url.whole() } else { url.path() };
            let headers = request.headers_mut();
            if let Some(from) = ask.from {
                headers.insert(header::RANGE, range(from));
            }
            headers.extend(ask.headers.clone());
            headers.extend(connected.headers);
            headers.insert(header::HOST, url.host_header());
            headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            Ok((sender.send_request(request).await?, connection))
        };
        let asked = timeout(self.patience.silence, asking).await;
        let (response, connection) = asked
            .map_err(|_| self.silent(&url))?
            .map_err(|error: hyper::Error| unreachable(error.into()))?;
        Ok(Answer { url, response, _connection: connection })
    }

    fn silent(&self, url: &Url) -> FetchError {
        FetchError::Silent { origin: url.origin(), after: self.patience.silence }
    }
}

impl Answer {
    /// The URL that it came from in the end.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether it is what was asked for.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header of it, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// All headers of a name that are text.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.response.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// How much of it there is to come, if it says so.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        length(self.response.headers())
    }

    /// From where on it is, if it is a part.
    #[must_use]
    pub fn begin(&self) -> Option<u64> {
        begin(self.response.headers())
    }
}

/// The rest of what had a validator.
fn rest_of(rest: Option<&(u64, HeaderValue)>) -> Ask {
    let Some((from, validator)) = rest else { return Ask::default() };
    let headers = HeaderMap::from_iter([(header::IF_RANGE, validator.clone())]);
    Ask { headers, from: Some(*from), form: None }
}

/// What every server may know.
fn without_secrets(headers: &HeaderMap) -> HeaderMap {
    let open = headers.iter().filter(|(name, value)| {
        !value.is_sensitive() && **name != header::AUTHORIZATION && **name != header::COOKIE
    });
    open.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Progress {
    async fn tell(&mut self, length: Option<u64>, events: &Events) {
        let step = length.map_or(STEP_BYTES, |length| length.div_ceil(STEPS).max(1));
        let steps = self.bytes / step;
        if steps > std::mem::replace(&mut self.steps, steps) {
            let mib =
                |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20);
            let done = match length {
                Some(length) => format!("{} of {}", mib(self.bytes), mib(length)),
                None => mib(self.bytes),
            };
            events.emit(Event::Progress(done)).await;
        }
    }
}

/// What tells versions of a thing apart, if the server says: a strong tag, else
/// the time of its last change.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let tag = headers.get(header::ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    tag.or_else(|| headers.get(header::LAST_MODIFIED)).cloned()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn range(from: u64) -> HeaderValue {
    // Digits are good in any header.
    HeaderValue::try_from(format!("bytes={from}-")).unwrap_or(HeaderValue::from_static("bytes=0-"))
}

/// Where a part begins: `bytes 17-99/100`.
fn begin(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
