//! The listener for other nodes on this machine, and who may reach it.
//!
//! Until nodes authenticate each other, any host that reaches this port can read and change everything. So it is bound
//! to loopback and private networks only, unless `ottla.insecure` states that the network is closed off otherwise. May
//! not know: which messages are exchanged.

#![allow(clippy::disallowed_types)] // binds sockets

use std::net::IpAddr;
use std::sync::Arc;

use ottla_env::real::TcpConnector;

use super::error::StartError;
use super::peers::PeerEndpoint;
use crate::config::listeners::is_unspecified;
use crate::config::{Config, Endpoint, Listener, SecurityProtocol};
use crate::metadata::{CLUSTER_LISTENER, ListenerEndpoint};
use crate::server::listener::{BoundListener, SocketOptions};

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

/// True if only its own machine or a private network reaches the host.
async fn is_host_private(host: &str, port: u16) -> bool {
    match tokio::net::lookup_host((host, port)).await {
        Ok(mut addresses) => addresses.all(|address| is_private(address.ip())),
        Err(_) => false,
    }
}

/// The addresses from which this machine would send to the internet. Nothing is sent.
fn own_addresses() -> Vec<IpAddr> {
    let elsewhere = ["8.8.8.8:53", "[2001:4860:4860::8888]:53"];
    let towards = |to: &str| {
        let from = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = std::net::UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    elsewhere.into_iter().filter_map(towards).collect()
}

/// True if only this machine and private networks reach a port that is bound to `bound` and advertised as `advertised`.
async fn is_closed_off(bound: IpAddr, advertised: &ListenerEndpoint) -> bool {
    let reached = if bound.is_unspecified() { own_addresses() } else { vec![bound] };
    reached.into_iter().all(is_private) && is_host_private(&advertised.host, advertised.port).await
}

impl PeerEndpoint {
    /// Binds the port of this machine for other nodes; `None` if none is configured.
    ///
    /// # Errors
    /// When the port cannot be bound, or is open to strangers.
    pub(super) async fn of_machine(config: &Config) -> Result<Option<Self>, StartError> {
        let Some(endpoint) = config.cluster_listener.clone() else { return Ok(None) };
        let listener = Listener { name: CLUSTER_LISTENER.to_owned(), endpoint, protocol: SecurityProtocol::Plaintext };
        let options = SocketOptions { backlog: config.network.backlog, ..SocketOptions::default() };
        let bound = BoundListener::bind(&listener, &options).await?;
        let advertised = advertised(config.cluster_advertised.as_ref(), &listener.endpoint, bound.address.port());
        if !config.insecure && !is_closed_off(bound.address.ip(), &advertised).await {
            return Err(StartError::Insecure(Endpoint { host: advertised.host, port: advertised.port }));
        }
        if config.insecure {
            tracing::warn!(
                "ottla.insecure=true: whoever reaches {} can read and change everything; close it off from others",
                bound.address
            );
        }
        let connector = Arc::new(TcpConnector);
        Ok(Some(Self { listener: bound.boxed(), advertised, connector, interceptor: None }))
    }
}

/// The address to advertise: the configured one, else the bound one, else the name of this machine.
fn advertised(advertised: Option<&Endpoint>, configured: &Endpoint, port: u16) -> ListenerEndpoint {
    let wanted = advertised.unwrap_or(configured);
    let host = match is_unspecified(&wanted.host) {
        true => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        false => wanted.host.clone(),
    };
    let port = if wanted.port == 0 { port } else { wanted.port };
    ListenerEndpoint { name: CLUSTER_LISTENER.to_owned(), host, port }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_private_networks_are_taken_for_safe() {
        for private in ["127.0.0.1", "10.1.2.3", "172.18.0.2", "192.168.1.1", "::1", "fd00::1", "::ffff:10.0.0.1"] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "0.0.0.0", "::"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn other_nodes_get_an_address_that_they_can_use() {
        let endpoint = |host: &str, port| Endpoint { host: host.to_owned(), port };
        let named = |endpoint: ListenerEndpoint| (endpoint.host, endpoint.port);
        assert_eq!(named(advertised(None, &endpoint("127.0.0.1", 0), 4711)), ("127.0.0.1".to_owned(), 4711));
        let configured = endpoint("n1", 19_091);
        assert_eq!(named(advertised(Some(&configured), &endpoint("", 9), 9)), ("n1".to_owned(), 19_091));
        assert!(!advertised(None, &endpoint("", 9), 9).host.is_empty());
    }
}
