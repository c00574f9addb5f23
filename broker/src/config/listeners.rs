//! Listeners and endpoints: `NAME://host:port`, several by comma; a name's security protocol by map.
//!
//! May not know: sockets.

use std::fmt;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Name or address; empty means all addresses.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

/// How a listener talks.
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
    /// Where.
    pub endpoint: Endpoint,
    /// How.
    pub protocol: SecurityProtocol,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, self.endpoint)
    }
}
