//! What a handler is given: the domain handles of the node, and who asks.
//!
//! One context per connection (and client id), shared by its requests; cheap to clone. May not know: sockets.

use std::sync::Arc;

use crate::config::Config;
use crate::server::dispatch::Peer;

/// Who asks.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The connection's identity, listener and address.
    pub peer: Peer,
    /// The client id of the request's header; empty if the client sent none.
    pub client_id: Arc<str>,
}

impl ConnectionInfo {
    /// The client's address as group members are described: Kafka writes `/10.0.0.7`.
    #[must_use]
    pub fn client_host(&self) -> String {
        format!("/{}", self.peer.address.ip().to_canonical())
    }
}

/// What handlers may call. More handles join as their floors are built.
#[derive(Debug, Clone)]
pub struct Context {
    /// The node's configuration.
    pub config: Arc<Config>,
    /// Who asks.
    pub connection: ConnectionInfo,
}
