//! Listeners and endpoints: `NAME://host:port`, several by comma; a name's security protocol by map.
//!
//! May not know: sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::ConfigError;
use super::setting::split_list;
use super::values::Values;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Name or address; empty means all addresses.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

/// The security protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS.
    Ssl,
    /// Authenticated, not encrypted.
    SaslPlaintext,
    /// TLS and authenticated.
    SaslSsl,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, upper case.
    pub name: String,
    /// The address to bind.
    pub endpoint: Endpoint,
    /// The security protocol.
    pub protocol: SecurityProtocol,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.endpoint)
    }
}

fn invalid(setting: &str, value: &str, why: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { name: setting.to_owned(), value: value.to_owned(), why: why.into() }
}

/// `host:port`, `[v6]:port` or `:port`.
pub(super) fn parse_endpoint(setting: &str, value: &str) -> Result<Endpoint, ConfigError> {
    let (host, port) = value.rsplit_once(':').ok_or_else(|| invalid(setting, value, "expected host:port"))?;
    let port = port.parse().map_err(|_| invalid(setting, value, "the port is not a number up to 65535"))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| invalid(setting, value, "a ] is missing"))?,
        None if host.contains(':') => return Err(invalid(setting, value, "an IPv6 address belongs in [ ]")),
        None => host,
    };
    Ok(Endpoint { host: host.to_owned(), port })
}

/// Several endpoints by comma.
pub(super) fn parse_endpoints(setting: &str, value: &str) -> Result<Vec<Endpoint>, ConfigError> {
    split_list(value).map(|one| parse_endpoint(setting, one)).collect()
}

/// `host:port`, or nothing for an empty value and for `none`.
pub(super) fn parse_optional(setting: &str, value: Option<String>) -> Result<Option<Endpoint>, ConfigError> {
    match value.as_deref() {
        None | Some("" | "none") => Ok(None),
        Some(value) => parse_endpoint(setting, value).map(Some),
    }
}

type ProtocolMap = BTreeMap<String, SecurityProtocol>;

fn parse_protocols(value: &str) -> Result<ProtocolMap, ConfigError> {
    let setting = "listener.security.protocol.map";
    let mut map = BTreeMap::new();
    for pair in split_list(value) {
        let (name, protocol) = pair.split_once(':').ok_or_else(|| invalid(setting, pair, "expected NAME:PROTOCOL"))?;
        let protocol = match protocol.trim().to_ascii_uppercase().as_str() {
            "PLAINTEXT" => SecurityProtocol::Plaintext,
            "SSL" => SecurityProtocol::Ssl,
            "SASL_PLAINTEXT" => SecurityProtocol::SaslPlaintext,
            "SASL_SSL" => SecurityProtocol::SaslSsl,
            _ => return Err(invalid(setting, pair, "the protocol must be PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")),
        };
        map.insert(name.trim().to_ascii_uppercase(), protocol);
    }
    Ok(map)
}

fn parse_listeners(setting: &str, value: &str, protocols: &ProtocolMap) -> Result<Vec<Listener>, ConfigError> {
    let mut listeners = Vec::new();
    for one in split_list(value) {
        let (name, rest) = one.split_once("://").ok_or_else(|| invalid(setting, one, "expected NAME://host:port"))?;
        let name = name.trim().to_ascii_uppercase();
        let protocol = *protocols
            .get(&name)
            .ok_or_else(|| invalid(setting, one, format!("listener.security.protocol.map has no {name}")))?;
        listeners.push(Listener { name, endpoint: parse_endpoint(setting, rest)?, protocol });
    }
    Ok(listeners)
}

/// The listener settings, checked together.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) bound: Vec<Listener>,
    pub(super) advertised: Vec<Listener>,
    pub(super) inter_broker: String,
}

fn check_distinct(setting: &str, value: &str, listeners: &[Listener], ports: bool) -> Result<(), ConfigError> {
    let names: BTreeSet<_> = listeners.iter().map(|listener| &listener.name).collect();
    if names.len() != listeners.len() {
        return Err(invalid(setting, value, "a listener name is there twice"));
    }
    let places: Vec<_> = listeners.iter().map(|listener| &listener.endpoint).filter(|place| place.port != 0).collect();
    let distinct: BTreeSet<_> = places.iter().collect();
    if ports && distinct.len() != places.len() {
        return Err(invalid(setting, value, "two listeners have the same host and port"));
    }
    Ok(())
}

/// Reads and checks all listener settings. `unneeded` are listener names that only Kafka's controllers use.
pub(super) fn read_listeners(values: &Values, unneeded: &[String]) -> Result<Listeners, ConfigError> {
    let protocols = parse_protocols(&values.text("listener.security.protocol.map"))?;
    let keep = |listener: &Listener| !unneeded.contains(&listener.name);
    let text = values.text("listeners");
    let mut bound = parse_listeners("listeners", &text, &protocols)?;
    bound.retain(keep);
    check_distinct("listeners", &text, &bound, true)?;
    if bound.is_empty() {
        return Err(invalid("listeners", &text, "no listener is left for clients"));
    }
    if let Some(listener) = bound.iter().find(|listener| listener.protocol != SecurityProtocol::Plaintext) {
        return Err(invalid("listeners", &listener.to_string(), "this release serves PLAINTEXT listeners only"));
    }
    let mut advertised = match values.string("advertised.listeners") {
        Some(text) => {
            let mut listeners = parse_listeners("advertised.listeners", &text, &protocols)?;
            listeners.retain(keep);
            check_distinct("advertised.listeners", &text, &listeners, false)?;
            if let Some(unroutable) = listeners.iter().find(|listener| is_unspecified(&listener.endpoint.host)) {
                let why = "clients cannot connect to it: name the host they can reach";
                return Err(invalid("advertised.listeners", &unroutable.to_string(), why));
            }
            listeners
        }
        None => Vec::new(),
    };
    if let Some(unbound) = advertised.iter().find(|a| !bound.iter().any(|listener| listener.name == a.name)) {
        return Err(invalid("advertised.listeners", &unbound.to_string(), "no listener of that name is in listeners"));
    }
    for listener in &bound {
        if !advertised.iter().any(|a| a.name == listener.name) {
            advertised.push(listener.clone());
        }
    }
    let inter_broker = match values.string("inter.broker.listener.name") {
        Some(name) => {
            let name = name.to_ascii_uppercase();
            if !bound.iter().any(|listener| listener.name == name) {
                return Err(invalid("inter.broker.listener.name", &name, "no listener of that name is in listeners"));
            }
            name
        }
        None => bound.first().map(|listener| listener.name.clone()).unwrap_or_default(),
    };
    Ok(Listeners { bound, advertised, inter_broker })
}

/// True for addresses that mean "all addresses of this host": clients on other hosts cannot connect to them.
#[must_use]
pub fn is_unspecified(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "::")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Source;

    fn read(settings: &[(&'static str, &str)], unneeded: &[&str]) -> Result<Listeners, ConfigError> {
        let mut values = Values::default();
        for (name, value) in settings {
            values.set(name, Source::File, (*value).to_owned());
        }
        read_listeners(&values, &unneeded.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_compose_file_of_kafka_is_understood() {
        let settings = [
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093,DOCKER://0.0.0.0:19092"),
            ("advertised.listeners", "PLAINTEXT://localhost:9092,DOCKER://broker:19092"),
            ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DOCKER:PLAINTEXT"),
            ("inter.broker.listener.name", "DOCKER"),
        ];
        let listeners = read(&settings, &["CONTROLLER"]).unwrap();
        let names: Vec<_> = listeners.bound.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["PLAINTEXT://:9092", "DOCKER://0.0.0.0:19092"]);
        assert_eq!(listeners.advertised[1].to_string(), "DOCKER://broker:19092");
        assert_eq!(listeners.inter_broker, "DOCKER");
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        for (settings, why) in [
            (vec![("listeners", "A://:1")], "has no A"),
            (vec![("listeners", "PLAINTEXT://:1,PLAINTEXT://:2")], "twice"),
            (vec![("listeners", "127.0.0.1:9092")], "NAME://"),
            (vec![("listeners", "PLAINTEXT://::1:9092")], "[ ]"),
            (vec![("listeners", "PLAINTEXT://h:99999")], "65535"),
            (vec![("listeners", "SSL://:9093")], "PLAINTEXT"),
            (vec![("listeners", "")], "no listener"),
            (vec![("advertised.listeners", "PLAINTEXT://0.0.0.0:9092")], "cannot connect"),
            (vec![("advertised.listeners", "SSL://h:9092")], "no listener of that name"),
            (vec![("inter.broker.listener.name", "X")], "no listener of that name"),
        ] {
            let error = read(&settings, &[]).unwrap_err().to_string();
            assert!(error.contains(why), "{settings:?}: {error}");
        }
        assert_eq!(parse_endpoint("x", "[::1]:9092").unwrap().to_string(), "[::1]:9092");
    }
}
