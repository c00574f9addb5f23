//! A simulated node while its process runs: the production code from the disk to the coordinators, over simulated
//! disks, network and clocks.
//!
//! May not know: faults, clients, laws.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::config::{Config, LivenessConfig, TopicConfig};
use ottla_broker::coordinator::group::{GroupSettings, Groups, PartitionWriter};
use ottla_broker::coordinator::lag::Lags;
use ottla_broker::handlers::context::{Directory, Domain};
use ottla_broker::handlers::fetch::session::FetchSessions;
use ottla_broker::handlers::kafka_dispatch::Kafka;
use ottla_broker::metadata::{
    self, CLUSTER_LISTENER, DirectoryRecord, ListenerEndpoint, LocalNode, MetadataHandle, MetadataImage, PeerTable,
    Seeds, bootstrap_address, node_rpc_address,
};
use ottla_broker::metrics::Metrics;
use ottla_broker::partition::Partitions;
use ottla_broker::server::budget::Budget;
use ottla_broker::shard::{LeaderTaskSettings, Shards};
use ottla_protocol::ids::PartitionId;
use ottla_raft::{RaftHost, RaftOptions, SimNetwork};
use ottla_storage::data_dir::{DataDir, DataDirOptions, RecoveredReplica};
use ottla_storage::env::disk::Disk;
use ottla_storage::env::rt;
use ottla_storage::env::sim::SimNode;
use ottla_storage::env::sim::disk::SimDisk;
use ottla_storage::env::watch;
use ottla_storage::ids::ReplicaId;
use ottla_storage::log::LogOptions;
use ottla_storage::rewrite::RewriteOptions;

use crate::profile::Tuning;
use crate::registry::{OFFSETS_PARTITIONS, broker, node_of};

/// An entry that is still needed after so much more was written is relocated: seen by a node that is isolated for a
/// second.
const RELOCATION_BYTES: u64 = 32 << 10;
const RETENTION_MS: i64 = 7 * 86_400_000;
/// Of records; each node's default differs. No run lasts so long: records that expire did so by a wrong clock.
const RECORDS_RETENTION_MS: i64 = 7 * 86_400_000;
const PATH: &str = "/data";
/// The listener for clients.
pub(crate) const LISTENER: &str = "PLAINTEXT";

/// How long a node keeps its session without a heartbeat.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
/// The time between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// How long a stopping node waits until its stop is recorded in the metadata.
const ANNOUNCE_WAIT: Duration = Duration::from_secs(1);
/// How long a stopping node waits for the transfer of its leaderships.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);

/// A node whose process runs.
pub(crate) struct RunningNode {
    pub(crate) node: SimNode,
    /// Counts the starts of all nodes: another process of the same node has another number.
    pub(crate) incarnation: u64,
    pub(crate) directory: Arc<DataDir>,
    pub(crate) host: RaftHost,
    /// The nodes' addresses, as far as this one has them.
    pub(crate) places: Arc<PeerTable>,
    pub(crate) metadata: MetadataHandle,
    pub(crate) shards: Shards,
    /// Serves connections.
    pub(crate) kafka: Kafka,
    pub(crate) partitions: Partitions,
    pub(crate) groups: Groups,
    /// The replicas that its directory held when it started.
    pub(crate) recovered: Vec<RecoveredReplica>,
}

fn data_dir_options(node: SimNode, tuning: Tuning) -> DataDirOptions {
    let log = LogOptions {
        // Small, so that a run has many segments.
        segment_bytes: tuning.segment_bytes,
        segment_batches_max: tuning.segment_batches_max,
        cache_bytes_max: tuning.cache_bytes,
        reserve_bytes: 0,
        zero_ahead_bytes_per_second: 0,
        ..LogOptions::default()
    };
    DataDirOptions {
        node_id: broker(node).0,
        log,
        checkpoint_bytes: 64 << 10,
        checkpoint_interval: tuning.checkpoint_interval,
        rewrite: RewriteOptions {
            interval: Duration::from_millis(200),
            patience: Duration::ZERO,
            run_bytes: 1 << 20,
            ..RewriteOptions::default()
        },
        maintenance_interval: Duration::from_millis(100),
        reclaim_interval: tuning.reclaim_interval,
        relocation_bytes: RELOCATION_BYTES,
        ..DataDirOptions::default()
    }
}

fn raft_options(tuning: Tuning) -> RaftOptions {
    RaftOptions { purge_horizon_bytes: tuning.purge_horizon_bytes, ..RaftOptions::default() }
}

fn upkeep() -> LeaderTaskSettings {
    LeaderTaskSettings {
        retention_check: Duration::from_secs(1),
        producer_check: Duration::from_secs(2),
        offsets_check: Duration::from_millis(500),
        ..LeaderTaskSettings::default()
    }
}

fn group_settings() -> GroupSettings {
    GroupSettings {
        initial_rebalance_delay_ms: 100,
        session_timeout_ms_min: 100,
        session_timeout_ms_max: 60_000,
        members_max: 100,
        metadata_bytes_max: 4_096,
        commit_timeout: Duration::from_secs(5),
        retention_ms: RETENTION_MS,
        retention_check_interval_ms: 1_000,
    }
}

/// A node's settings. Those that must not affect replicated state differ between the nodes on purpose.
fn config(node: SimNode) -> Config {
    let mut config = Config::default();
    config.node_id = broker(node);
    config.offsets.topic_partitions = OFFSETS_PARTITIONS;
    // Often enough that leaders are rebalanced within a run.
    config.replication.leader_check_interval = Duration::from_secs(3);
    config.liveness = LivenessConfig { session_timeout: SESSION_TIMEOUT, heartbeat_interval: HEARTBEAT_INTERVAL };
    config.topics.auto_create = false;
    config.topics.defaults = Arc::new(TopicConfig {
        retention_ms: Some(RECORDS_RETENTION_MS + i64::from(node.0)),
        message_timestamp_after_max_ms: i64::MAX,
        ..TopicConfig::default()
    });
    config
}

fn local(node: SimNode, directory: &DataDir) -> LocalNode {
    let host = format!("node-{}", node.0);
    let listener = |name: &str, port| ListenerEndpoint { name: name.into(), host: host.clone(), port };
    let listeners = vec![listener(LISTENER, 9092), listener(CLUSTER_LISTENER, 19092)];
    let space = DirectoryRecord { id: directory.directory_id(), path: PATH.into(), free_bytes: 1 << 40 };
    LocalNode { id: broker(node), rack: None, listeners, directories: vec![space] }
}

/// Keeps the simulated network informed of the nodes that replicas are on.
async fn follow_places(network: SimNetwork, mut images: watch::Receiver<Arc<MetadataImage>>) {
    loop {
        let image = images.borrow_and_update().clone();
        for replica in image.shards.values().flat_map(|shard| shard.members()) {
            network.set_location(replica.id, node_of(replica.node));
        }
        if images.changed().await.is_err() {
            return;
        }
    }
}

/// The seed nodes in a node's configuration, the first `told` ones. The simulated network is told where they are, and
/// where the founders' metadata replicas are.
fn seeds(node: SimNode, founders: u32, told: u32, network: &SimNetwork, places: Arc<PeerTable>) -> Seeds {
    for founder in (1..=founders).map(SimNode) {
        network.set_location(ReplicaId(u64::from(founder.0)), founder);
        network.set_location(bootstrap_address(broker(founder)), founder);
        network.set_location(node_rpc_address(broker(founder)), founder);
    }
    network.set_location(bootstrap_address(broker(node)), node);
    network.set_location(node_rpc_address(broker(node)), node);
    let all: Vec<_> = (1..=told).map(|n| (broker(SimNode(n)), format!("node-{n}:19092"))).collect();
    Seeds::of(broker(node), &all, places)
}

impl RunningNode {
    /// Log start and high watermark that the node shows, if it carries the partition.
    pub(crate) fn marks(&self, id: PartitionId) -> Option<(i64, i64)> {
        let all = self.shards.all();
        let shown = all.iter().find_map(|shard| shard.read_view().get(id).map(|view| view.offsets()))?;
        Some((shown.log_start.0, shown.high_watermark.0))
    }

    /// First half of a clean stop, while clients are still served: leaderships are transferred.
    pub(crate) async fn hand_over(&self) {
        self.groups.stop();
        self.host.transfer_leaderships(HAND_OVER_WAIT).await;
        self.metadata.announce_stop(ANNOUNCE_WAIT).await;
    }

    /// Second half: everything written is kept, and nothing is left for recovery.
    pub(crate) async fn close(&self) -> Result<(), String> {
        self.host.shutdown().await;
        let _removals = self.shards.end_removals().await;
        self.directory.close().await.map_err(|error| error.to_string())
    }

    /// True if the node has been unregistered and has stopped its replicas: its process ends then.
    pub(crate) fn is_unregistered(&self) -> bool {
        let has_stopped = self.metadata.group().role().borrow().stopped;
        let is_expelled = self.metadata.removed_from_cluster().borrow().is_some();
        has_stopped && (is_expelled || self.metadata.image().is_decommissioned(broker(self.node)))
    }

    /// Starts a node from what its disk holds; returns the reason if it refuses to start.
    pub(crate) async fn start(
        node: SimNode,
        incarnation: u64,
        (founders, nodes): (u32, u32),
        disk: SimDisk,
        network: SimNetwork,
        tuning: Tuning,
        on_open: impl FnOnce(&Arc<DataDir>, &[RecoveredReplica]),
    ) -> Result<Self, String> {
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let found = DataDir::open(disk, Path::new(PATH), data_dir_options(node, tuning)).await;
        let (directory, recovered) = found.map_err(|error| error.to_string())?;
        on_open(&directory, &recovered);
        let places = Arc::new(PeerTable::default());
        let host = RaftHost::new(network.for_node(node, places.clone()), raft_options(tuning));
        // A node that has left the cluster is given all nodes as seeds: one that founded its cluster alone could not
        // rejoin otherwise.
        let seeds = match directory.has_left() {
            true => seeds(node, founders, nodes, &network, places.clone()).join_only(),
            false => seeds(node, founders, founders, &network, places.clone()),
        };
        network.attach(node, host.clone());
        let config = Arc::new(config(node));
        let home = (directory.clone() as Arc<dyn ottla_raft::Directory>, directory.directory_id());
        let kept = metadata::metadata_among(&recovered);
        let local = local(node, &directory);
        let metadata = MetadataHandle::start(&host, home, kept, local, config.clone(), seeds).await;
        let metadata = metadata.map_err(|error| error.to_string())?;
        rt::spawn(follow_places(network, metadata.watch()));
        let directories = [(directory.directory_id(), directory.clone())].into_iter().collect();
        let registry = Arc::new(metadata.clone());
        let shards = Shards::new(broker(node), host.clone(), directories, registry.clone(), upkeep());
        let carrying = recovered.iter().filter(|replica| !metadata::is_metadata(replica));
        shards.open(carrying.map(|replica| (&directory, replica))).await;
        shards.start();
        let partitions = Partitions::new(shards.clone());
        let groups = Groups::new(group_settings(), PartitionWriter::start(registry, partitions.clone()));
        let known = Directory { id: directory.directory_id(), path: PATH.into(), data: directory.clone() };
        let domain = Domain {
            metadata: metadata.clone(),
            partitions: partitions.clone(),
            groups: groups.clone(),
            lags: Lags::new(groups.clone(), partitions.clone()),
            metrics: Metrics::new(&config.metrics),
            sessions: Arc::new(FetchSessions::new(config.network.fetch_sessions_max)),
            answers: Budget::new(config.network.queued_bytes_max),
            directories: Arc::from([known]),
            config,
        };
        metadata.start_heartbeats();
        let kafka = Kafka::new(domain);
        Ok(Self { node, incarnation, directory, host, places, metadata, shards, kafka, partitions, groups, recovered })
    }
}
