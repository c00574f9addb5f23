//! The transport to other nodes: their connections, the Raft groups that they reach, the seeds that discovery asks.
//!
//! May not know: sockets, and whether the network is real.

use std::sync::Arc;

use ottla_env::net::Connector;
use ottla_raft::{
    Identity, Interceptor, Listening, LocalDelivery, MessageHandler, Network, PeerDirectory, PeerNetwork, RaftHost,
    RaftOptions,
};

use super::error::StartError;
use super::seed_resolver::SeedResolver;
use crate::config::Config;
use crate::metadata::{ListenerEndpoint, PeerTable, Seeds};
use crate::server::listener::BoundListener;

/// How a node of a cluster of several is reached by the others, and reaches them.
pub struct PeerEndpoint {
    /// The listener for other nodes: bound, and opened with the transport.
    pub listener: BoundListener,
    /// Its address as this node advertises it to other nodes.
    pub advertised: ListenerEndpoint,
    /// Opens connections to other nodes.
    pub connector: Arc<dyn Connector>,
    /// A simulation observes messages here.
    pub interceptor: Option<Arc<dyn Interceptor>>,
}

/// The open transport to other nodes.
pub(super) struct Peers {
    /// The Raft groups of this node, reached by other nodes.
    pub(super) host: RaftHost,
    /// The nodes that discovery asks first.
    pub(super) seeds: Seeds,
    connections: Connections,
}

enum Connections {
    /// A cluster of one node: messages go to this while it is kept.
    None { _handler: Arc<dyn MessageHandler> },
    /// Connections are accepted until `_listening` is dropped.
    Open { network: PeerNetwork, _listening: Listening },
}

impl Peers {
    /// Opens the transport: from now on messages of other nodes reach the Raft groups. Without an endpoint the node is
    /// a cluster of its own.
    ///
    /// # Errors
    /// When the listener cannot be opened.
    pub(super) fn open(
        endpoint: Option<PeerEndpoint>,
        config: &Config,
        identity: Identity,
        options: RaftOptions,
    ) -> Result<Self, StartError> {
        let Some(PeerEndpoint { listener, connector, interceptor, .. }) = endpoint else {
            let delivery = Arc::new(LocalDelivery::default());
            let host = RaftHost::new(delivery.clone(), options);
            let handler: Arc<dyn MessageHandler> = Arc::new(host.clone());
            delivery.deliver_to(&handler);
            let connections = Connections::None { _handler: handler };
            return Ok(Self { host, seeds: Seeds::single_node(Arc::default()), connections });
        };
        let peer_table = Arc::new(PeerTable::default());
        let network = PeerNetwork::new(identity, connector, peer_table.clone());
        let sending: Arc<dyn Network> = Arc::new(network.clone());
        let sending = interceptor.as_ref().map_or(sending.clone(), |interceptor| interceptor.network(sending));
        let host = RaftHost::new(sending, options);
        suspect_closed_peers(&network, &host, &peer_table);
        let handler: Arc<dyn MessageHandler> = Arc::new(host.clone());
        let handler = interceptor.as_ref().map_or(handler.clone(), |interceptor| interceptor.handler(handler));
        let listening = network.listen(listener.open().map_err(StartError::Open)?, handler);
        let seeds = match config.cluster_seeds.is_empty() {
            true => Seeds::single_node(peer_table),
            false => {
                let resolver = SeedResolver::start(network.clone(), peer_table.clone(), &config.cluster_seeds);
                Seeds::resolved_by(resolver, peer_table)
            }
        };
        Ok(Self { host, seeds, connections: Connections::Open { network, _listening: listening } })
    }

    /// From now on connections to and from nodes of another cluster are refused.
    pub(super) fn set_cluster_id(&self, cluster_id: &str) {
        if let Connections::Open { network, .. } = &self.connections {
            network.set_cluster(cluster_id);
        }
    }
}

/// A node that closes a connection, as a dying process does, is suspected by the groups that have a replica there.
fn suspect_closed_peers(network: &PeerNetwork, host: &RaftHost, peer_table: &Arc<PeerTable>) {
    let (weak, locations) = (host.downgrade(), peer_table.clone());
    network.on_peer_closed(Arc::new(move |node, confirmation| {
        let locations = locations.clone();
        if let Some(host) = weak.upgrade() {
            let is_there = move |replica| locations.locate(replica).is_some_and(|found| found.node == node);
            host.suspect(is_there, async { confirmation.await.unwrap_or(false) });
        }
    }));
}
