//! `ottla healthcheck`: probes a node on this machine, for container images that hold no other program.
//!
//! Sends the probe to the admin port; where that is off, to a listener. Reads the configuration as the node does and
//! changes nothing. May not know: what a node is made of.

#![allow(clippy::disallowed_types)] // a client of the admin port

use std::io;
use std::time::Duration;

use ottla_env::rt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::listeners::is_unspecified;
use crate::config::{Config, Endpoint};
use ottla_cli::client::http::{self, HttpError};

/// Time limit of a response; container engines time out a little later.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// ApiVersions, version 0, correlation 9644, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0x25, 0xac, 0xff, 0xff];

/// The kind of a health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Liveness: the process responds, also while it recovers.
    Live,
    /// Readiness: the node serves clients.
    Ready,
}

/// Why a node is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// No response came.
    #[error("no answer from {endpoint}: {source}")]
    NoResponse {
        /// Who was asked.
        endpoint: Endpoint,
        /// What happened.
        source: io::Error,
    },
    /// The node responds that it does not serve, or the response is not a node's.
    #[error("{endpoint} answers: {answer}")]
    Refused {
        /// Who was asked.
        endpoint: Endpoint,
        /// The response, or its beginning.
        answer: String,
    },
    /// The configuration has no port that could be probed.
    #[error("the configuration has neither an admin port nor a listener with a fixed port")]
    NoEndpoint,
}

/// Probes the node that this configuration describes.
///
/// # Errors
/// When the node does not respond in time, or responds that it is not ready.
pub async fn check(config: &Config, probe: Probe) -> Result<(), Unhealthy> {
    let listener = config.listeners.first().map(|listener| &listener.endpoint);
    let Some(configured) = config.admin_listener.as_ref().or(listener).filter(|endpoint| endpoint.port != 0) else {
        return Err(Unhealthy::NoEndpoint);
    };
    let endpoint = local_endpoint(configured);
    let exchange = async {
        match (&config.admin_listener, probe) {
            (Some(_), Probe::Live) => get_page(&endpoint, "/healthz").await,
            (Some(_), Probe::Ready) => get_page(&endpoint, "/readyz").await,
            (None, _) => request_api_versions(&endpoint).await,
        }
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("nothing within {} s", RESPONSE_TIMEOUT.as_secs()));
    match rt::timeout(RESPONSE_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(late())) {
        Ok(None) => Ok(()),
        Ok(Some(answer)) => Err(Unhealthy::Refused { endpoint, answer }),
        Err(source) => Err(Unhealthy::NoResponse { endpoint, source }),
    }
}

/// The address to probe: the loopback address for a listener on all addresses.
fn local_endpoint(endpoint: &Endpoint) -> Endpoint {
    let host = if is_unspecified(&endpoint.host) { "127.0.0.1" } else { endpoint.host.as_str() };
    Endpoint { host: host.to_owned(), port: endpoint.port }
}

/// `None` if the status is 200, else the response.
async fn get_page(endpoint: &Endpoint, page: &str) -> io::Result<Option<String>> {
    match http::get(&format!("http://{endpoint}"), page).await {
        Ok(page) if page.status == 200 => Ok(None),
        Ok(page) => Ok(Some(format!("status {} {}", page.status, page.body).trim().to_owned())),
        Err(HttpError::Connection { source, .. }) => Err(source),
        Err(strange) => Ok(Some(strange.to_string())),
    }
}

/// `None` if a listener answers ApiVersions, else what is wrong with its response.
async fn request_api_versions(endpoint: &Endpoint) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    stream.write_all(&API_VERSIONS).await?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).await?;
    let (correlation, error) = (&answer[4..8], &answer[8..10]);
    let right = *correlation == API_VERSIONS[8..12] && error == [0, 0];
    Ok((!right).then(|| "something else than ApiVersions".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::readiness::Phase;
    use crate::admin::{Admin, AdminState, Readiness};
    use crate::config::flags;
    use crate::config::sources::{Inputs, load};
    use tokio::net::TcpListener;

    fn config(words: &str) -> Config {
        let flags = flags::parse(words.split_whitespace().map(str::to_owned)).unwrap();
        load(&Inputs { flags, ..Inputs::default() }).unwrap().config
    }

    #[tokio::test]
    async fn a_node_that_recovers_lives_and_is_not_ready() {
        let readiness = Readiness::default();
        let anywhere = Endpoint { host: String::new(), port: 0 };
        let admin = Admin::start(&anywhere, AdminState::new(readiness.clone())).await.unwrap();
        let config = config(&format!("--admin-listener :{}", admin.address.port()));
        readiness.enter(Phase::Recovering, "reading /data", 3, 9);
        check(&config, Probe::Live).await.unwrap();
        let why = check(&config, Probe::Ready).await.unwrap_err().to_string();
        assert!(why.contains("503") && why.contains("reading /data"), "{why}");
        readiness.enter(Phase::Serving, "serving", 1, 1);
        check(&config, Probe::Ready).await.unwrap();
        admin.stop();
    }

    #[tokio::test]
    async fn a_listener_is_asked_where_the_admin_port_is_off() {
        for (answer, healthy) in [(&[0, 0, 0, 6, 0, 0, 0x25, 0xac, 0, 0][..], true), (b"HTTP/1.1 200 OK", false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let config = config(&format!("--admin-listener none --listeners PLAINTEXT://:{port}"));
            let served = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; API_VERSIONS.len()];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request, API_VERSIONS);
                stream.write_all(answer).await.unwrap();
            };
            let (checked, ()) = tokio::join!(check(&config, Probe::Ready), served);
            assert_eq!(checked.is_ok(), healthy, "{checked:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_so() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let why = check(&config(&format!("--admin-listener :{free}")), Probe::Ready).await.unwrap_err();
        assert!(why.to_string().contains(&format!("no answer from 127.0.0.1:{free}")), "{why}");
        let why = check(&config("--admin-listener :0"), Probe::Live).await.unwrap_err();
        assert!(matches!(why, Unhealthy::NoEndpoint));
    }
}
