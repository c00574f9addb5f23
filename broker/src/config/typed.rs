//! The node's configuration as typed values: made once from the table of settings, checked once, then only read.
//!
//! May not know: files, environment, flags (`sources`).

use std::path::PathBuf;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::listeners::{Endpoint, Listener};
use super::topic::TopicConfig;

/// Everything that a node is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// `node.id`, default 1.
    pub node_id: NodeId,
    /// `broker.rack`: the node's zone.
    pub rack: Option<String>,
    /// `ottla.cluster.id` (or `CLUSTER_ID`): an id to use instead of minting one.
    pub cluster_id: Option<String>,
    /// `log.dirs`, default `./data`.
    pub log_dirs: Vec<PathBuf>,
    /// `listeners`: what to bind. Default `PLAINTEXT://127.0.0.1:9092`.
    pub listeners: Vec<Listener>,
    /// `advertised.listeners`: what clients are told; as `listeners` when not set.
    pub advertised_listeners: Vec<Listener>,
    /// `inter.broker.listener.name`.
    pub inter_broker_listener_name: String,
    /// `ottla.admin.listener`, default `127.0.0.1:9644`; `none` switches it off.
    pub admin_listener: Option<Endpoint>,
    /// `ottla.cluster.listener`: transport between nodes.
    pub cluster_listener: Option<Endpoint>,
    /// `ottla.cluster.seeds`.
    pub cluster_seeds: Vec<Endpoint>,
    /// Connections and requests.
    pub network: NetworkConfig,
    /// The log.
    pub log: LogConfig,
    /// Topics: what is made when clients do not say.
    pub topics: TopicsConfig,
    /// Classic and consumer groups.
    pub group: GroupConfig,
    /// Committed offsets.
    pub offsets: OffsetsConfig,
    /// Producers and transactions.
    pub transaction: TransactionConfig,
}

/// Connections and requests.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// `socket.request.max.bytes`, default 100 MiB.
    pub request_bytes_max: usize,
    /// `max.connections`.
    pub connections_max: usize,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: usize,
    /// `connections.max.idle.ms`, default 10 minutes.
    pub idle_ms_max: u64,
    /// `queued.max.requests`: of all connections.
    pub queued_requests_max: usize,
    /// `queued.max.request.bytes`: request bytes in flight of all connections.
    pub queued_bytes_max: usize,
    /// `ottla.connection.queued.requests`: pipelined requests of one connection.
    pub connection_requests_max: usize,
    /// `ottla.request.read.timeout.ms`: a request must have arrived whole this long after its first byte.
    pub request_read_timeout_ms: u64,
    /// `socket.send.buffer.bytes`; `None` leaves it to the system.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the system.
    pub receive_buffer_bytes: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub backlog: u32,
    /// `fetch.max.bytes`: the most a fetch answers.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `ottla.log.segment.bytes`, default 256 MiB.
    pub segment_bytes: u64,
    /// `ottla.sync`, default true. False is for tests: a power cut loses acknowledged records.
    pub sync: bool,
    /// `log.retention.check.interval.ms`, default 5 minutes.
    pub retention_check_interval_ms: u64,
    /// `ottla.disk.reserve.bytes`: produce is refused when less is free.
    pub disk_reserve_bytes: u64,
    /// `replica.lag.time.max.ms`, default 30 s.
    pub replica_lag_ms_max: u64,
}

/// Topics.
#[derive(Debug, Clone)]
pub struct TopicsConfig {
    /// `num.partitions`, default 1.
    pub num_partitions: i32,
    /// `default.replication.factor`; `None`: min(3, nodes).
    pub default_replication_factor: Option<i16>,
    /// `auto.create.topics.enable`, default true.
    pub auto_create: bool,
    /// `delete.topic.enable`, default true.
    pub delete_enable: bool,
    /// `ottla.topic.partitions.max`: the most partitions a topic may have.
    pub partitions_per_topic_max: i32,
    /// `ottla.cluster.partitions.max`: the most partitions of all topics.
    pub partitions_max: u64,
    /// What a topic is configured as when nothing is set for it (the `log.*` settings).
    pub defaults: Arc<TopicConfig>,
}

/// Groups.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`, default 3 s.
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`, default 6 s.
    pub session_timeout_ms_min: u64,
    /// `group.max.session.timeout.ms`, default 30 minutes.
    pub session_timeout_ms_max: u64,
    /// `group.max.size`: members of a classic group.
    pub members_max: usize,
}

/// Committed offsets.
#[derive(Debug, Clone)]
pub struct OffsetsConfig {
    /// `offsets.topic.num.partitions`, default 50.
    pub topic_partitions: i32,
    /// `offsets.topic.replication.factor`, default 3; fewer nodes make it fewer.
    pub topic_replication_factor: i16,
    /// `offsets.retention.minutes`, default 7 days.
    pub retention_ms: u64,
    /// `offsets.retention.check.interval.ms`, default 10 minutes.
    pub retention_check_interval_ms: u64,
    /// `offset.metadata.max.bytes`, default 4,096.
    pub metadata_bytes_max: usize,
    /// `offsets.commit.timeout.ms`, default 5 s.
    pub commit_timeout_ms: u64,
}

/// Producers and transactions.
#[derive(Debug, Clone)]
pub struct TransactionConfig {
    /// `transaction.state.log.num.partitions`, default 50.
    pub topic_partitions: i32,
    /// `transaction.state.log.replication.factor`, default 3; fewer nodes make it fewer.
    pub topic_replication_factor: i16,
    /// `transaction.state.log.min.isr`, default 2.
    pub topic_min_isr: i32,
    /// `transaction.max.timeout.ms`, default 15 minutes.
    pub timeout_ms_max: u64,
    /// `transactional.id.expiration.ms`, default 7 days.
    pub id_expiration_ms: u64,
    /// `producer.id.expiration.ms`, default one day.
    pub producer_id_expiration_ms: u64,
}
