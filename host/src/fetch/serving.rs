//! A server for tests: what it says is written down word for word.

use super::Url;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// What a server does next with a connection. After the last it closes.
pub enum Step {
    Say(Vec<u8>),
    /// It does nothing until the other side has gone.
    KeepSilent,
}

/// A server on the loopback interface. Every connection is for one request.
pub struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// One that answers by the head of the request.
    pub async fn new(answer: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::over(|tcp| async move { Ok(tcp) }, answer).await
    }

    /// One that does something with a connection first.
    pub async fn over<S, F>(
        wrap: impl Fn(TcpStream) -> F + Send + Sync + 'static,
        answer: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        F: Future<Output = io::Result<S>> + Send,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.expect("a connection");
                // Whoever breaks off is part of the test.
                drop(converse(&wrap, tcp, &heard, &answer).await);
            }
        });
        Self { port, asked, _task: AbortOnDropHandle::new(task) }
    }

    /// Where it has something of this name.
    pub fn url(&self, path: &str) -> Url {
        format!("http://127.0.0.1:{}{path}", self.port).parse().expect("a URL")
    }

    /// The same by the name that certificates are for, and over TLS.
    pub fn https_url(&self, path: &str) -> Url {
        format!("https://localhost:{}{path}", self.port).parse().expect("a URL")
    }

    /// The heads of the requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn converse<S, F>(
    wrap: &impl Fn(TcpStream) -> F,
    tcp: TcpStream,
    heard: &Mutex<Vec<String>>,
    answer: &impl Fn(&str) -> Vec<Step>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = io::Result<S>>,
{
    let mut stream = BufReader::new(wrap(tcp).await?);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_until(b'\n', &mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let steps = answer(&head);
    heard.lock().expect("no panic").push(head);
    for step in steps {
        match step {
            Step::Say(bytes) => stream.write_all(&bytes).await?,
            Step::KeepSilent => drop(stream.read_u8().await?),
        }
    }
    stream.shutdown().await
}

/// An answer as it should be.
pub fn whole(body: &[u8]) -> Vec<Step> {
    headed("200 OK", &format!("Content-Length: {}\r\nETag: \"one\"\r\n", body.len()), body)
}

/// An answer that leads elsewhere.
pub fn elsewhere(location: &str) -> Vec<Step> {
    headed("302 Found", &format!("Location: {location}\r\nContent-Length: 0\r\n"), b"")
}

/// Any answer.
pub fn headed(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}\r\n");
    vec![Step::Say([head.as_bytes(), body].concat())]
}
