//! Firecracker's API: HTTP over a Unix socket in the VMM's directory.
//!
//! What answers is to be taken for the guest, should it have broken out: answers
//! are short, and late ones are none.

pub(super) mod arrival;

use crate::error::{Error, ErrorKind, Result};
use crate::guest_text;
use crate::vsock::Socket;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How long an answer may take. Firecracker gives it when it is done, which is
/// at once but for what has to do with a whole guest's memory.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The longest answer that is read: a fault has one sentence.
const ANSWER_MAX: usize = 16 * 1024;

/// How much of a fault an error shows.
const FAULT_MAX: usize = 1024;

const JSON: &str = "application/json";

/// A connection to the API; closed when dropped.
pub(super) struct Api {
    requests: SendRequest<Full<Bytes>>,
    driving: AbortHandle,
}

/// What Firecracker says when it refuses.
#[derive(Debug, Deserialize)]
struct Fault {
    fault_message: String,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Api {
    /// Connects to the socket.
    ///
    /// # Errors
    /// Whatever the socket gives.
    pub(super) async fn connect(socket: &Socket) -> std::io::Result<Self> {
        let stream = socket.connect().await?;
        let (requests, connection) =
            handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        // Whoever waits for an answer hears how the connection ends.
        let driving = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { requests, driving })
    }

    /// Sets something up, or has something done.
    ///
    /// # Errors
    /// What Firecracker says against it; `TimedOut` when it says nothing.
    pub(super) async fn put(&mut self, path: &str, body: &impl Serialize) -> Result<()> {
        self.send(Method::PUT, path, body, ANSWER_DEADLINE).await
    }

    /// The same of what takes longer.
    ///
    /// # Errors
    /// As [`Api::put`].
    pub(super) async fn put_within(
        &mut self,
        deadline: Duration,
        path: &str,
        body: &impl Serialize,
    ) -> Result<()> {
        self.send(Method::PUT, path, body, deadline).await
    }

    /// Changes something.
    ///
    /// # Errors
    /// As [`Api::put`].
    pub(super) async fn patch(&mut self, path: &str, body: &impl Serialize) -> Result<()> {
        self.send(Method::PATCH, path, body, ANSWER_DEADLINE).await
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        deadline: Duration,
    ) -> Result<()> {
        let what = format!("{method} {path}");
        let answered = timeout(deadline, self.exchange(method, path, body));
        answered
            .await
            .unwrap_or_else(|_| {
                let seconds = deadline.as_secs();
                Err(Error::new(ErrorKind::TimedOut, format!("no answer within {seconds} s")))
            })
            .map_err(|error| {
                let message = format!("Firecracker did not obey {what}");
                Error::new(error.kind(), message).because(error)
            })
    }

    async fn exchange(&mut self, method: Method, path: &str, body: &impl Serialize) -> Result<()> {
        let internal = |error: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Internal, format!("cannot ask Firecracker: {error}"))
        };
        let body = serde_json::to_vec(body).map_err(|error| internal(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(ACCEPT, JSON)
            .header(CONTENT_TYPE, JSON)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| internal(&error))?;
        let lost = |error| {
            Error::new(ErrorKind::GuestLost, "the connection to its API was lost").because(error)
        };
        self.requests.ready().await.map_err(lost)?;
        let response = self.requests.send_request(request).await.map_err(lost)?;
        judge(response).await
    }
}

async fn judge(response: Response<Incoming>) -> Result<()> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| {
        let message = format!("its answer is cut off or too long: {error}");
        Error::new(ErrorKind::Protocol, message)
    })?;
    if status.is_success() {
        return Ok(());
    }
    let body = body.to_bytes();
    let said = match serde_json::from_slice::<Fault>(&body) {
        Ok(fault) => guest_text::escaped(&fault.fault_message, FAULT_MAX),
        Err(_) => format!("HTTP status {}", status.as_u16()),
    };
    Err(Error::new(ErrorKind::Internal, said))
}
