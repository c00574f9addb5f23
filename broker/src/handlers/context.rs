//! The context of a request: the handles of the node that a handler may call, and the connection the request came on.
//!
//! One context per connection (and client id), shared by its requests; cheap to clone. May not know: sockets.

use std::ops::Deref;
use std::sync::Arc;

use crate::config::Config;
use crate::coordinator::group::Groups;
use crate::coordinator::lag::Lags;
use crate::coordinator::transaction::{TransactionPeers, Transactions};
use crate::handlers::authorization::Principal;
use crate::handlers::fetch::session::FetchSessions;
use crate::handlers::produce::pending_refusals::PendingRefusals;
use crate::log_levels::LogLevels;
use crate::metadata::MetadataHandle;
use crate::metrics::Metrics;
use crate::partition::Partitions;
use crate::server::budget::Budget;
use crate::server::dispatch::Peer;
use ottla_storage::data_dir::DataDir;
use uuid::Uuid;

/// The connection and the client that a request came from.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The connection's identity, listener and address.
    pub peer: Peer,
    /// The user on whose behalf the client sends.
    pub principal: Principal,
    /// The client id of the request's header; empty if the client sent none.
    pub client_id: Arc<str>,
}

impl ConnectionInfo {
    /// The client's address as DescribeGroups shows it: Kafka writes `/10.0.0.7`.
    #[must_use]
    pub fn client_host(&self) -> String {
        format!("/{}", self.peer.address.ip().to_canonical())
    }
}

/// A data directory of this node, for DescribeLogDirs and metrics.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Its random id.
    pub id: Uuid,
    /// Its absolute path.
    pub path: String,
    /// Its storage.
    pub data: Arc<DataDir>,
}

/// The handles of a node that handlers may call.
#[derive(Clone)]
pub struct Domain {
    /// The node's configuration.
    pub config: Arc<Config>,
    /// What the node logs.
    pub log_levels: Arc<LogLevels>,

    /// Nodes, topics, configs.
    pub metadata: MetadataHandle,

    /// Partitions as clients may see them.
    pub partitions: Partitions,
    /// Consumer groups.
    pub groups: Groups,
    /// The coordinator of transactions.
    pub transactions: Transactions,
    /// Leaders of partitions and coordinators on other nodes, for transactions.
    pub transaction_peers: TransactionPeers,
    /// Lag of consumer groups.
    pub lags: Lags,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// Incremental fetch sessions.
    pub sessions: Arc<FetchSessions>,
    /// The memory budget of responses in flight.
    pub answers: Budget,
    /// The node's data directories.
    pub directories: Arc<[Directory]>,
}

/// The argument of every handler; the node's handles are reached through it: `ctx.partitions`.
#[derive(Clone)]
pub struct Context {
    /// The handles of the node.
    pub domain: Domain,
    /// The connection of the request.
    pub connection: ConnectionInfo,
    /// Batches that this connection had refused before their partition was found.
    pub pending_refusals: Arc<PendingRefusals>,
}

impl Deref for Context {
    type Target = Domain;
    fn deref(&self) -> &Domain {
        &self.domain
    }
}
