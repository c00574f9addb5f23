//! The node's configuration as typed values: made once from the table of settings, checked once, then only read.
//!
//! May not know: files, environment, flags (`sources`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::NodeId;

use super::ConfigError;
use super::listeners::{Endpoint, Listener, parse_endpoints, parse_optional, read_listeners};
use super::metrics::MetricsConfig;
use super::setting::{address_count, split_list};
use super::table::setting;
use super::topic::TopicConfig;
use super::topic_table::topic_setting;
use super::values::{Source, Values};
use crate::levels::Levels;

/// The configuration of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// `node.id`, default 1.
    pub node_id: NodeId,
    /// `broker.rack`: the node's rack (availability zone).
    pub rack: Option<String>,
    /// `ottla.cluster.id` (or `CLUSTER_ID`): an id to use instead of minting one.
    pub cluster_id: Option<String>,
    /// `log.dirs`, default `./data`.
    pub log_dirs: Vec<PathBuf>,
    /// `listeners`: what to bind. Default `PLAINTEXT://127.0.0.1:9092`.
    pub listeners: Vec<Listener>,
    /// `advertised.listeners`: the addresses sent to clients; as `listeners` when not set.
    pub advertised_listeners: Vec<Listener>,
    /// `inter.broker.listener.name`.
    pub inter_broker_listener_name: String,
    /// `ottla.admin.listener`, default `127.0.0.1:9644`; `none` switches it off.
    pub admin_listener: Option<Endpoint>,
    /// `ottla.cluster.listener`: transport between nodes.
    pub cluster_listener: Option<Endpoint>,
    /// `ottla.cluster.advertised.listener`: the address sent to other nodes.
    pub cluster_advertised: Option<Endpoint>,
    /// `ottla.insecure`: other nodes may be reached over networks that are not private.
    pub insecure: bool,
    /// `ottla.cluster.seeds`.
    pub cluster_seeds: Vec<Endpoint>,
    /// Connections and requests.
    pub network: NetworkConfig,
    /// The log.
    pub log: LogConfig,
    /// Replicas and their leaders.
    pub replication: ReplicationConfig,
    /// Sessions of nodes.
    pub liveness: LivenessConfig,
    /// Topics: defaults and limits.
    pub topics: TopicsConfig,
    /// Classic and consumer groups.
    pub group: GroupConfig,
    /// Committed offsets.
    pub offsets: OffsetsConfig,
    /// Producers and transactions.
    pub transaction: TransactionConfig,
    /// The extent of the metrics page.
    pub metrics: MetricsConfig,
    /// `ottla.log.level`.
    pub log_level: String,
    /// The feature levels that this node understands: its build's. No setting: only tests have nodes of other releases.
    pub levels: Levels,
    /// Every setting as given, with its source.
    pub values: Values,
    /// Listener names that only Kafka's controllers use.
    pub(super) unneeded_listeners: Vec<String>,
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
    /// `max.connections.per.ip.overrides`.
    pub connections_per_ip_overrides: HashMap<IpAddr, usize>,
    /// `connections.max.idle.ms`, default 10 minutes; `u64::MAX` is never.
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
    /// `fetch.max.bytes`: the largest size of a Fetch response.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// `max.request.partition.size.limit`: partitions in one DescribeTopicPartitions response.
    pub described_partitions_max: usize,
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
    /// `ottla.rewriter.bytes.per.second`: bytes read and written to copy live batches out of mostly dead files; 0 is
    /// never.
    pub rewriter_bytes_per_second: u64,
    /// `log.cleaner.io.max.bytes.per.second`: the upper limit, also while space is short.
    pub rewriter_bytes_per_second_max: u64,
    /// `follower.replication.throttled.rate`: bytes per second that are written of what is moved or rebuilt here.
    pub import_bytes_per_second_max: u64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`: the same of what moves between directories of the node.
    pub move_bytes_per_second_max: u64,
    /// `ottla.rewriter.run.bytes`: length of a run, if there are enough live batches.
    pub run_bytes: u64,
    /// `log.cleaner.enable`: whether this node's leaders decide passes of compaction.
    pub compacts: bool,
    /// `log.cleaner.backoff.ms`: pause of the rewriter when there is nothing to do, and of leaders between two looks for what is to be
    /// compacted.
    pub rewriter_backoff_ms: u64,
    /// `ottla.scrub.bytes.per.second`: bytes verified a second, whether anybody reads them or not; 0 is none.
    pub scrub_bytes_per_second: u64,
    /// `replica.lag.time.max.ms`, default 30 s.
    pub replica_lag_ms_max: u64,
}

/// Replicas and their leaders.
#[derive(Debug, Clone)]
pub struct ReplicationConfig {
    /// `auto.leader.rebalance.enable`, default true.
    pub leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`, default 5 minutes.
    pub leader_check_interval: Duration,
    /// `leader.imbalance.per.broker.percentage`, default 10.
    pub leader_imbalance_percentage: u64,
    /// `ottla.balance.enable`, default true: whether load is spread over the nodes by itself.
    pub balance: bool,
}

/// Sessions of nodes.
#[derive(Debug, Clone)]
pub struct LivenessConfig {
    /// `broker.session.timeout.ms`, default 9 s.
    pub session_timeout: Duration,
    /// `broker.heartbeat.interval.ms`, default 2 s; three times a session at least.
    pub heartbeat_interval: Duration,
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
    /// The default configuration of topics (the `log.*` settings).
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
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`, default 10 s.
    pub abort_interval_ms: u64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`, default one hour.
    pub expiration_interval_ms: u64,
    /// `producer.id.expiration.ms`, default one day.
    pub producer_id_expiration_ms: u64,
    /// `producer.id.expiration.check.interval.ms`, default ten minutes.
    pub producer_id_expiration_check_interval_ms: u64,
}

/// Bytes of requests in flight when `queued.max.request.bytes` is "no limit": there is always a limit.
const QUEUED_BYTES_DEFAULT: usize = 256 << 20;

impl Default for Config {
    /// The defaults of the table.
    fn default() -> Self {
        match Self::build(Values::default(), Vec::new()) {
            Ok(config) => config,
            Err(error) => unreachable!("the table's defaults are valid: {error}"),
        }
    }
}

impl Config {
    /// The typed form of `values`, each of which was checked before; here they are checked together.
    pub(super) fn build(values: Values, unneeded_listeners: Vec<String>) -> Result<Self, ConfigError> {
        let v = &values;
        let listeners = read_listeners(v, &unneeded_listeners)?;
        let log_dirs = v.paths("log.dirs");
        if log_dirs.is_empty() {
            return Err(ConfigError::Invalid {
                name: "log.dirs".into(),
                value: String::new(),
                why: "name at least one".into(),
            });
        }
        let config = Self {
            node_id: NodeId(v.int("node.id")),
            rack: v.string("broker.rack"),
            cluster_id: v.string("ottla.cluster.id"),
            log_dirs,
            listeners: listeners.bound,
            advertised_listeners: listeners.advertised,
            inter_broker_listener_name: listeners.inter_broker,
            admin_listener: parse_optional("ottla.admin.listener", v.string("ottla.admin.listener"))?,
            cluster_listener: parse_optional("ottla.cluster.listener", v.string("ottla.cluster.listener"))?,
            cluster_advertised: parse_optional(
                "ottla.cluster.advertised.listener",
                v.string("ottla.cluster.advertised.listener"),
            )?,
            insecure: v.boolean("ottla.insecure"),
            cluster_seeds: parse_endpoints("ottla.cluster.seeds", &v.text("ottla.cluster.seeds"))?,
            network: NetworkConfig::build(v),
            log: LogConfig::build(v),
            replication: ReplicationConfig::build(v),
            liveness: LivenessConfig::build(v),
            topics: TopicsConfig::build(v),
            group: GroupConfig::build(v)?,
            offsets: OffsetsConfig::build(v),
            transaction: TransactionConfig::build(v),
            metrics: MetricsConfig::build(v)?,
            log_level: v.text("ottla.log.level"),
            levels: Levels::OWN,
            values,
            unneeded_listeners,
        };
        Ok(config)
    }

    /// This configuration with dynamic settings: those of all nodes and those of this one. An invalid
    /// dynamic value (accepted by another release) is left out.
    #[must_use]
    pub fn with_dynamic(&self, for_all: &BTreeMap<String, String>, for_node: &BTreeMap<String, String>) -> Self {
        let mut values = self.values.clone();
        for (source, given) in [(Source::DynamicDefault, for_all), (Source::DynamicNode, for_node)] {
            for (name, value) in given {
                if let Some((setting, Ok(value))) = setting(name).map(|setting| (setting, setting.check(value))) {
                    values.set(setting.name, source, value);
                }
            }
        }
        Self::build(values, self.unneeded_listeners.clone()).unwrap_or_else(|_| self.clone())
    }

    /// The size of a new cluster: the number of seeds, else one.
    #[must_use]
    pub fn cluster_size(&self) -> usize {
        self.cluster_seeds.len().max(1)
    }
}

impl NetworkConfig {
    fn build(v: &Values) -> Self {
        let queued = v.long("queued.max.request.bytes");
        let buffer = |name| usize::try_from(v.long(name)).ok().filter(|bytes| *bytes > 0);
        Self {
            request_bytes_max: v.count("socket.request.max.bytes"),
            connections_max: v.count("max.connections"),
            connections_per_ip_max: v.count("max.connections.per.ip"),
            connections_per_ip_overrides: v
                .list("max.connections.per.ip.overrides")
                .iter()
                .filter_map(|pair| address_count(pair))
                .collect(),
            idle_ms_max: v.amount("connections.max.idle.ms"),
            queued_requests_max: v.count("queued.max.requests"),
            queued_bytes_max: usize::try_from(queued).ok().filter(|bytes| *bytes > 0).unwrap_or(QUEUED_BYTES_DEFAULT),
            connection_requests_max: v.count("ottla.connection.queued.requests"),
            request_read_timeout_ms: v.amount("ottla.request.read.timeout.ms"),
            send_buffer_bytes: buffer("socket.send.buffer.bytes"),
            receive_buffer_bytes: buffer("socket.receive.buffer.bytes"),
            backlog: u32::try_from(v.long("socket.listen.backlog.size")).unwrap_or(u32::MAX),
            fetch_bytes_max: v.count("fetch.max.bytes"),
            fetch_sessions_max: v.count("max.incremental.fetch.session.cache.slots"),
            described_partitions_max: v.count("max.request.partition.size.limit"),
        }
    }
}

/// Kafka's double as a number of bytes; its default, the greatest double, is without limit.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(bytes: f64) -> u64 {
    bytes.max(1.0) as u64
}

impl LogConfig {
    fn build(v: &Values) -> Self {
        Self {
            segment_bytes: v.amount("ottla.log.segment.bytes"),
            sync: v.boolean("ottla.sync"),
            retention_check_interval_ms: v.amount("log.retention.check.interval.ms"),
            disk_reserve_bytes: v.amount("ottla.disk.reserve.bytes"),
            rewriter_bytes_per_second: v.amount("ottla.rewriter.bytes.per.second"),
            rewriter_bytes_per_second_max: whole(v.double("log.cleaner.io.max.bytes.per.second")),
            import_bytes_per_second_max: v.amount("follower.replication.throttled.rate"),
            move_bytes_per_second_max: v.amount("replica.alter.log.dirs.io.max.bytes.per.second"),
            run_bytes: v.amount("ottla.rewriter.run.bytes"),
            compacts: v.boolean("log.cleaner.enable"),
            rewriter_backoff_ms: v.amount("log.cleaner.backoff.ms"),
            scrub_bytes_per_second: v.amount("ottla.scrub.bytes.per.second"),
            replica_lag_ms_max: v.amount("replica.lag.time.max.ms"),
        }
    }
}

impl ReplicationConfig {
    fn build(v: &Values) -> Self {
        Self {
            leader_rebalance: v.boolean("auto.leader.rebalance.enable"),
            leader_check_interval: Duration::from_secs(v.amount("leader.imbalance.check.interval.seconds")),
            leader_imbalance_percentage: v.amount("leader.imbalance.per.broker.percentage"),
            balance: v.boolean("ottla.balance.enable"),
        }
    }
}

impl LivenessConfig {
    /// The shortest pause between two heartbeats, and between two checks of sessions.
    pub const INTERVAL_MIN: Duration = Duration::from_millis(10);

    fn build(v: &Values) -> Self {
        let session_timeout = Duration::from_millis(v.amount("broker.session.timeout.ms"));
        let interval = Duration::from_millis(v.amount("broker.heartbeat.interval.ms"));
        let heartbeat_interval = interval.min(session_timeout / 3).max(Self::INTERVAL_MIN);
        Self { session_timeout, heartbeat_interval }
    }
}

impl TopicsConfig {
    fn build(v: &Values) -> Self {
        Self {
            num_partitions: v.int("num.partitions"),
            default_replication_factor: Some(v.short("default.replication.factor")).filter(|factor| *factor > 0),
            auto_create: v.boolean("auto.create.topics.enable"),
            delete_enable: v.boolean("delete.topic.enable"),
            partitions_per_topic_max: v.int("ottla.topic.partitions.max"),
            partitions_max: v.amount("ottla.cluster.partitions.max"),
            defaults: Arc::new(TopicConfig::read(&TopicConfig::default(), &|name| default_of_topics(v, name))),
        }
    }
}

/// The default of the topic setting `name` that the node's settings supply.
pub(super) fn default_of_topics(values: &Values, name: &str) -> Option<String> {
    topic_setting(name)?.node_settings.iter().find_map(|(node_name, factor)| {
        let (value, _) = values.get(node_name)?;
        in_topic_units(value, *factor)
    })
}

/// `value` of a node's setting in the unit of the topic setting it supplies; a negative one is "no limit" in any unit.
pub(super) fn in_topic_units(value: &str, factor: i64) -> Option<String> {
    if factor == 1 {
        return Some(value.to_owned());
    }
    let number: i64 = value.parse().ok()?;
    Some(if number < 0 { number.to_string() } else { number.saturating_mul(factor).to_string() })
}

impl GroupConfig {
    fn build(v: &Values) -> Result<Self, ConfigError> {
        let (min, max) = (v.amount("group.min.session.timeout.ms"), v.amount("group.max.session.timeout.ms"));
        if min > max {
            let why = format!("must not be above group.max.session.timeout.ms, which is {max}");
            return Err(ConfigError::Invalid {
                name: "group.min.session.timeout.ms".into(),
                value: min.to_string(),
                why,
            });
        }
        Ok(Self {
            initial_rebalance_delay_ms: v.amount("group.initial.rebalance.delay.ms"),
            session_timeout_ms_min: min,
            session_timeout_ms_max: max,
            members_max: v.count("group.max.size"),
        })
    }
}

impl OffsetsConfig {
    fn build(v: &Values) -> Self {
        Self {
            topic_partitions: v.int("offsets.topic.num.partitions"),
            topic_replication_factor: v.short("offsets.topic.replication.factor"),
            retention_ms: v.amount("offsets.retention.minutes").saturating_mul(60_000),
            retention_check_interval_ms: v.amount("offsets.retention.check.interval.ms"),
            metadata_bytes_max: v.count("offset.metadata.max.bytes"),
            commit_timeout_ms: v.amount("offsets.commit.timeout.ms"),
        }
    }
}

impl TransactionConfig {
    fn build(v: &Values) -> Self {
        Self {
            topic_partitions: v.int("transaction.state.log.num.partitions"),
            topic_replication_factor: v.short("transaction.state.log.replication.factor"),
            topic_min_isr: v.int("transaction.state.log.min.isr"),
            timeout_ms_max: v.amount("transaction.max.timeout.ms"),
            id_expiration_ms: v.amount("transactional.id.expiration.ms"),
            abort_interval_ms: v.amount("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
            expiration_interval_ms: v.amount("transaction.remove.expired.transaction.cleanup.interval.ms"),
            producer_id_expiration_ms: v.amount("producer.id.expiration.ms"),
            producer_id_expiration_check_interval_ms: v.amount("producer.id.expiration.check.interval.ms"),
        }
    }
}

/// Listener names in `controller.listener.names`.
pub(super) fn controller_names(value: &str) -> Vec<String> {
    split_list(value).map(str::to_ascii_uppercase).collect()
}
