//! Connections to servers: straight or through the user's proxy, in the clear or
//! over TLS.

use super::url::Url;
use crate::config::Network;
use hyper::Uri;
use hyper::header::{self, HeaderMap};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A way to a server, its last part encrypted where the URL says so.
pub type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection on which a request can be sent.
pub struct Connected {
    pub stream: Stream,
    /// Whether a proxy reads the request, and has to be told all of the URL.
    pub by_proxy: bool,
    /// What a request has to say to that proxy.
    pub headers: HeaderMap,
}

/// Why there is no connection.
pub enum NotConnected {
    /// There is nobody to vouch for servers.
    NoCertificates(io::Error),
    /// Something on the way does not work.
    Failed {
        /// The way, where it is not straight.
        through: Option<String>,
        source: BoxError,
    },
}

/// Knows the way. Certificates are read when the first server has to prove
/// itself.
#[derive(Clone)]
pub struct Connector {
    network: Network,
    proxies: Arc<Matcher>,
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Connector {
    pub fn new(network: &Network) -> Self {
        let proxies = Matcher::builder()
            .http(network.http_proxy.clone().unwrap_or_default())
            .https(network.https_proxy.clone().unwrap_or_default())
            .no(network.no_proxy.clone().unwrap_or_default())
            .build();
        Self { network: network.clone(), proxies: Arc::new(proxies), tls: Arc::default() }
    }

    /// Connects to where a URL leads. Its names are looked up, and all addresses
    /// that it has are tried, those of IPv4 and IPv6 side by side.
    pub async fn connect(&self, url: &Url) -> Result<Connected, NotConnected> {
        let (server, proxy) = (url.whole(), self.proxies.intercept(&url.whole()));
        let through =
            proxy.as_ref().map(|proxy| format!("{} through {}", url.origin(), name(proxy)));
        let failed = |source| NotConnected::Failed { through: through.clone(), source };
        let tcp = tcp();
        let straight = |stream| Connected { stream, by_proxy: false, headers: HeaderMap::new() };
        let Some(proxy) = proxy else {
            return if url.is_https() {
                call(HttpsConnector::from((tcp, self.tls().await?)), server).await
            } else {
                call(tcp, server).await.map(MaybeHttpsStream::Http)
            }
            .map(straight)
            .map_err(failed);
        };
        if proxy.uri().scheme_str() != Some("http") {
            return Err(failed("only proxies that speak plain HTTP are used".into()));
        }
        let auth = proxy.basic_auth().cloned();
        if url.is_https() {
            let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
            let tunnel = match auth {
                Some(auth) => tunnel.with_auth(auth),
                None => tunnel,
            };
            let tls = HttpsConnector::from((tunnel, self.tls().await?));
            return call(tls, server).await.map(straight).map_err(failed);
        }
        let stream = call(tcp, proxy.uri().clone()).await.map_err(failed)?;
        let headers = auth.map(|auth| (header::PROXY_AUTHORIZATION, auth)).into_iter().collect();
        Ok(Connected { stream: MaybeHttpsStream::Http(stream), by_proxy: true, headers })
    }

    /// Whom the host trusts. The certificates are the system's: where a company's
    /// proxy looks into connections, only those know its authority.
    async fn tls(&self) -> Result<Arc<ClientConfig>, NotConnected> {
        let made = self.tls.get_or_try_init(|| async {
            let network = self.network.clone();
            let made = spawn_blocking(move || trusting(&network)).await;
            made.map_err(io::Error::other).flatten().map_err(NotConnected::NoCertificates)
        });
        made.await.cloned()
    }
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // TLS is what is put on top.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp
}

async fn call<C>(mut connector: C, to: Uri) -> Result<C::Response, BoxError>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
{
    poll_fn(|cx| connector.poll_ready(cx)).await.map_err(Into::into)?;
    connector.call(to).await.map_err(Into::into)
}

/// A proxy, without what may be secret.
fn name(proxy: &Intercept) -> String {
    let uri = proxy.uri();
    let port = uri.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("the proxy {}{port}", uri.host().unwrap_or_default())
}

fn trusting(network: &Network) -> io::Result<Arc<ClientConfig>> {
    let CertificateResult { certs, mut errors, .. } =
        match (&network.ssl_cert_file, &network.ssl_cert_dir) {
            (None, None) => load_native_certs(),
            (file, dir) => load_certs_from_paths(file.as_deref(), dir.as_deref()),
        };
    let mut roots = RootCertStore::empty();
    // Some stores have odd ones; what they would vouch for is not trusted then.
    roots.add_parsable_certificates(certs);
    if roots.is_empty() {
        return Err(match errors.pop() {
            Some(error) => io::Error::other(error),
            None => io::Error::other("there is no certificate in the system's store"),
        });
    }
    let config =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
    Ok(Arc::new(config))
}
