use super::serving::{Server, Step, elsewhere, headed, whole};
use super::*;
use crate::error::{Error, ErrorKind};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_rustls::TlsAcceptor;

const BYTES_MAX: u64 = 1 << 20;

/// As short as can be, for those who never answer; others are quicker.
const IMPATIENCE: Duration = Duration::from_millis(300);

fn patient() -> Patience {
    Patience::default()
}

fn impatient() -> Patience {
    Patience { connect: IMPATIENCE, silence: IMPATIENCE, ..patient() }
}

async fn fetch_by(network: &Network, url: &Url, patience: Patience) -> Result<Vec<u8>, FetchError> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let into = file.reopen().expect("the same");
    let fetcher = Fetcher::new(network, patience);
    fetcher.fetch(url, into, BYTES_MAX, &Events::discard()).await?;
    Ok(std::fs::read(file.path()).expect("read"))
}

async fn fetch(url: &Url, patience: Patience) -> Result<Vec<u8>, FetchError> {
    fetch_by(&Network::default(), url, patience).await
}

#[tokio::test]
async fn what_is_there_arrives() {
    let server = Server::new(|_| whole(b"content")).await;
    let got = fetch(&server.url("/a/b?c=d"), patient()).await.expect("fetched");
    assert_eq!(got, b"content");
    let asked = server.asked().remove(0).to_lowercase();
    assert!(asked.starts_with("get /a/b?c=d http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: 127.0.0.1:"), "{asked}");
    assert!(asked.contains("\r\nuser-agent: pyro/"), "{asked}");
}

#[tokio::test]
async fn redirects_are_followed_and_come_to_an_end() {
    let server = Server::new(|head| match head.split(' ').nth(1) {
        Some("/here") => elsewhere("there?x"),
        Some("/there?x") => whole(b"content"),
        _ => elsewhere("/round"),
    })
    .await;
    assert_eq!(fetch(&server.url("/here"), patient()).await.expect("fetched"), b"content");
    let error = fetch(&server.url("/round"), patient()).await.expect_err("it never ends");
    assert!(matches!(error, FetchError::Astray { .. }), "{error}");
    assert_eq!(server.asked().len(), 2 + REDIRECTS_MAX + 1);
}

#[tokio::test]
async fn no_redirect_leads_to_another_scheme() {
    let server = Server::new(|_| elsewhere("file:///etc/passwd")).await;
    let error = fetch(&server.url("/"), patient()).await.expect_err("it is no URL");
    assert!(matches!(error, FetchError::Astray { .. }), "{error}");
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let server = Server::new(|_| headed("404 Not Found", "Content-Length: 0\r\n", b"")).await;
    let error = Error::from(fetch(&server.url("/x?secret"), patient()).await.expect_err("404"));
    assert_eq!(error.kind(), ErrorKind::Network);
    let url = server.url("/x");
    assert_eq!(error.message(), format!("the server answers 404 Not Found for {url}"));
}

#[tokio::test]
async fn what_breaks_off_is_taken_up_where_it_broke() {
    let server = Server::new(|head| {
        if head.contains("range: bytes=3-\r\nif-range: \"one\"") {
            headed(
                "206 Partial Content",
                "Content-Range: bytes 3-6/7\r\nContent-Length: 4\r\n",
                b"tent",
            )
        } else {
            headed("200 OK", "ETag: \"one\"\r\nContent-Length: 7\r\n", b"con")
        }
    })
    .await;
    assert_eq!(fetch(&server.url("/"), patient()).await.expect("fetched"), b"content");
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn what_is_another_thing_by_then_begins_anew() {
    let times = AtomicUsize::new(0);
    let server = Server::new(move |_| match times.fetch_add(1, Ordering::Relaxed) {
        0 => headed("200 OK", "ETag: \"old\"\r\nContent-Length: 9\r\n", b"stale"),
        _ => whole(b"new"),
    })
    .await;
    assert_eq!(fetch(&server.url("/"), patient()).await.expect("fetched"), b"new");
}

#[tokio::test]
async fn a_part_of_something_else_is_not_put_in() {
    let server = Server::new(|head| {
        if head.contains("range: bytes") {
            headed(
                "206 Partial Content",
                "Content-Range: bytes 0-3/7\r\nContent-Length: 4\r\n",
                b"cont",
            )
        } else {
            headed("200 OK", "ETag: \"one\"\r\nContent-Length: 7\r\n", b"con")
        }
    })
    .await;
    let error = fetch(&server.url("/"), patient()).await.expect_err("it would be wrong");
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn what_breaks_off_again_and_again_fails() {
    let server = Server::new(|_| headed("200 OK", "Content-Length: 7\r\n", b"con")).await;
    let error = fetch(&server.url("/"), patient()).await.expect_err("it never comes");
    assert!(matches!(error, FetchError::Broken { bytes: 3, .. }), "{error}");
    // Without a sign that it is the same thing, it begins anew, and gets no further.
    assert_eq!(server.asked().len(), 2);
    assert!(server.asked().iter().all(|head| !head.contains("range")));
}

#[tokio::test]
async fn whoever_is_silent_is_left() {
    for steps in [false, true] {
        let server = Server::new(move |_| match steps {
            false => vec![Step::KeepSilent],
            true => {
                let mut steps = headed("200 OK", "Content-Length: 7\r\n", b"");
                steps.push(Step::KeepSilent);
                steps
            }
        })
        .await;
        let error = fetch(&server.url("/"), impatient()).await.expect_err("it is silent");
        assert!(matches!(error, FetchError::Silent { .. }), "{error}");
    }
}

#[tokio::test]
async fn whoever_agrees_on_no_keys_is_left() {
    let server = Server::new(|_| vec![Step::KeepSilent]).await;
    let (network, _file) = trusting(Network::default(), &certified());
    let error = fetch_by(&network, &server.https_url("/"), impatient()).await;
    let error = error.expect_err("it does not speak TLS");
    assert!(matches!(error, FetchError::Silent { .. }), "{error}");
}

#[tokio::test]
async fn whoever_trickles_is_left_in_the_end() {
    let server = Server::new(|_| {
        let mut steps = headed("200 OK", "Content-Length: 7\r\n", b"c");
        steps.push(Step::KeepSilent);
        steps
    })
    .await;
    let patience = Patience { total: IMPATIENCE, ..patient() };
    let error = fetch(&server.url("/"), patience).await.expect_err("it is slow");
    assert!(matches!(error, FetchError::Slow { .. }), "{error}");
}

#[tokio::test]
async fn what_is_too_large_is_not_fetched_whatever_it_says() {
    let too_much = vec![0; BYTES_MAX as usize + 1];
    let body = too_much.clone();
    let honest = Server::new(move |_| whole(&body)).await;
    // Without a length, it ends when the connection does.
    let silent = Server::new(move |_| headed("200 OK", "", &too_much)).await;
    for server in [honest, silent] {
        let error = fetch(&server.url("/"), patient()).await.expect_err("too large");
        assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_http_is_an_error() {
    for said in [&b"SSH-2.0-x\r\n"[..], b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b""] {
        let server = Server::new(move |_| vec![Step::Say(said.to_vec())]).await;
        let error = fetch(&server.url("/"), patient()).await.expect_err("nonsense");
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_at_once() {
    let server = Server::new(|_| Vec::new()).await;
    let url = server.url("/");
    drop(server);
    // Its task lets go of the port once it is seen to.
    tokio::task::yield_now().await;
    let error = Error::from(fetch(&url, patient()).await.expect_err("nobody is there"));
    assert_eq!(error.message(), format!("cannot reach {}", url.origin()));
    assert!(error.chain().contains("refused"), "{}", error.chain());
}

#[tokio::test]
async fn a_proxy_is_told_the_whole_url_and_who_asks() {
    let proxy = Server::new(|_| whole(b"content")).await;
    let network = Network {
        http_proxy: Some(proxy.url("").to_string().replace("//", "//me:secret@")),
        no_proxy: Some("near.example".into()),
        ..Network::default()
    };
    assert!(!format!("{network:?}").contains("secret"));
    let url = "http://far.example/x".parse().expect("a URL");
    assert_eq!(fetch_by(&network, &url, patient()).await.expect("fetched"), b"content");
    let asked = proxy.asked().remove(0);
    assert!(asked.starts_with("GET http://far.example/x HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nhost: far.example\r\n"), "{asked}");
    assert!(asked.contains("\r\nproxy-authorization: Basic bWU6c2VjcmV0\r\n"), "{asked}");
}

#[tokio::test]
async fn a_proxy_is_asked_for_a_tunnel_to_https() {
    let proxy = Server::new(|_| headed("403 Forbidden", "", b"")).await;
    let network = Network { https_proxy: Some(proxy.url("").to_string()), ..Network::default() };
    let certificate = certified();
    let network = trusting(network, &certificate);
    let url = "https://far.example/x".parse().expect("a URL");
    let error = fetch_by(&network.0, &url, patient()).await.expect_err("it is refused");
    let through = proxy.url("").origin().replace("http://", "");
    assert_eq!(
        error.to_string(),
        format!("cannot reach https://far.example through the proxy {through}")
    );
    assert!(proxy.asked()[0].starts_with("CONNECT far.example:443 "), "{:?}", proxy.asked());
}

fn certified() -> CertifiedKey<rcgen::KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate")
}

/// A network that trusts only this; the file is where it says so.
fn trusting(
    network: Network,
    certificate: &CertifiedKey<rcgen::KeyPair>,
) -> (Network, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), certificate.cert.pem()).expect("written");
    (Network { ssl_cert_file: Some(file.path().to_owned()), ..network }, file)
}

async fn secure_server(certificate: &CertifiedKey<rcgen::KeyPair>) -> Server {
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).expect("a key");
    let provider = rustls::crypto::ring::default_provider();
    let config = ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .expect("they fit");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let wrap = move |tcp| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(tcp).await }
    };
    Server::over(wrap, |head| match head.split(' ').nth(1) {
        Some("/down") => elsewhere("http://127.0.0.1:1/"),
        _ => whole(b"content"),
    })
    .await
}

#[tokio::test]
async fn whom_the_system_trusts_is_believed_and_nobody_else() {
    let (ours, theirs) = (certified(), certified());
    let server = secure_server(&ours).await;
    let (network, _file) = trusting(Network::default(), &ours);
    let url = server.https_url("/");
    assert_eq!(fetch_by(&network, &url, patient()).await.expect("fetched"), b"content");

    let (network, _file) = trusting(Network::default(), &theirs);
    let error = Error::from(fetch_by(&network, &url, patient()).await.expect_err("not trusted"));
    assert_eq!(error.message(), format!("cannot reach {}", url.origin()));
    assert!(error.chain().contains("certificate"), "{}", error.chain());
    assert_eq!(server.asked().len(), 1, "nothing was said to whom is not trusted");
}

#[tokio::test]
async fn nobody_is_led_from_https_to_http() {
    let ours = certified();
    let server = secure_server(&ours).await;
    let (network, _file) = trusting(Network::default(), &ours);
    let error = fetch_by(&network, &server.https_url("/down"), patient()).await;
    let error = error.expect_err("it is a step down");
    assert!(matches!(error, FetchError::Astray { why: "from https to http", .. }), "{error}");
}

#[tokio::test]
async fn without_certificates_the_next_step_is_told() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let network = Network { ssl_cert_file: Some(file.path().to_owned()), ..Network::default() };
    let url = "https://localhost/".parse().expect("a URL");
    let error = Error::from(fetch_by(&network, &url, patient()).await.expect_err("no trust"));
    assert_eq!(error.kind(), ErrorKind::HostRequirement);
    assert!(error.next_step().is_some_and(|hint| hint.contains("ca-certificates")));
}
