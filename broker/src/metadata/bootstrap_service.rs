//! The bootstrap RPC: how a node finds its cluster, or founds it, before it holds any metadata.
//!
//!  request:  | version u8 | 0: locate | node i32 | directory uuid | lost u64 list |
//!            | version u8 | 1: register | fields |      | version u8 | 2: members |
//!  response: | version u8 | 0: uninitialized | directory uuid |   | 1: located | founders | own replica? |
//!            | 2: registered |   | 3: retry |   | 4: rejected | reason |   | 5: members | replica, address |
//!
//! A cluster is founded only when all nodes that are to found it respond that they hold nothing; the first of them
//! founds it. Every other node gets its replica of the metadata group assigned. The assignment is bound to the node's
//! data directory: a node whose disk was wiped is a new node and is registered as one. The service has an address of
//! its own, at the upper end of the replica ids. May not know: what a node does with its assignment.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::NodeId;
use ottla_raft::{RaftHost, Service};
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::error::MetadataError;
use super::handle::{Inner, MetadataHandle};
use super::image::{MetadataImage, ReplicaRecord, ShardId};
use super::registration::NodeRegistration;
use crate::codec::{CodecError, decode_version, encode_version, record};

const VERSION: u8 = 1;
/// Distance of the node RPC addresses below the bootstrap addresses.
const NODE_RPC_OFFSET: u64 = 1 << 32;

/// The address of a node's bootstrap service.
#[must_use]
pub fn bootstrap_address(node: NodeId) -> ReplicaId {
    ReplicaId(u64::MAX - u64::from(node.0.unsigned_abs()))
}

/// The address of a node's RPC service for what concerns no single replica: leadership updates, for one.
#[must_use]
pub fn node_rpc_address(node: NodeId) -> ReplicaId {
    ReplicaId(bootstrap_address(node).0 - NODE_RPC_OFFSET)
}

/// The node whose bootstrap or node RPC service has this address; `None` for the address of a replica.
#[must_use]
pub fn node_of_address(address: ReplicaId) -> Option<NodeId> {
    let node = (u64::MAX - address.0) % NODE_RPC_OFFSET;
    (address.0 > u64::MAX - 2 * NODE_RPC_OFFSET).then(|| i32::try_from(node).ok().map(NodeId)).flatten()
}

/// A request to a bootstrap service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BootstrapRequest {
    /// Returns the replica of the metadata group that this node has in this directory and that is not lost.
    Locate { node: NodeId, directory: Uuid, lost: Vec<ReplicaId> },
    /// Registers the node.
    Register(Box<NodeRegistration>),
    /// Returns the members of the metadata group. A node that knows only the founders cannot reach a leader that is
    /// none of them.
    Members,
}

/// The replica of the metadata group that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReplicaAssignment {
    pub(super) replica: ReplicaRecord,
    /// True if it is one of the group's first voters; otherwise it is empty until the leader sends it a snapshot or
    /// entries.
    pub(super) is_founder: bool,
}

/// The response of a bootstrap service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BootstrapResponse {
    /// This node holds nothing of a cluster in its directory.
    Uninitialized { directory: Uuid },
    /// There is a cluster; `assignment` is `None` if the node has no replica in it.
    Located { founders: Vec<ReplicaRecord>, assignment: Option<ReplicaAssignment> },
    /// The node is registered.
    Registered,
    /// The request is to be sent again later.
    Retry,
    /// The node is not registered, and why.
    Rejected(String),
    /// The replicas of the metadata group, and the addresses of their nodes.
    Members(Vec<Member>),
}

/// A replica of the metadata group, and `host:port` at which other nodes reach its node.
pub(super) type Member = (ReplicaRecord, String);

/// The members of the metadata group whose addresses the image contains.
fn members(image: &MetadataImage) -> Vec<Member> {
    let replicas = image.shard(ShardId::METADATA).into_iter().flat_map(|record| record.members());
    replicas.filter_map(|replica| Some((*replica, image.nodes.get(&replica.node)?.cluster_address()?))).collect()
}

record! {
    enum BootstrapRequest {
        0 Locate { node, directory, lost },
        1 Register(registration),
        2 Members,
    }
    enum BootstrapResponse {
        0 Uninitialized { directory },
        1 Located { founders, assignment },
        2 Registered,
        3 Retry,
        4 Rejected(reason),
        5 Members(members),
    }
    ReplicaAssignment { replica, is_founder }
}

impl BootstrapRequest {
    pub(super) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, bytes, "request")
    }
}

impl BootstrapResponse {
    pub(super) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, bytes, "response")
    }
}

/// What the service knows of the cluster.
enum Cluster {
    /// Discovery is under way. `uninitialized`: the node holds no data, so it cannot have voted in any group.
    Unknown {
        uninitialized: bool,
    },
    Known {
        metadata: Weak<Inner>,
        founders: Vec<ReplicaRecord>,
    },
}

/// A node's bootstrap service.
pub(super) struct BootstrapService {
    directory: Uuid,
    cluster: Mutex<Cluster>,
}

impl BootstrapService {
    /// Starts the service of `node`.
    pub(super) fn open(host: &RaftHost, node: NodeId, directory: Uuid, uninitialized: bool) -> Arc<Self> {
        let service = Arc::new(Self { directory, cluster: Mutex::new(Cluster::Unknown { uninitialized }) });
        let shared = Arc::clone(&service);
        let handler = move |_from: ReplicaId, request: Bytes| -> BoxFuture<'static, Option<Bytes>> {
            let service = Arc::clone(&shared);
            async move { Some(service.handle(BootstrapRequest::decode(&request).ok()?).await.encode()) }.boxed()
        };
        let handler: Service = Arc::new(handler);
        host.serve(bootstrap_address(node), handler);
        service
    }

    /// Sets the cluster that the node is part of.
    pub(super) fn set_cluster(&self, metadata: &MetadataHandle, founders: Vec<ReplicaRecord>) {
        *self.cluster.lock() = Cluster::Known { metadata: metadata.downgrade(), founders };
    }

    /// The node has an assignment: from now on it does not respond `Uninitialized` any more.
    pub(super) fn set_assigned(&self) {
        *self.cluster.lock() = Cluster::Unknown { uninitialized: false };
    }

    async fn handle(&self, request: BootstrapRequest) -> BootstrapResponse {
        let (metadata, founders) = match &*self.cluster.lock() {
            Cluster::Unknown { uninitialized: true } => {
                return BootstrapResponse::Uninitialized { directory: self.directory };
            }
            Cluster::Unknown { uninitialized: false } => return BootstrapResponse::Retry,
            Cluster::Known { metadata, founders } => (metadata.clone(), founders.clone()),
        };
        let Some(metadata) = MetadataHandle::upgrade(&metadata) else { return BootstrapResponse::Retry };
        match request {
            BootstrapRequest::Members => BootstrapResponse::Members(members(&metadata.image())),
            BootstrapRequest::Register(registration) => match metadata.register(*registration).await {
                Ok(()) => BootstrapResponse::Registered,
                Err(MetadataError::UnsupportedVersion(why)) => BootstrapResponse::Rejected(why),
                Err(_) => BootstrapResponse::Retry,
            },
            BootstrapRequest::Locate { node, directory, lost } => {
                let is_own = |replica: &&ReplicaRecord| {
                    let is_home = replica.directory == directory || mutants::is_on(Bug::WipedReplicaVotes);
                    replica.node == node && is_home && !lost.contains(&replica.id)
                };
                // The recorded replicas count; before they are recorded, the founders.
                let current = metadata.read_index().await.is_ok();
                let image = metadata.image();
                let assignment = match image.shard(ShardId::METADATA) {
                    // The node has removed its replica, which is still a member of the group.
                    Some(_) if !current || image.is_decommissioned(node) => return BootstrapResponse::Retry,
                    Some(record) => record
                        .replicas
                        .iter()
                        .find(is_own)
                        .map(|own| ReplicaAssignment { replica: *own, is_founder: record.founders.contains(&own.id) }),
                    None => {
                        let own = founders.iter().find(is_own);
                        // This node may lack all metadata yet: only a founder is answered without a read index.
                        if own.is_none() && !current && !mutants::is_on(Bug::LocatedWithoutMetadata) {
                            return BootstrapResponse::Retry;
                        }
                        own.map(|own| ReplicaAssignment { replica: *own, is_founder: true })
                    }
                };
                BootstrapResponse::Located { founders, assignment }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::Levels;
    use crate::metadata::image::{NodeRecord, NodeState};
    use ottla_storage::ids::RaftIndex;

    #[test]
    fn a_service_address_differs_from_a_replicas() {
        for node in [0, 1, i32::MAX].map(NodeId) {
            assert_eq!(node_of_address(bootstrap_address(node)), Some(node));
            assert_eq!(node_of_address(node_rpc_address(node)), Some(node));
        }
        assert_eq!(node_of_address(ReplicaId(1 << 40)), None);
    }

    #[test]
    fn requests_and_responses_round_trip_and_cut_bytes_are_refused() {
        let replica = ReplicaRecord { id: ReplicaId(3), node: NodeId(2), directory: Uuid::from_u128(5) };
        let node = NodeRecord {
            id: NodeId(2),
            rack: None,
            listeners: Vec::new(),
            directories: Vec::new(),
            version: "1".into(),
            levels: Levels::FIRST,
            epoch: RaftIndex(0),
            state: NodeState::Active,
            liveness: crate::metadata::Liveness::default(),
        };
        let registration =
            NodeRegistration { node, cluster_id: "c".into(), founders: vec![replica], lost: vec![ReplicaId(9)] };
        let locate =
            BootstrapRequest::Locate { node: NodeId(1), directory: replica.directory, lost: vec![ReplicaId(1)] };
        for request in [locate, BootstrapRequest::Register(Box::new(registration)), BootstrapRequest::Members] {
            let bytes = request.encode();
            assert!((0..bytes.len()).all(|cut| BootstrapRequest::decode(&bytes[..cut]).is_err()));
            assert_eq!(BootstrapRequest::decode(&bytes), Ok(request));
        }
        for response in [
            BootstrapResponse::Uninitialized { directory: replica.directory },
            BootstrapResponse::Located {
                founders: vec![replica; 2],
                assignment: Some(ReplicaAssignment { replica, is_founder: true }),
            },
            BootstrapResponse::Located { founders: Vec::new(), assignment: None },
            BootstrapResponse::Registered,
            BootstrapResponse::Retry,
            BootstrapResponse::Rejected("why".into()),
            BootstrapResponse::Members(vec![(replica, "n2:19092".into()); 2]),
        ] {
            let bytes = response.encode();
            assert!((0..bytes.len()).all(|cut| BootstrapResponse::decode(&bytes[..cut]).is_err()));
            assert_eq!(BootstrapResponse::decode(&bytes), Ok(response));
        }
    }
}
