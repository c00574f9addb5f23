//! A simulated node while its process runs: the node that ships, over simulated disks, network and clocks.
//!
//! May not know: faults, clients, laws.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::admin::Readiness;
use ottla_broker::config::{Config, Endpoint, Listener, LivenessConfig, SecurityProtocol, TopicConfig};
use ottla_broker::coordinator::group::Groups;
use ottla_broker::metadata::{CLUSTER_LISTENER, ListenerEndpoint, MetadataHandle};
use ottla_broker::node::{Node, NodeOptions, PeerEndpoint, World};
use ottla_broker::partition::Partitions;
use ottla_broker::server::listener::BoundListener;
use ottla_broker::shard::{LeaderTaskSettings, Shards};
use ottla_env::sim::SimNode;
use ottla_env::sim::disk::SimDisk;
use ottla_env::sim::net::SimListener;
use ottla_protocol::ids::PartitionId;
use ottla_raft::{RaftHost, RaftOptions, SimNetwork, peer_address};
use ottla_storage::data_dir::{DataDir, DataDirOptions, RecoveredReplica};
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::{LogOptions, ReplicaLog};
use ottla_storage::rewrite::RewriteOptions;
use parking_lot::Mutex;

use crate::profile::Tuning;
use crate::registry::{OFFSETS_PARTITIONS, broker, rack};

/// An entry that is still needed after so much more was written is relocated: seen by a node that is isolated for a
/// second.
const RELOCATION_BYTES: u64 = 32 << 10;
/// Of records; each node's default differs. No run lasts so long: records that expire did so by a wrong clock.
const RECORDS_RETENTION_MS: i64 = 7 * 86_400_000;
/// So small that the state of a shard has many parts.
const STATE_PART_BYTES: usize = 256;
const PATHS: [&str; 2] = ["/data", "/data-2"];
/// The listener for clients.
pub(crate) const LISTENER: &str = "PLAINTEXT";

/// How long a node keeps its session without a heartbeat.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// The time between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A data directory, and the replicas that it held when it was opened.
pub(crate) type Opened = (Arc<DataDir>, Vec<RecoveredReplica>);

/// A node whose process runs.
pub(crate) struct RunningNode {
    pub(crate) node: SimNode,
    /// Counts the starts of all nodes: another process of the same node has another number.
    pub(crate) incarnation: u64,
    /// What its process runs.
    pub(crate) process: Node,
    /// Where clients connect.
    pub(crate) port: SimListener,
    /// Its data directories; the first one holds the metadata.
    pub(crate) directories: Vec<Arc<DataDir>>,
    pub(crate) host: RaftHost,
    pub(crate) metadata: MetadataHandle,
    pub(crate) shards: Shards,
    pub(crate) partitions: Partitions,
    pub(crate) groups: Groups,
    /// The replicas that its directories held when it started.
    pub(crate) recovered: Vec<RecoveredReplica>,
}

/// What no setting names.
fn options(tuning: Tuning) -> NodeOptions {
    let log = LogOptions {
        segment_batches_max: tuning.segment_batches_max,
        cache_bytes_max: tuning.cache_bytes,
        zero_ahead_bytes_per_second: 0,
        ..LogOptions::default()
    };
    let data_dir = DataDirOptions {
        log,
        checkpoint_bytes: 64 << 10,
        checkpoint_interval: tuning.checkpoint_interval,
        rewrite: RewriteOptions {
            patience: Duration::ZERO,
            key_map_bytes: tuning.key_map_bytes,
            ..RewriteOptions::default()
        },
        maintenance_interval: Duration::from_millis(100),
        reclaim_interval: tuning.reclaim_interval,
        relocation_bytes: RELOCATION_BYTES,
        ..DataDirOptions::default()
    };
    let leader_tasks = LeaderTaskSettings {
        offsets_check: Duration::from_millis(500),
        compaction_check: tuning.compaction_check,
        ..LeaderTaskSettings::default()
    };
    let raft = RaftOptions {
        purge_horizon_bytes: tuning.purge_horizon_bytes,
        state_part_bytes: STATE_PART_BYTES,
        state_check_interval: Duration::from_secs(1),
        state_check_entries: 16,
        ..RaftOptions::default()
    };
    NodeOptions { data_dir, raft, leader_tasks, ..NodeOptions::default() }
}

/// A node's settings. Those that must not affect replicated state differ between the nodes on purpose.
fn config(node: SimNode, seeds: Vec<Endpoint>, tuning: Tuning) -> Config {
    let mut config = Config::default();
    config.node_id = broker(node);
    config.levels = tuning.levels;
    config.log_dirs = PATHS[..tuning.directories].iter().map(PathBuf::from).collect();
    let ListenerEndpoint { name, host, port } = listener(node, LISTENER, 9092);
    config.listeners =
        vec![Listener { name, endpoint: Endpoint { host, port }, protocol: SecurityProtocol::Plaintext }];
    config.cluster_seeds = seeds;
    config.rack = tuning.is_widened.then(|| rack(node));
    config.admin_listener = None;
    // Small, so that a run has many segments.
    config.log.segment_bytes = u64::from(tuning.segment_bytes);
    config.log.disk_reserve_bytes = 0;
    config.log.rewriter_backoff_ms = 200;
    config.log.run_bytes = 1 << 20;
    config.log.retention_check_interval_ms = 1_000;
    config.offsets.topic_partitions = OFFSETS_PARTITIONS;
    config.offsets.retention_check_interval_ms = 1_000;
    config.transaction.producer_id_expiration_check_interval_ms = 2_000;
    config.transaction.topic_partitions = 2;
    config.transaction.abort_interval_ms = 500;
    config.group.initial_rebalance_delay_ms = 100;
    config.group.session_timeout_ms_min = 100;
    config.group.session_timeout_ms_max = 60_000;
    config.group.members_max = 100;
    // Often enough that leaders are rebalanced within a run.
    config.replication.leader_check_interval = Duration::from_secs(3);
    config.liveness = LivenessConfig { session_timeout: SESSION_TIMEOUT, heartbeat_interval: HEARTBEAT_INTERVAL };
    config.topics.auto_create = false;
    config.topics.defaults = Arc::new(TopicConfig {
        retention_ms: Some(RECORDS_RETENTION_MS + i64::from(node.0)),
        message_timestamp_after_max_ms: i64::MAX,
        compression_type: tuning.compression_type,
        min_insync_replicas: tuning.min_in_sync,
        ..TopicConfig::default()
    });
    config
}

fn listener(node: SimNode, name: &str, port: u16) -> ListenerEndpoint {
    ListenerEndpoint { name: name.into(), host: format!("node-{}", node.0), port }
}

/// The port at which a node listens for others.
const PEER_PORT: u16 = 19_092;

/// The seeds of a node: the founders, or all nodes if an operator has named them. A node that founds its cluster alone
/// has none.
pub(crate) fn seeds(node: SimNode, founders: u32, named: Option<u32>) -> Vec<Endpoint> {
    let endpoint = |n: u32| Endpoint { host: format!("node-{n}"), port: PEER_PORT };
    match named {
        None if founders == 1 && node.0 == 1 => Vec::new(),
        None => (1..=founders).map(endpoint).collect(),
        Some(all) => (1..=all).filter(|n| *n != node.0).map(endpoint).collect(),
    }
}

/// How a node reaches the others over the simulated network, and is reached.
fn peer_endpoint(node: SimNode, network: &SimNetwork) -> PeerEndpoint {
    let machines = network.machines.clone();
    let bound = SocketAddr::from((Ipv4Addr::LOCALHOST, PEER_PORT));
    PeerEndpoint {
        listener: BoundListener::opened_by(CLUSTER_LISTENER, bound, move || {
            Ok(machines.listen(node, &peer_address(node)))
        }),
        advertised: listener(node, CLUSTER_LISTENER, PEER_PORT),
        connector: network.machines.connector(node),
        interceptor: Some(network.interceptor(node)),
    }
}

impl RunningNode {
    /// The directory that holds a replica.
    pub(crate) fn directory_of(&self, replica: ReplicaId) -> Option<&Arc<DataDir>> {
        self.directories.iter().find(|directory| directory.replica_log(replica).is_some())
    }

    /// The log of one of its replicas.
    pub(crate) fn replica_log(&self, replica: ReplicaId) -> Option<ReplicaLog> {
        self.directories.iter().find_map(|directory| directory.replica_log(replica))
    }

    /// Why a directory has failed, if one has.
    pub(crate) fn poisoned(&self) -> Option<Arc<str>> {
        self.directories.iter().find_map(|directory| directory.poisoned())
    }

    /// Log start and high watermark that the node shows, if it carries the partition.
    pub(crate) fn marks(&self, id: PartitionId) -> Option<(i64, i64)> {
        let all = self.shards.all();
        let shown = all.iter().find_map(|shard| shard.read_view().get(id).map(|view| view.offsets()))?;
        Some((shown.log_start.0, shown.high_watermark.0))
    }

    /// Starts a node from what its disk holds; returns the reason if it refuses to start.
    pub(crate) async fn start(
        node: SimNode,
        incarnation: u64,
        seeds: Vec<Endpoint>,
        disk: SimDisk,
        network: SimNetwork,
        tuning: Tuning,
        on_open: impl Fn(&[Opened]) + Send + Sync + 'static,
    ) -> Result<Self, String> {
        network.machines.power_on(node);
        let port = SimListener::default();
        let bound = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
        let found = Arc::new(Mutex::new(Vec::new()));
        let finds = found.clone();
        let world = World {
            disk: Arc::new(disk),
            listeners: vec![BoundListener::of(LISTENER, bound, Box::new(port.clone()))],
            peers: Some(peer_endpoint(node, &network)),
            options: options(tuning),
            on_open: Some(Arc::new(move |directory, recovered| {
                let mut found = finds.lock();
                found.push((directory.clone(), recovered.to_vec()));
                if found.len() == tuning.directories {
                    on_open(&found);
                }
            })),
        };
        let process = Node::start(world, config(node, seeds, tuning), Readiness::default()).await;
        let process = process.map_err(|error| error.to_string())?;
        let (directories, recovered): (Vec<_>, Vec<_>) = std::mem::take(&mut *found.lock()).into_iter().unzip();
        let domain = process.domain().clone();
        Ok(Self {
            node,
            incarnation,
            directories,
            host: process.host().clone(),
            metadata: domain.metadata,
            shards: process.shards().clone(),
            partitions: domain.partitions,
            groups: domain.groups,
            recovered: recovered.concat(),
            port,
            process,
        })
    }
}
