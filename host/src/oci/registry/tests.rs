//! A registry that says what each test needs it to say.

use super::*;
use crate::fetch::serving::{Server, Step, elsewhere, headed, whole};
use std::fs;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const CONTENT: &[u8] = b"a layer that is long enough to be cut in the middle";
const SECRET: &str = "hunter2";

fn descriptor(content: &[u8], size: u64) -> Descriptor {
    let text = format!(r#"{{"digest":"{}","size":{size}}}"#, Sha256::of(content));
    serde_json::from_str(&text).expect("a descriptor")
}

fn layer() -> Descriptor {
    descriptor(CONTENT, CONTENT.len() as u64)
}

/// What a test has: a home, and what it was told.
struct Lab {
    home: TempDir,
    config: Config,
    told: Arc<Mutex<Vec<String>>>,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        Self { home, config, told: Arc::default() }
    }

    fn login(mut self, server: &Server) -> Self {
        let file = self.home.path().join("config.json");
        let host = server.url("/").origin().replace("http://", "");
        let auths =
            format!(r#"{{"auths":{{"{host}":{{"username":"me","password":"{SECRET}"}}}}}}"#);
        fs::write(&file, auths).expect("written");
        self.config.network.docker_config = Some(file);
        self
    }

    fn path(&self) -> std::path::PathBuf {
        self.home.path().join("partial")
    }

    fn events(&self) -> Events {
        let told = Arc::clone(&self.told);
        Events::discard()
            .tap(move |event| told.lock().expect("nobody panicked").push(format!("{event:?}")))
    }

    async fn blob(&self, server: &Server, what: &Descriptor) -> Result<Vec<u8>> {
        let reference = reference(server);
        let events = self.events();
        let patience = Patience::default();
        let mut registry =
            Registry::connect(&self.config, &reference, Plain::Loopback, patience, &events).await?;
        registry.blob(what, &self.path(), "the layer").await?;
        Ok(fs::read(self.path()).expect("there"))
    }
}

fn reference(server: &Server) -> Reference {
    let host = server.url("/").origin().replace("http://", "");
    format!("{host}/some/app:1").parse().expect("a reference")
}

fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn asks(head: &str, header: &str) -> bool {
    head.to_ascii_lowercase().contains(&header.to_ascii_lowercase())
}

/// The bytes from the one that a request asks for on.
fn rest(head: &str) -> Vec<Step> {
    let lower = head.to_ascii_lowercase();
    let Some((_, range)) = lower.split_once("range: bytes=") else { return whole(CONTENT) };
    let from: usize = range.split('-').next().and_then(|from| from.parse().ok()).expect("a number");
    let all = CONTENT.len();
    let headers = format!(
        "Content-Length: {}\r\nContent-Range: bytes {from}-{}/{all}\r\n",
        all - from,
        all - 1
    );
    headed("206 Partial Content", &headers, &CONTENT[from..])
}

/// An answer that promises all and breaks off.
fn cut(at: usize) -> Vec<Step> {
    headed("200 OK", &format!("Content-Length: {}\r\n", CONTENT.len()), &CONTENT[..at])
}

#[tokio::test]
async fn i8_a_layer_that_breaks_off_is_gone_on_with() {
    let server = Server::new(|head| match target(head) {
        "/v2/" => whole(b"{}"),
        _ if asks(head, "range: bytes=20-") => rest(head),
        _ => cut(20),
    })
    .await;
    let lab = Lab::new();
    assert_eq!(lab.blob(&server, &layer()).await.expect("all of it"), CONTENT);
    let told = lab.told.lock().expect("nobody panicked").join(" ");
    assert!(told.contains("broke off after 20 bytes; going on"), "{told}");
}

#[tokio::test]
async fn i8_what_an_earlier_pull_left_is_gone_on_with() {
    let server = Server::new(|head| match target(head) {
        "/v2/" => whole(b"{}"),
        _ => rest(head),
    })
    .await;
    let lab = Lab::new();
    fs::write(lab.path(), &CONTENT[..17]).expect("written");
    assert_eq!(lab.blob(&server, &layer()).await.expect("all of it"), CONTENT);
    assert!(asks(&server.asked()[1], "range: bytes=17-"), "{:?}", server.asked());
}

#[tokio::test]
async fn a_server_that_begins_anew_is_followed() {
    let server = Server::new(|_| whole(CONTENT)).await;
    let lab = Lab::new();
    fs::write(lab.path(), "another beginning").expect("written");
    assert_eq!(lab.blob(&server, &layer()).await.expect("all of it"), CONTENT);
}

#[tokio::test]
async fn what_is_not_what_its_digest_says_is_not_kept() {
    let server = Server::new(|_| whole(CONTENT)).await;
    let lab = Lab::new();
    let other = descriptor(b"other", CONTENT.len() as u64);
    let error = lab.blob(&server, &other).await.expect_err("it is not that");
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    assert!(!lab.path().exists());
    // One that would never end is not waited for.
    let short = descriptor(CONTENT, 5);
    let error = lab.blob(&server, &short).await.expect_err("it is longer");
    assert!(error.message().contains("has more than the 5 bytes"), "{}", error.message());
    // One that is too short is not asked for again and again.
    let long = descriptor(CONTENT, 500);
    let error = lab.blob(&server, &long).await.expect_err("it is shorter");
    assert_eq!(error.kind(), ErrorKind::Network);
}

/// A registry that wants a token, which it gives itself.
fn guarded(head: &str, host: &str, then: impl Fn() -> Vec<Step>) -> Vec<Step> {
    if target(head).starts_with("/token") {
        let login = asks(head, "authorization: Basic bWU6aHVudGVyMg==");
        return if login {
            whole(br#"{"token":"secret-token"}"#)
        } else {
            headed("403 Forbidden", "", b"")
        };
    }
    if asks(head, "authorization: Bearer secret-token") {
        return then();
    }
    let host = host.to_owned();
    let challenge = format!("WWW-Authenticate: Bearer realm=\"{host}/token\",service=\"s\"\r\n");
    headed("401 Unauthorized", &format!("{challenge}Content-Length: 0\r\n"), b"")
}

fn own_host(head: &str) -> String {
    let lower = head.to_ascii_lowercase();
    let host = lower.split_once("host: ").and_then(|(_, rest)| rest.split_whitespace().next());
    format!("http://{}", host.expect("every request has it"))
}

#[tokio::test]
async fn s10_a_token_is_not_forwarded_to_another_host() {
    let storage = Arc::new(Server::new(|_| whole(CONTENT)).await);
    let there = storage.url("/blob").to_string() + "?sig=1";
    let server =
        Server::new(move |head| guarded(head, &own_host(head), || elsewhere(&there))).await;
    let lab = Lab::new().login(&server);
    assert_eq!(lab.blob(&server, &layer()).await.expect("all of it"), CONTENT);
    let asked = storage.asked();
    assert_eq!(asked.len(), 1);
    assert!(!asks(&asked[0], "authorization") && !asked[0].contains("secret-token"), "{asked:?}");
    let scope = "scope=repository%3Asome%2Fapp%3Apull";
    assert!(server.asked().iter().any(|head| head.contains(scope)), "{:?}", server.asked());
}

#[tokio::test]
async fn s10_a_token_goes_on_with_the_same_host() {
    let server = Server::new(move |head| {
        guarded(head, &own_host(head), || match target(head) {
            "/elsewhere" => whole(CONTENT),
            _ => elsewhere("/elsewhere"),
        })
    })
    .await;
    let lab = Lab::new().login(&server);
    assert_eq!(lab.blob(&server, &layer()).await.expect("all of it"), CONTENT);
}

#[tokio::test]
async fn what_is_secret_is_in_no_message() {
    let refusing = Server::new(|head| match target(head) {
        "/v2/" => whole(b"{}"),
        path if path.starts_with("/token") => headed("403 Forbidden", "", SECRET.as_bytes()),
        _ => guarded("GET / HTTP/1.1\r\n\r\n", &own_host(head), Vec::new),
    })
    .await;
    let lab = Lab::new().login(&refusing);
    let error = lab.blob(&refusing, &layer()).await.expect_err("no token");
    assert!(error.next_step().is_some_and(|hint| hint.contains("docker login")));
    let told = lab.told.lock().expect("nobody panicked").join(" ");
    for text in [error.chain(), format!("{error:?}"), told] {
        assert!(!text.contains(SECRET) && !text.contains("aHVudGVyMg"), "{text}");
    }
}

#[tokio::test]
async fn nobody_else_is_asked_for_a_token_in_the_clear() {
    let server = Server::new(|head| match target(head) {
        "/v2/" => whole(b"{}"),
        _ => guarded("GET / HTTP/1.1\r\n\r\n", "http://192.0.2.1", Vec::new),
    })
    .await;
    let lab = Lab::new().login(&server);
    let error = lab.blob(&server, &layer()).await.expect_err("it proves nothing");
    assert!(error.message().contains("which proves nothing"), "{}", error.message());
}

#[tokio::test]
async fn a_document_that_does_not_end_is_not_read() {
    let server = Server::new(|head| match target(head) {
        "/v2/" => whole(b"{}"),
        "/v2/some/app/manifests/1" => whole(&vec![b' '; BYTES_MAX as usize + 1]),
        _ => headed("404 Not Found", "Content-Length: 0\r\n", b""),
    })
    .await;
    let (lab, reference) = (Lab::new(), reference(&server));
    let events = lab.events();
    let connecting =
        Registry::connect(&lab.config, &reference, Plain::Loopback, Patience::default(), &events);
    let mut registry = connecting.await.expect("it answers");
    let error = registry.resolve().await.expect_err("too long");
    assert!(error.message().contains("has more than 4 MiB"), "{}", error.message());
    let error = registry.document(Part::Blob, &layer()).await.expect_err("it has none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
