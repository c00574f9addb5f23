//! The table, first part: the node, its listeners, connections, groups, transactions.
//!
//! May not know: values.

use crate::config::setting::{INT_MAX, Kind, Range, Setting, at_least, boolean, int, list, long, short, text, unset};

const RUNTIME: &str = "the node uses all cores it is given";
const LOADED: &str = "replicas hold the state already: nothing is loaded when leadership changes";
const LATER_GROUPS: &str = "the newer group protocol (KIP-848) is not served yet";

pub(super) const NODE: &[Setting] = &[
    int("node.id", "1", Range::Between(0, INT_MAX), "Number of this node in the cluster; `broker.id` means the same.").acts("node"),
    unset("broker.rack", Kind::String, Range::Any, "Failure domain of this node. Replicas are spread over racks, and consumers can read in their own.").acts("placement"),
    list("listeners", "PLAINTEXT://127.0.0.1:9092", Range::Any, "What to bind: NAME://host:port, several by comma. An empty host binds all addresses. Listeners named in `controller.listener.names` are left out.").acts("listeners"),
    unset("advertised.listeners", Kind::List, Range::Any, "What clients are told to connect to; as `listeners` when not set.").acts("listeners"),
    text("listener.security.protocol.map", "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", Range::Any, "Security protocol of each listener name.").acts("listeners"),
    unset("inter.broker.listener.name", Kind::String, Range::Any, "Listener whose address other nodes are told; the first one when not set.").acts("listeners"),
    list("log.dirs", "./data", Range::Any, "Data directories, by comma; `log.dir` means the same. Each has a log of its own; replicas are spread over them.").acts("storage"),
    text("ottla.admin.listener", "127.0.0.1:9644", Range::Any, "host:port of the admin HTTP port (metrics, health); `none` switches it off.").acts("admin port"),
    unset("ottla.cluster.listener", Kind::String, Range::Any, "host:port to bind for other nodes; without it the node is alone.").acts("cluster"),
    unset("ottla.cluster.advertised.listener", Kind::String, Range::Any, "host:port at which other nodes reach this one; as `ottla.cluster.listener` when not set, with the machine's name where that binds all addresses.").acts("cluster"),
    boolean("ottla.insecure", "false", "Allows `ottla.cluster.listener` outside loopback and private networks although nodes do not authenticate each other yet.").acts("cluster"),
    list("ottla.cluster.seeds", "", Range::Any, "host:port of the cluster's first nodes, by comma. Their number is the size of a new cluster. `controller.quorum.voters` supplies them where only that is set.").acts("cluster"),
    unset("ottla.cluster.id", Kind::String, Range::Any, "Id that a new cluster takes instead of a random one; the variable CLUSTER_ID means the same.").acts("metadata"),
    text("ottla.log.level", "info", Range::Any, "What the node writes to its own log: error, warn, info, debug, trace, or a filter by module.").acts("node"),
];

pub(super) const NETWORK: &[Setting] = &[
    int("socket.request.max.bytes", "104857600", at_least(1), "The largest request.").acts("connections"),
    int("max.connections", "2147483647", at_least(0), "Connections of all listeners together; more are closed at once.").dynamic().acts("connections"),
    int("max.connections.per.ip", "2147483647", at_least(0), "Connections from one address; more are closed at once.").dynamic().acts("connections"),
    text("max.connections.per.ip.overrides", "", Range::AddressCounts, "Exceptions from `max.connections.per.ip`: address:count pairs by comma, IP addresses only.").dynamic().acts("connections"),
    int("max.connection.creation.rate", "2147483647", at_least(0), "New connections per second.").idle("accepting is bounded by the number of connections"),
    long("connections.max.idle.ms", "600000", at_least(-1), "A connection that sends nothing for so long is closed; -1 never.").acts("connections"),
    int("connection.failed.authentication.delay.ms", "100", at_least(0), "How long the answer to a failed authentication is held back.").idle("authentication is not served yet"),
    int("queued.max.requests", "500", at_least(1), "Requests being worked on, of all connections.").acts("connections"),
    long("queued.max.request.bytes", "268435456", at_least(-1), "Bytes of requests being worked on, of all connections; reading stops above it. -1 is taken as the default, since memory is always bounded.").acts("connections"),
    int("ottla.connection.queued.requests", "64", Range::Between(1, 10_000), "Pipelined requests of one connection being worked on; reading stops above it.").acts("connections"),
    long("ottla.request.read.timeout.ms", "30000", at_least(100), "A request must have arrived whole this long after its first byte, else the connection is closed.").acts("connections"),
    int("socket.send.buffer.bytes", "102400", at_least(-1), "Send buffer of a connection; -1 leaves it to the system.").acts("connections"),
    int("socket.receive.buffer.bytes", "1048576", at_least(-1), "Receive buffer of a connection; -1 leaves it to the system.").acts("connections"),
    int("socket.listen.backlog.size", "50", at_least(1), "Connections that wait to be accepted.").acts("listeners"),
    int("request.timeout.ms", "30000", at_least(1), "How long nodes wait for each other's answers.").idle("nodes have time-outs of their own"),
    int("fetch.max.bytes", "57671680", at_least(1024), "The most one fetch answers.").acts("fetch"),
    int("max.incremental.fetch.session.cache.slots", "1000", at_least(0), "Fetch sessions kept.").acts("fetch"),
    int("max.request.partition.size.limit", "2000", at_least(1), "The most partitions that one answer to DescribeTopicPartitions holds.").acts("metadata requests"),
    int("num.network.threads", "3", at_least(1), "Threads that read and write sockets.").dynamic().idle(RUNTIME),
    int("num.io.threads", "8", at_least(1), "Threads that work on requests.").dynamic().idle(RUNTIME),
    int("background.threads", "10", at_least(1), "Threads for background work.").dynamic().idle(RUNTIME),
];

pub(super) const GROUPS: &[Setting] = &[
    int(
        "group.initial.rebalance.delay.ms",
        "3000",
        at_least(0),
        "How long a group that was empty waits for more members before its first rebalance.",
    )
    .acts("groups"),
    int("group.min.session.timeout.ms", "6000", at_least(0), "The shortest session time-out a member may ask for.")
        .acts("groups"),
    int("group.max.session.timeout.ms", "1800000", at_least(1), "The longest session time-out a member may ask for.")
        .acts("groups"),
    int("group.max.size", "2147483647", at_least(1), "The most members of a group.").acts("groups"),
    list(
        "group.coordinator.rebalance.protocols",
        "classic",
        Range::SomeOf(&["classic", "consumer", "share", "streams"]),
        "Group protocols that are served.",
    )
    .idle(LATER_GROUPS),
    int("group.coordinator.threads", "4", at_least(1), "Threads of the coordinator.").idle(RUNTIME),
    int("group.consumer.session.timeout.ms", "45000", at_least(1), "Session time-out of the newer group protocol.")
        .dynamic()
        .idle(LATER_GROUPS),
    int(
        "group.consumer.min.session.timeout.ms",
        "45000",
        at_least(1),
        "The shortest session time-out of the newer group protocol.",
    )
    .idle(LATER_GROUPS),
    int(
        "group.consumer.max.session.timeout.ms",
        "60000",
        at_least(1),
        "The longest session time-out of the newer group protocol.",
    )
    .idle(LATER_GROUPS),
    int("group.consumer.heartbeat.interval.ms", "5000", at_least(1), "Heartbeat interval of the newer group protocol.")
        .dynamic()
        .idle(LATER_GROUPS),
    int(
        "group.consumer.min.heartbeat.interval.ms",
        "5000",
        at_least(1),
        "The shortest heartbeat interval of the newer group protocol.",
    )
    .idle(LATER_GROUPS),
    int(
        "group.consumer.max.heartbeat.interval.ms",
        "15000",
        at_least(1),
        "The longest heartbeat interval of the newer group protocol.",
    )
    .idle(LATER_GROUPS),
    int(
        "group.consumer.assignment.interval.ms",
        "1000",
        at_least(0),
        "Time between two assignments of the newer group protocol.",
    )
    .dynamic()
    .idle(LATER_GROUPS),
    int(
        "group.consumer.min.assignment.interval.ms",
        "0",
        at_least(0),
        "The shortest time between two assignments of the newer group protocol.",
    )
    .idle(LATER_GROUPS),
    int(
        "group.consumer.max.assignment.interval.ms",
        "15000",
        at_least(0),
        "The longest time between two assignments of the newer group protocol.",
    )
    .idle(LATER_GROUPS),
    boolean(
        "group.consumer.assignor.offload.enable",
        "true",
        "Computes assignments of the newer group protocol in the background.",
    )
    .dynamic()
    .idle(LATER_GROUPS),
    int("group.consumer.max.size", "2147483647", at_least(1), "The most members of a group of the newer protocol.")
        .idle(LATER_GROUPS),
    list(
        "group.consumer.assignors",
        "uniform,range",
        Range::Any,
        "Assignors of the newer group protocol, default first.",
    )
    .idle(LATER_GROUPS),
    text(
        "group.consumer.migration.policy",
        "bidirectional",
        Range::OneOf(&["disabled", "upgrade", "downgrade", "bidirectional"]),
        "Whether groups may change between the protocols while they run.",
    )
    .idle(LATER_GROUPS),
    int(
        "offsets.topic.num.partitions",
        "50",
        Range::Between(1, 10_000),
        "Partitions of `__consumer_offsets`; must not change once it exists.",
    )
    .acts("groups"),
    short(
        "offsets.topic.replication.factor",
        "3",
        at_least(1),
        "Replicas of `__consumer_offsets`; fewer where there are fewer nodes.",
    )
    .acts("placement"),
    int("offsets.topic.segment.bytes", "104857600", at_least(1), "Segment size of `__consumer_offsets`.")
        .idle("all partitions of a disk share segment files"),
    int("offsets.topic.compression.codec", "0", Range::Between(0, 4), "Codec of batches in `__consumer_offsets`.")
        .idle("offsets are stored uncompressed"),
    int("offsets.load.buffer.size", "5242880", at_least(1), "Read size when offsets are loaded.").idle(LOADED),
    int("offsets.retention.minutes", "10080", at_least(1), "How long the offsets of an empty group are kept.")
        .acts("groups"),
    long("offsets.retention.check.interval.ms", "600000", at_least(1), "How often expired offsets are looked for.")
        .acts("groups"),
    int("offsets.commit.timeout.ms", "5000", at_least(1), "How long a commit waits for its replicas.").acts("groups"),
    int("offset.metadata.max.bytes", "4096", at_least(0), "The longest text that may be committed with an offset.")
        .acts("groups"),
];

pub(super) const TRANSACTIONS: &[Setting] = &[
    long(
        "producer.id.expiration.ms",
        "86400000",
        at_least(1),
        "How long a partition remembers a producer that sends nothing.",
    )
    .dynamic()
    .acts("producers"),
    int(
        "producer.id.expiration.check.interval.ms",
        "600000",
        at_least(1),
        "How often producers that are to be forgotten are looked for.",
    )
    .acts("producers"),
    int(
        "transaction.state.log.num.partitions",
        "50",
        Range::Between(1, 10_000),
        "Partitions of `__transaction_state`; must not change once it exists.",
    )
    .acts("transactions"),
    short(
        "transaction.state.log.replication.factor",
        "3",
        at_least(1),
        "Replicas of `__transaction_state`; fewer where there are fewer nodes.",
    )
    .acts("transactions"),
    int(
        "transaction.state.log.min.isr",
        "2",
        at_least(1),
        "`min.insync.replicas` of `__transaction_state`; never above its replicas.",
    )
    .acts("transactions"),
    int("transaction.state.log.segment.bytes", "104857600", at_least(1), "Segment size of `__transaction_state`.")
        .idle("all partitions of a disk share segment files"),
    int("transaction.state.log.load.buffer.size", "5242880", at_least(1), "Read size when transactions are loaded.")
        .idle(LOADED),
    int("transaction.max.timeout.ms", "900000", at_least(1), "The longest time-out a transaction may ask for.")
        .acts("transactions"),
    int("transactional.id.expiration.ms", "604800000", at_least(1), "How long an unused transactional id is kept.")
        .acts("transactions"),
    int(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        "10000",
        at_least(1),
        "How often timed-out transactions are looked for.",
    )
    .acts("transactions"),
    int(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        "3600000",
        at_least(1),
        "How often expired transactional ids are looked for.",
    )
    .acts("transactions"),
    boolean(
        "transaction.partition.verification.enable",
        "true",
        "Whether a transactional batch is checked against its coordinator.",
    )
    .dynamic()
    .idle("every transactional batch is checked"),
    boolean(
        "transaction.two.phase.commit.enable",
        "false",
        "Whether transactions may be prepared and finished by an outside coordinator.",
    )
    .idle("transactions end by their producer alone"),
];
