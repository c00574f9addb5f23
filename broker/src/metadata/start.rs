//! Starts the metadata on a node: the group is opened from disk, joined or founded, then the node is registered.
//!
//! May not know: connections, partitions.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::{rt, watch};
use ottla_protocol::ids::NodeId;
use ottla_raft::{Creation, Directory, EntryLog, GroupHandle, Membership, RaftError, RaftHost};
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::EntryKind;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use ottla_storage::log::EntryRange;
use thiserror::Error;
use uuid::Uuid;

use super::balancer;
use super::bootstrap_service::{BootstrapService, ReplicaAssignment};
use super::discovery::{Seeds, discover, founder, keep_learning_members};
use super::error::MetadataError;
use super::handle::{MetadataHandle, random_uuid};
use super::heartbeats;
use super::image::{DirectoryRecord, ListenerEndpoint, MetadataImage, NodeRecord, NodeState, ReplicaRecord, ShardKind};
use super::leader_locator;
use super::liveness::Liveness;
use super::membership_reconciler;
use super::records::ShardCreation;
use super::registration::NodeRegistration;
use super::removal_detector;
use super::replica::MetadataReplica;
use super::state_machine::MetadataStateMachine;
use crate::config::Config;

/// How long a node waits for its metadata group to have a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two checks for other members of the group.
const MEMBERS_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The most bytes of entries per read.
const READ_BYTES: usize = 4 << 20;

/// What a node registers about itself when it starts.
#[derive(Debug, Clone)]
pub struct LocalNode {
    /// Broker id.
    pub id: NodeId,
    /// Zone.
    pub rack: Option<String>,
    /// The addresses that are advertised, by listener.
    pub listeners: Vec<ListenerEndpoint>,
    /// Its data directories.
    pub directories: Vec<DirectoryRecord>,
}

impl LocalNode {
    /// As configured. Ports that the system chose must be filled in by the caller that bound them.
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

/// The host to advertise: one that means "all addresses" becomes `localhost`, which clients on this machine can use.
fn advertised_host(host: &str) -> String {
    if crate::config::listeners::is_unspecified(host) { "localhost".to_owned() } else { host.to_owned() }
}

/// Why the metadata cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The group cannot be opened or created.
    #[error("metadata group: {0}")]
    Raft(#[from] RaftError),
    /// The only replica lost entries. Their contents are unknown, so an operator must decide to continue without them.
    #[error(
        "metadata group: replica {replica}: {what}; where this node is the only one of its cluster, `ottla unsafe-recover --accept-loss {replica}` shows what is lost, and with --execute has the node go on without it (docs/operations.md)"
    )]
    Lost {
        /// The replica.
        replica: ReplicaId,
        /// What is known of the loss.
        what: String,
    },
    /// The checkpoint was written by a newer release, or is damaged.
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
    /// Several seeds, but no listener for other nodes: each node would found a cluster of its own and replicate
    /// nothing.
    #[error(
        "ottla.cluster.seeds (or controller.quorum.voters) names {0} nodes, but ottla.cluster.listener (or a listener of controller.listener.names) does not say where they reach this one"
    )]
    ManySeeds(usize),
    /// The node was removed from its cluster, and no seed of a cluster is configured.
    #[error(
        "this node was unregistered and holds nothing of its cluster any more: name nodes of the cluster in ottla.cluster.seeds and it joins them again, or give it an empty directory and it founds another cluster"
    )]
    LeftAlone,
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

/// The recovered replica of the metadata group: the last one, if it has come in the place of others that were lost; else one whose creation record is gone, which may have been it: the
/// node held data, so it must not start as a new node.
#[must_use]
pub fn metadata_among(recovered: &[RecoveredReplica]) -> Option<&RecoveredReplica> {
    let nameless = |replica: &&RecoveredReplica| replica.lost.is_some() && replica.creation.is_empty();
    let known = recovered.iter().filter(|replica| is_metadata(replica)).max_by_key(|replica| replica.id);
    known.or_else(|| recovered.iter().find(nameless))
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

/// The metadata as of the last entry on disk, committed or not: for tools that inspect a node that is down.
///
/// # Errors
/// When it cannot be read.
pub async fn newest_image(
    config: &Config,
    replica: &RecoveredReplica,
    log: &dyn EntryLog,
) -> Result<Arc<MetadataImage>, StartError> {
    let applied = replica.applied.map_or(RaftIndex(0), |applied| applied.index);
    let mut machine = MetadataStateMachine::restore(Arc::new(config.clone()), applied, &replica.state)?;
    let last = log.last_log_id().map_or(applied, |last| last.index);
    let mut next = RaftIndex(applied.0 + 1);
    while next <= last {
        let unreadable = |error: std::io::Error| RaftError::Storage { replica: replica.id, what: error.to_string() };
        let entries = log.read_to_apply(EntryRange { first: next, last }, READ_BYTES).await.map_err(unreadable)?;
        let Some(end) = entries.last().map(|entry| entry.log_id.index) else { break };
        for entry in &entries {
            match entry.kind {
                EntryKind::Normal => drop(machine.apply(entry.log_id.index, &entry.payload)?),
                EntryKind::Blank | EntryKind::Membership => machine.advance(entry.log_id.index),
            }
        }
        next = RaftIndex(end.0 + 1);
    }
    Ok(Arc::new(machine.image().clone()))
}

impl MetadataHandle {
    /// Opens the metadata group's replica of a node, or creates it in the group that `seeds` belong to or found, and
    /// registers the node. `home` is the directory of the replica and its id: the recovered replica's, else the first.
    /// The only node of a cluster is registered when this returns; any other node serves from its replica, and
    /// registers in the background.
    ///
    /// # Errors
    /// When the group cannot be opened, belongs to another cluster, or gets no leader.
    pub async fn start(
        host: &RaftHost,
        home: (Arc<dyn Directory>, Uuid),
        recovered: Option<&RecoveredReplica>,
        local: LocalNode,
        config: Arc<Config>,
        seeds: Seeds,
    ) -> Result<Self, StartError> {
        let (directory, directory_id) = home;
        let alone = seeds.seed_nodes.is_none();
        if alone && config.cluster_size() > 1 {
            return Err(StartError::ManySeeds(config.cluster_size()));
        }
        let mut registration = registration_of(local, &config);
        if alone && recovered.is_none() && !seeds.may_found {
            return Err(StartError::LeftAlone);
        }
        let bootstrap =
            BootstrapService::open(host, config.node_id, directory_id, recovered.is_none() && seeds.may_found);
        let opened = match recovered {
            Some(replica) => open_or_give_up(host, &directory, replica, &config, alone).await?,
            None => None,
        };
        if let (Some(replica), None) = (recovered, &opened) {
            registration.lost.push(replica.id);
        }
        let (group, images, founders) = match opened {
            Some(opened) => opened,
            None => {
                let own = ReplicaAssignment { replica: founder(0, config.node_id, directory_id), is_founder: true };
                let (founders, assignment) = match &seeds.seed_nodes {
                    None => (vec![own.replica], own),
                    Some(seed_nodes) => {
                        discover(host, config.node_id, &**seed_nodes, directory_id, &registration, seeds.may_found)
                            .await
                    }
                };
                bootstrap.set_assigned();
                create(host, &directory, founders, assignment, &config).await?
            }
        };
        registration.founders = match founders.is_empty() {
            // 0.2.0 recorded no founders: its clusters had one node.
            true => vec![ReplicaRecord { id: group.replica(), node: config.node_id, directory: directory_id }],
            false => founders.clone(),
        };
        seeds.peer_table.add_founders(&founders);
        let metadata =
            Self::new(config.node_id, host.clone(), group, images, Arc::clone(&config), registration.clone());
        bootstrap.set_cluster(&metadata, founders);
        // Without one of these tasks the node would appear healthy but not be. So if one panics the replica of the
        // metadata stops, and with it the node.
        let owner = metadata.group().owner();
        rt::spawn_critical("peer-addresses", owner.clone(), seeds.peer_table.clone().follow(metadata.watch()));
        metadata.spawn_leader_locator(host, &seeds);
        let alone = alone && metadata.leads_alone().await?;
        metadata.check_cluster_id(&config)?;
        metadata.spawn_leader_tasks();
        if alone {
            metadata.register(registration).await?;
        } else {
            metadata.spawn_registration(host, registration, &seeds);
        }
        let own = ReplicaRecord { id: metadata.group().replica(), node: config.node_id, directory: directory_id };
        let detector = removal_detector::run(metadata.downgrade(), host.downgrade(), own, seeds.seed_nodes);
        rt::spawn_critical("removal-detector", owner, detector);
        Ok(metadata)
    }

    /// A node that is configured for one cluster does not serve another.
    fn check_cluster_id(&self, config: &Config) -> Result<(), StartError> {
        let found = self.image().cluster_id.to_string();
        match &config.cluster_id {
            Some(expected) if !found.is_empty() && *expected != found => {
                Err(StartError::OtherCluster { found, expected: expected.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The tasks that work while this replica leads.
    fn spawn_leader_tasks(&self) {
        let owner = self.group().owner();
        let shared = || (self.downgrade(), self.group().clone(), self.watch());
        let (weak, group, images) = shared();
        rt::spawn_critical("metadata-members", owner.clone(), membership_reconciler::run(weak, group, images));
        let (weak, group, images) = shared();
        rt::spawn_critical("balancer", owner.clone(), balancer::run(weak, group, images));
        let fenced_heartbeats = self.controller_client().fenced_heartbeats();
        let (weak, group, images) = shared();
        let sessions = heartbeats::keep_sessions(weak, group, images, fenced_heartbeats);
        rt::spawn_critical("node-sessions", owner, sessions);
    }

    /// Keeps known where the group's leader is.
    fn spawn_leader_locator(&self, host: &RaftHost, seeds: &Seeds) {
        let (seed_nodes, peer_table) = (seeds.seed_nodes.clone(), seeds.peer_table.clone());
        let locator = leader_locator::run(self.downgrade(), host.downgrade(), seed_nodes, peer_table);
        rt::spawn_critical("leader-locator", self.group().owner(), locator);
    }

    /// Registers the node in the background, and learns meanwhile from the seeds where the members are.
    fn spawn_registration(&self, host: &RaftHost, registration: NodeRegistration, seeds: &Seeds) {
        let joining = self.clone().keep_registering(registration);
        let (weak, node, peer_table) = (host.downgrade(), self.node_id(), seeds.peer_table.clone());
        let seed_nodes = seeds.seed_nodes.clone();
        rt::spawn_critical("registration", self.group().owner(), async move {
            let Some(seed_nodes) = seed_nodes else { return joining.await };
            tokio::select! {
                biased;
                () = joining => {}
                () = keep_learning_members(weak, node, seed_nodes, peer_table) => {}
            }
        });
    }

    /// Waits until this replica leads, as the only voter does. False if it is not the only voter: others may have
    /// joined the cluster that it founded alone, and one of them may lead.
    async fn leads_alone(&self) -> Result<bool, StartError> {
        let (mut role, own) = (self.group().role(), self.group().replica());
        let settled = async {
            loop {
                let now = *role.borrow_and_update();
                let has_others = self.group().membership().voters.iter().flatten().any(|voter| *voter != own);
                if has_others && !mutants::is_on(Bug::LoneFounderWaitsToLead) {
                    return Ok(false);
                }
                if now.ready {
                    return Ok(true);
                }
                let changed = rt::timeout(MEMBERS_CHECK_INTERVAL, role.changed()).await;
                if now.stopped || matches!(changed, Ok(Err(_))) {
                    let why = self.group().failure().map_or_else(|| "stopped".to_owned(), |why| why.to_string());
                    return Err(StartError::Register(MetadataError::Stopped(why)));
                }
            }
        };
        rt::timeout(LEADER_TIMEOUT, settled).await.unwrap_or(Err(StartError::NoLeader))
    }
}

type Opened = (GroupHandle, watch::Receiver<Arc<MetadataImage>>, Vec<ReplicaRecord>);

/// Opens the recovered replica. `None`: its log is damaged, so it is given up, to be rebuilt from the other members.
async fn open_or_give_up(
    host: &RaftHost,
    directory: &Arc<dyn Directory>,
    replica: &RecoveredReplica,
    config: &Arc<Config>,
    alone: bool,
) -> Result<Option<Opened>, StartError> {
    match open(host, directory, replica, config).await {
        Err(StartError::Raft(RaftError::Damaged { replica, what })) if alone => Err(StartError::Lost { replica, what }),
        Err(StartError::Raft(RaftError::Damaged { replica, what })) => {
            tracing::error!(replica = replica.0, "metadata group: {what}; it is rebuilt under a new id");
            Ok(None)
        }
        opened => Ok(Some(opened?)),
    }
}

async fn open(
    host: &RaftHost,
    directory: &Arc<dyn Directory>,
    replica: &RecoveredReplica,
    config: &Arc<Config>,
) -> Result<Opened, StartError> {
    let applied = replica.applied.map_or(RaftIndex(0), |applied| applied.index);
    let machine = MetadataStateMachine::restore(Arc::clone(config), applied, &replica.state)?;
    let (machine, images) = MetadataReplica::new(machine);
    let group = host.open(directory.clone(), replica, None, Box::new(machine)).await?;
    let creation = Creation::decode(replica.creation.clone()).map(|creation| ShardCreation::decode(&creation.shard));
    let founders = creation.and_then(Result::ok).map(|creation| creation.founders).unwrap_or_default();
    Ok((group, images, founders))
}

/// Creates the replica that is assigned: as one of the founders, or as an empty member.
async fn create(
    host: &RaftHost,
    directory: &Arc<dyn Directory>,
    founders: Vec<ReplicaRecord>,
    assignment: ReplicaAssignment,
    config: &Arc<Config>,
) -> Result<Opened, StartError> {
    let (machine, images) = MetadataReplica::new(MetadataStateMachine::new(Arc::clone(config)));
    let members = match assignment.is_founder {
        true => Membership::of(founders.iter().map(|founder| founder.id)),
        false => Membership::default(),
    };
    let creation = ShardCreation::metadata(founders.clone()).encode();
    let group = host.create(directory.clone(), assignment.replica.id, creation, members, Box::new(machine)).await?;
    Ok((group, images, founders))
}

pub(super) fn registration_of(local: LocalNode, config: &Config) -> NodeRegistration {
    NodeRegistration {
        node: NodeRecord {
            id: local.id,
            rack: local.rack,
            listeners: local.listeners,
            directories: local.directories,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            levels: config.levels,
            epoch: RaftIndex(0),
            state: NodeState::Active,
            liveness: Liveness::default(),
        },
        cluster_id: config.cluster_id.clone().unwrap_or_else(mint_cluster_id),
        founders: Vec::new(),
        lost: Vec::new(),
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
