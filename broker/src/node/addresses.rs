//! What clients are told to connect to, made from the listeners as configured and as bound.
//!
//! `advertised.listeners` wins; else the host that is bound, and `localhost` where all addresses are bound. The port is
//! the one that was really bound. May not know: sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::listeners::is_unspecified;
use crate::config::{Endpoint, Listener};
use crate::metadata::ListenerEndpoint;

/// What clients are told when nothing better is known.
const DEFAULT_HOST: &str = "localhost";

/// A listener as bound.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
}

/// What clients of each bound listener are told.
pub(super) fn told(configured: &[Listener], advertised: &[Listener], bound: &[Bound]) -> Vec<ListenerEndpoint> {
    let by_name = |listeners: &[Listener], name: &str| -> Option<Endpoint> {
        listeners.iter().find(|listener| listener.name == name).map(|listener| listener.endpoint.clone())
    };
    bound
        .iter()
        .map(|bound| {
            let here = by_name(configured, &bound.name);
            let told = by_name(advertised, &bound.name).or_else(|| here.clone());
            let told = told.unwrap_or(Endpoint { host: String::new(), port: 0 });
            let host = if is_unspecified(&told.host) { DEFAULT_HOST.to_owned() } else { told.host };
            // Port 0 of `listeners` was chosen by the system; an advertised port of 0 means the same one.
            let port = if told.port == 0 { bound.address.port() } else { told.port };
            ListenerEndpoint { name: bound.name.to_string(), host, port }
        })
        .collect()
}

/// A line of advice where clients elsewhere are told an address that only works here; not where another listener is
/// meant for them.
pub(super) fn advice(bound: &[Bound], told: &[ListenerEndpoint]) -> Option<String> {
    let only_here = |told: &ListenerEndpoint| told.host == DEFAULT_HOST || told.host.starts_with("127.");
    if !told.iter().all(only_here) {
        return None;
    }
    let misled = bound.iter().zip(told).find(|(bound, _)| bound.address.ip().is_unspecified())?;
    Some(format!(
        "listener {} accepts clients from other machines, but tells them to connect to {}:{}, which only works on this \
         one; set advertised.listeners to a host that they can reach",
        misled.0.name, misled.1.host, misled.1.port
    ))
}

/// `host:port` pairs as clients write them into `bootstrap.servers`.
pub(super) fn bootstrap(told: &[ListenerEndpoint]) -> String {
    let endpoints = told.iter().map(|told| Endpoint { host: told.host.clone(), port: told.port }.to_string());
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
    fn clients_are_told_what_they_can_use() {
        let configured = [listener("PLAINTEXT", "127.0.0.1", 0), listener("ALL", "", 9092), listener("NAT", "", 1)];
        let advertised = [listener("NAT", "example.org", 19092)];
        let bound = [bound("PLAINTEXT", "127.0.0.1:40000"), bound("ALL", "[::]:9092"), bound("NAT", "[::]:1")];
        let told = told(&configured, &advertised, &bound);
        assert_eq!(bootstrap(&told), "127.0.0.1:40000,localhost:9092,example.org:19092");
        assert_eq!(advice(&bound, &told), None, "NAT is for clients elsewhere");
        assert!(advice(&bound[..2], &told[..2]).is_some_and(|line| line.contains("listener ALL")));
        assert_eq!(advice(&bound[..1], &told[..1]), None);
    }
}
