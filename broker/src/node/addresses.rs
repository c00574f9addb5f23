//! The addresses that are advertised to clients, from the listeners as configured and as bound.
//!
//! `advertised.listeners` takes precedence; else the bound host is advertised, and `localhost` where all addresses are
//! bound. The port is the one that was actually bound. May not know: sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::listeners::is_unspecified;
use crate::config::{Endpoint, Listener};
use crate::metadata::ListenerEndpoint;

/// The host that is advertised where neither the setting nor the bound address names one.
const DEFAULT_HOST: &str = "localhost";

/// A listener as bound.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
}

/// The address that is advertised for each bound listener.
pub(super) fn advertised_endpoints(
    configured: &[Listener],
    advertised: &[Listener],
    bound: &[Bound],
) -> Vec<ListenerEndpoint> {
    let by_name = |listeners: &[Listener], name: &str| -> Option<Endpoint> {
        listeners.iter().find(|listener| listener.name == name).map(|listener| listener.endpoint.clone())
    };
    bound
        .iter()
        .map(|bound| {
            let here = by_name(configured, &bound.name);
            let advertised = by_name(advertised, &bound.name).or_else(|| here.clone());
            let advertised = advertised.unwrap_or(Endpoint { host: String::new(), port: 0 });
            let host = if is_unspecified(&advertised.host) { DEFAULT_HOST.to_owned() } else { advertised.host };
            // Port 0 of `listeners` was chosen by the system; an advertised port of 0 means the same one.
            let port = if advertised.port == 0 { bound.address.port() } else { advertised.port };
            ListenerEndpoint { name: bound.name.to_string(), host, port }
        })
        .collect()
}

/// A line of advice if clients on other machines get an address that works on this machine only; none if another
/// listener is meant for them.
pub(super) fn advice(bound: &[Bound], advertised: &[ListenerEndpoint]) -> Option<String> {
    let only_here =
        |advertised: &ListenerEndpoint| advertised.host == DEFAULT_HOST || advertised.host.starts_with("127.");
    if !advertised.iter().all(only_here) {
        return None;
    }
    let misled = bound.iter().zip(advertised).find(|(bound, _)| bound.address.ip().is_unspecified())?;
    Some(format!(
        "listener {} accepts clients from other machines, but tells them to connect to {}:{}, which only works on this \
         one; set advertised.listeners to a host that they can reach",
        misled.0.name, misled.1.host, misled.1.port
    ))
}

/// `host:port` pairs as clients write them into `bootstrap.servers`.
pub(super) fn bootstrap(advertised: &[ListenerEndpoint]) -> String {
    let endpoints = advertised
        .iter()
        .map(|advertised| Endpoint { host: advertised.host.clone(), port: advertised.port }.to_string());
    endpoints.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecurityProtocol;

    fn listener(name: &str, host: &str, port: u16) -> Listener {
        let endpoint = Endpoint { host: host.into(), port };
        Listener { name: name.into(), endpoint, protocol: SecurityProtocol::Plaintext }
    }

    fn bound(name: &str, address: &str) -> Bound {
        Bound { name: name.into(), address: address.parse().unwrap() }
    }

    #[test]
    fn clients_get_an_address_that_they_can_use() {
        let configured = [listener("PLAINTEXT", "127.0.0.1", 0), listener("ALL", "", 9092), listener("NAT", "", 1)];
        let advertised = [listener("NAT", "example.org", 19092)];
        let bound = [bound("PLAINTEXT", "127.0.0.1:40000"), bound("ALL", "[::]:9092"), bound("NAT", "[::]:1")];
        let endpoints = advertised_endpoints(&configured, &advertised, &bound);
        assert_eq!(bootstrap(&endpoints), "127.0.0.1:40000,localhost:9092,example.org:19092");
        assert_eq!(advice(&bound, &endpoints), None, "NAT is for clients elsewhere");
        assert!(advice(&bound[..2], &endpoints[..2]).is_some_and(|line| line.contains("listener ALL")));
        assert_eq!(advice(&bound[..1], &endpoints[..1]), None);
    }
}
