//! From what lies on disk to a metadata group that runs: opened or founded, the node registered, the pool recorded.
//!
//! May not know: connections, partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::NodeId;
use ottla_raft::{Creation, Directory, Members, RaftError, RaftHost};
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::env::rt;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use thiserror::Error;
use uuid::Uuid;

use super::controller::{Metadata, random_uuid};
use super::decide::Join;
use super::error::MetadataError;
use super::image::{DirectoryRecord, ListenerEndpoint, NodeRecord, ReplicaRecord, ShardKind};
use super::machine::Machine;
use super::records::ShardCreation;
use super::replica::MetadataReplica;
use crate::config::Config;

/// The metadata group's replica on a node that founds a cluster alone.
const FIRST_REPLICA: ReplicaId = ReplicaId(1);
/// A node that could not register tries again after this long.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
/// How long a node waits for its metadata group to have a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a node says about itself when it starts.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// Broker id.
    pub id: NodeId,
    /// Zone.
    pub rack: Option<String>,
    /// What clients are told, by listener.
    pub listeners: Vec<ListenerEndpoint>,
    /// Its data directories.
    pub directories: Vec<DirectoryRecord>,
}

impl LocalNode {
    /// As configured. Ports that the system chose must be filled in by who bound them.
    #[must_use]
    pub fn from_config(config: &Config, directories: Vec<DirectoryRecord>) -> Self {
        let endpoint = |listener: &crate::config::Listener| ListenerEndpoint {
            name: listener.name.clone(),
            host: advertised_host(&listener.endpoint.host),
            port: listener.endpoint.port,
        };
        Self {
            id: config.node_id,
            rack: config.rack.clone(),
            listeners: config.advertised_listeners.iter().map(endpoint).collect(),
            directories,
        }
    }
}

/// A host that clients can be told: one that means "all addresses" becomes this host, as clients on it can use.
fn advertised_host(host: &str) -> String {
    if crate::config::listeners::is_unspecified(host) { "localhost".to_owned() } else { host.to_owned() }
}

/// The nodes that found a cluster together, known to each of them beforehand: the first voters of the metadata group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founders {
    own: ReplicaId,
    members: BTreeMap<ReplicaId, NodeId>,
}

impl Founders {
    /// One node alone.
    #[must_use]
    pub fn alone(node: NodeId) -> Self {
        Self { own: FIRST_REPLICA, members: BTreeMap::from([(FIRST_REPLICA, node)]) }
    }

    /// These nodes, in the same order on each of them; `None` if `node` is not one of them.
    #[must_use]
    pub fn of(node: NodeId, nodes: &[NodeId]) -> Option<Self> {
        let members: BTreeMap<_, _> = (FIRST_REPLICA.0..).map(ReplicaId).zip(nodes.iter().copied()).collect();
        let own = *members.iter().find(|(_, member)| **member == node)?.0;
        Some(Self { own, members })
    }

    /// The metadata group's replica of each node.
    #[must_use]
    pub fn replicas(&self) -> &BTreeMap<ReplicaId, NodeId> {
        &self.members
    }
}

/// Why the metadata cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The group cannot be opened or created.
    #[error("metadata group: {0}")]
    Raft(#[from] RaftError),
    /// What it holds was written by a newer release, or is damaged.
    #[error("metadata checkpoint: {0}; if a newer release wrote it, upgrade this node")]
    Checkpoint(#[from] crate::codec::CodecError),
    /// The data belongs to another cluster.
    #[error(
        "the data directory belongs to cluster {found}, the configuration names {expected}: correct ottla.cluster.id (CLUSTER_ID) or log.dirs"
    )]
    OtherCluster {
        /// The cluster of the data.
        found: String,
        /// The cluster configured.
        expected: String,
    },
    /// Several seeds: each node would found a cluster of its own and replicate nothing.
    #[error(
        "ottla.cluster.seeds (or controller.quorum.voters) names {0} nodes, but this release runs one node; name one or none"
    )]
    ManySeeds(usize),
    /// The group has no leader.
    #[error("metadata group: no leader within {} s", LEADER_TIMEOUT.as_secs())]
    NoLeader,
    /// The node could not be registered.
    #[error("cannot register this node: {0}")]
    Register(#[from] MetadataError),
}

/// True for the recovered replica of the metadata group.
#[must_use]
pub fn is_metadata(recovered: &RecoveredReplica) -> bool {
    let creation = Creation::decode(recovered.creation.clone());
    let shard = creation.and_then(|creation| ShardCreation::decode(&creation.shard).ok());
    shard.is_some_and(|shard| shard.kind == ShardKind::Metadata)
}

/// A new cluster's id: 16 random bytes as 22 characters of base64url, as Kafka writes them.
#[must_use]
pub fn mint_cluster_id() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        let bits = random_uuid().as_u128();
        let digit = |place: u32| {
            // 128 bits in 22 digits of 6 bits: the last digit holds two bits and four zeros.
            let value = if place == 21 { (bits & 3) << 4 } else { (bits >> (122 - 6 * place)) & 63 };
            char::from(DIGITS[usize::try_from(value).unwrap_or(0)])
        };
        let id: String = (0..22).map(digit).collect();
        if !id.starts_with('-') {
            return id;
        }
    }
}

impl Metadata {
    /// Opens the metadata group of a node, or founds one with `founders` where nothing was recovered, and registers the
    /// node. `home` is the directory of the group's replica and its id: the recovered one's, else the first. A node that is
    /// alone is registered when this returns; one of several serves from what it knows, and keeps trying behind.
    ///
    /// # Errors
    /// When the group cannot be opened, belongs to another cluster, or gets no leader.
    pub async fn start(
        host: &RaftHost,
        home: (Arc<dyn Directory>, Uuid),
        recovered: Option<&RecoveredReplica>,
        local: LocalNode,
        config: Arc<Config>,
        founders: Founders,
    ) -> Result<Self, StartError> {
        let (directory, directory_id) = home;
        if config.cluster_size() > founders.members.len() {
            return Err(StartError::ManySeeds(config.cluster_size()));
        }
        let machine = match recovered {
            Some(replica) => {
                let applied = replica.applied.map_or(RaftIndex(0), |applied| applied.index);
                Machine::restore(Arc::clone(&config), applied, &replica.state)?
            }
            None => Machine::new(Arc::clone(&config)),
        };
        let (machine, images) = MetadataReplica::new(machine);
        let group = match recovered {
            Some(replica) => host.open(directory, replica, Box::new(machine)).await?,
            None => {
                let members = Members::of(founders.members.keys().copied());
                let creation = ShardCreation::METADATA.encode();
                host.create(directory, founders.own, creation, members, Box::new(machine)).await?
            }
        };
        let alone = founders.members.len() == 1;
        let replica = ReplicaRecord { id: group.replica(), node: config.node_id, directory: directory_id };
        let metadata = Self::new(config.node_id, host.clone(), group, images, Arc::clone(&config));
        if alone {
            metadata.wait_for_leader().await?;
        }
        let founded = metadata.image().cluster_id.to_string();
        if let Some(expected) =
            config.cluster_id.as_ref().filter(|expected| !founded.is_empty() && **expected != founded)
        {
            return Err(StartError::OtherCluster { found: founded, expected: expected.clone() });
        }
        let join = join_of(local, &config, replica, founders.members);
        if alone {
            metadata.join(join).await?;
        } else {
            rt::spawn(metadata.clone().keep_joining(join));
        }
        Ok(metadata)
    }

    /// Registers the node as soon as the group can; a group without a quorum stops no node.
    async fn keep_joining(self, join: Join) {
        loop {
            match self.join(join.clone()).await {
                Ok(()) => return,
                Err(MetadataError::Stopped(why)) => return tracing::error!("this node is not registered: {why}"),
                Err(error) => tracing::warn!("this node is not registered yet: {error}"),
            }
            rt::sleep(JOIN_PAUSE).await;
        }
    }

    async fn wait_for_leader(&self) -> Result<(), StartError> {
        let mut role = self.group().role();
        let ready = async {
            loop {
                let now = *role.borrow_and_update();
                if now.ready {
                    return Ok(());
                }
                if now.stopped || role.changed().await.is_err() {
                    let why = self.group().failure().map_or_else(|| "stopped".to_owned(), |why| why.to_string());
                    return Err(StartError::Register(MetadataError::Stopped(why)));
                }
            }
        };
        rt::timeout(LEADER_TIMEOUT, ready).await.unwrap_or(Err(StartError::NoLeader))
    }
}

fn join_of(
    local: LocalNode,
    config: &Config,
    metadata_replica: ReplicaRecord,
    founders: BTreeMap<ReplicaId, NodeId>,
) -> Join {
    Join {
        node: NodeRecord {
            id: local.id,
            rack: local.rack,
            listeners: local.listeners,
            directories: local.directories,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: RaftIndex(0),
        },
        cluster_id: config.cluster_id.clone().unwrap_or_else(mint_cluster_id),
        metadata_replica,
        founders,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_looks_as_kafkas() {
        let id = mint_cluster_id();
        assert_eq!(id.len(), 22);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
        assert_ne!(id, mint_cluster_id());
    }
}
