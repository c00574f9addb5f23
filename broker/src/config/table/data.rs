//! The table, second part: topics, the log, replication.
//!
//! May not know: values.

use crate::config::setting::{
    INT_MAX, Kind, Range, Setting, at_least, boolean, double, int, list, long, short, text, unset,
};

const DEFAULTS: &str = "default of topics";
const SHARED_LOG: &str =
    "all partitions of a disk share segment files, which have a size of their own (ottla.log.segment.bytes)";
const ALWAYS_SYNCED: &str = "every acknowledged record is synced already";
const PASSES: &str = "a directory does one pass of compaction at a time, in 64 MiB for any number of keys";
const RAFT: &str = "replicas are kept by Raft";
const MOVES: &str = "the nodes that receive keep the limit (follower.replication.throttled.rate)";
const NO_TIERING: &str = "there is no remote storage";

pub(super) const TOPICS: &[Setting] = &[
    int("num.partitions", "1", at_least(1), "Partitions of a topic when its creator does not say.")
        .dynamic()
        .acts("topics"),
    short(
        "default.replication.factor",
        "-1",
        Range::Between(-1, 32_767),
        "Replicas of a topic when its creator does not say; -1 is three, or fewer where there are fewer nodes.",
    )
    .dynamic()
    .acts("topics"),
    boolean("auto.create.topics.enable", "true", "Whether a topic that a client asks for is made on the way.")
        .acts("topics"),
    boolean("delete.topic.enable", "true", "Whether topics can be deleted.").acts("topics"),
    int("ottla.topic.partitions.max", "10000", Range::Between(1, 100_000), "The most partitions of one topic.")
        .dynamic()
        .acts("topics"),
    int("ottla.cluster.partitions.max", "200000", Range::Between(1, 10_000_000), "The most partitions of all topics.")
        .dynamic()
        .acts("topics"),
    int(
        "message.max.bytes",
        "1048588",
        at_least(0),
        "The largest record batch a producer may send (`max.message.bytes` of topics).",
    )
    .dynamic()
    .acts(DEFAULTS),
    int(
        "min.insync.replicas",
        "1",
        at_least(1),
        "Voters that must have synced before acks=all is answered; a majority always must.",
    )
    .dynamic()
    .acts(DEFAULTS),
    text(
        "compression.type",
        "producer",
        Range::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "How batches are stored; `producer` keeps the producer's choice.",
    )
    .dynamic()
    .acts(DEFAULTS),
    int("compression.gzip.level", "-1", Range::Between(-1, 9), "Level when the broker compresses with gzip.")
        .dynamic()
        .acts(DEFAULTS),
    int("compression.lz4.level", "9", Range::Between(1, 17), "Level when the broker compresses with lz4.")
        .dynamic()
        .acts(DEFAULTS),
    int("compression.zstd.level", "3", Range::Between(-131_072, 22), "Level when the broker compresses with zstd.")
        .dynamic()
        .acts(DEFAULTS),
];

pub(super) const LOG: &[Setting] = &[
    int("ottla.log.segment.bytes", "268435456", Range::Between(1_048_576, 2_147_483_647), "Size of a segment file of the one log of a data directory. A record batch may have seven eighths of it, above 8 MiB all but one MiB, and at most 254 MiB: a node that is given a `message.max.bytes` above that does not start.").acts("storage"),
    boolean("ottla.sync", "true", "Whether records are synced before they are acknowledged. `false` is for tests: a power cut loses acknowledged records.").acts("storage"),
    long("ottla.disk.reserve.bytes", "536870912", at_least(0), "Free bytes below which a data directory takes no more records; reading goes on.").acts("storage"),
    long("ottla.rewriter.bytes.per.second", "67108864", at_least(0), "Bytes that the rewriter reads and writes per second to copy what lives in mostly dead files, so that these can go. It goes slower while records wait to be written and faster while space is short; a replica that is rebuilt from others goes four times as fast. Passes over compacted topics share it, but are never slower than four times what is appended, so that they keep up. 0 switches the rewriter off; compacted topics are compacted anyway.").acts("storage"),
    long("ottla.scrub.bytes.per.second", "4194304", at_least(0), "Bytes of each data directory that are read and verified per second, whether a client reads them or not, so that damage is found while another replica has what is damaged. A pass over everything is followed by the next one a day later. 0 switches it off.").acts("storage"),
    long("ottla.rewriter.run.bytes", "268435456", Range::Between(1_048_576, 2_147_483_647), "Length of a run, the file that the rewriter makes, where there is enough to fill it.").acts("storage"),
    long("log.retention.hours", "168", Range::Between(-1, 2_562_047_788), "Age at which data is removed, in hours; -1 keeps it for ever.").acts(DEFAULTS),
    unset("log.retention.minutes", Kind::Long, Range::Between(-1, 153_722_867_280), "As `log.retention.hours`, in minutes; goes before it.").acts(DEFAULTS),
    unset("log.retention.ms", Kind::Long, at_least(-1), "As `log.retention.hours`, in milliseconds; goes before both.").dynamic().acts(DEFAULTS),
    long("log.retention.bytes", "-1", at_least(-1), "Bytes of a partition beyond which the oldest data is removed; -1 is without limit.").dynamic().acts(DEFAULTS),
    long("log.retention.check.interval.ms", "300000", at_least(1), "How often data that is past its time or size is looked for.").acts("retention"),
    list("log.cleanup.policy", "delete", Range::SomeOf(&["compact", "delete"]), "What becomes of old data.").dynamic().acts(DEFAULTS),
    text("log.message.timestamp.type", "CreateTime", Range::OneOf(&["CreateTime", "LogAppendTime"]), "Whose clock stamps records.").dynamic().acts(DEFAULTS),
    long("log.message.timestamp.before.max.ms", "9223372036854775807", at_least(0), "How far a record's timestamp may lie in the past.").dynamic().acts(DEFAULTS),
    long("log.message.timestamp.after.max.ms", "3600000", at_least(0), "How far a record's timestamp may lie in the future.").dynamic().acts(DEFAULTS),
    int("log.segment.bytes", "1073741824", Range::Between(14, INT_MAX), "What of the end of a compacted topic's partition is spared: `segment.bytes`.").dynamic().acts(DEFAULTS),
    long("log.roll.hours", "168", Range::Between(1, 2_562_047_788), "For how long the end of a compacted topic's partition is spared: `segment.ms`, in hours.").acts(DEFAULTS),
    unset("log.roll.ms", Kind::Long, at_least(1), "As `log.roll.hours`, in milliseconds.").dynamic().acts(DEFAULTS),
    long("log.roll.jitter.hours", "0", Range::Between(0, 2_562_047_788), "Spread of the times at which segments are begun.").idle(SHARED_LOG),
    unset("log.roll.jitter.ms", Kind::Long, at_least(0), "As `log.roll.jitter.hours`, in milliseconds.").dynamic().idle(SHARED_LOG),
    long("log.segment.delete.delay.ms", "60000", at_least(0), "How long a file stays after its data is gone.").dynamic().idle(SHARED_LOG),
    int("log.index.interval.bytes", "4096", at_least(0), "Bytes between two entries of the offset index.").dynamic().idle("the index has a line for every batch"),
    int("log.index.size.max.bytes", "10485760", at_least(4), "Largest size of a segment's index.").dynamic().idle(SHARED_LOG),
    boolean("log.preallocate", "false", "Whether files are given their full size when they are made.").dynamic().idle("segment files are always prepared beforehand"),
    long("log.flush.interval.messages", "9223372036854775807", at_least(1), "Records after which a sync is forced.").dynamic().idle(ALWAYS_SYNCED),
    unset("log.flush.interval.ms", Kind::Long, at_least(0), "Time after which a sync is forced.").dynamic().idle(ALWAYS_SYNCED),
    long("log.flush.scheduler.interval.ms", "9223372036854775807", at_least(0), "How often a sync is considered.").idle(ALWAYS_SYNCED),
    int("log.flush.offset.checkpoint.interval.ms", "60000", at_least(0), "How often recovery points are written.").idle("checkpoints follow what was written"),
    int("log.flush.start.offset.checkpoint.interval.ms", "60000", at_least(0), "How often log starts are written.").idle("checkpoints follow what was written"),
    long("log.cleaner.delete.retention.ms", "86400000", at_least(0), "How long a compacted topic keeps the marker of a deleted key.").dynamic().acts(DEFAULTS),
    long("log.cleaner.min.compaction.lag.ms", "0", at_least(0), "A record is not compacted earlier than this.").dynamic().acts(DEFAULTS),
    long("log.cleaner.max.compaction.lag.ms", "9223372036854775807", at_least(1), "A record is compacted at the latest after this.").dynamic().acts(DEFAULTS),
    double("log.cleaner.min.cleanable.ratio", "0.5", Range::Fraction(0.0, 1.0), "Share of uncompacted bytes from which a partition is compacted.").dynamic().acts(DEFAULTS),
    boolean("log.cleaner.enable", "true", "Whether partitions that this node leads are compacted. What another leader has decided, this node does.").acts("compaction"),
    int("log.cleaner.threads", "1", at_least(0), "Threads of compaction.").dynamic().idle(PASSES),
    double("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308", Range::Any, "The most that the rewriter reads and writes per second, also while space is short.").dynamic().acts("storage"),
    long("log.cleaner.dedupe.buffer.size", "134217728", at_least(1), "Memory of compaction.").dynamic().idle(PASSES),
    int("log.cleaner.io.buffer.size", "524288", at_least(0), "Read and write buffers of compaction.").dynamic().idle(PASSES),
    double("log.cleaner.io.buffer.load.factor", "0.9", Range::Fraction(0.0, 1.0), "How full compaction's memory may become.").dynamic().idle(PASSES),
    long("log.cleaner.backoff.ms", "15000", at_least(0), "Pause of the rewriter when there is nothing to do; how often a leader looks for what is to be compacted follows it from the next start on.").dynamic().acts("storage and compaction"),
    long("log.local.retention.bytes", "-2", at_least(-2), "Bytes kept on local disks beside remote storage.").dynamic().idle(NO_TIERING),
    long("log.local.retention.ms", "-2", at_least(-2), "Time for which data is kept on local disks beside remote storage.").dynamic().idle(NO_TIERING),
    int("num.recovery.threads.per.data.dir", "2", at_least(1), "Threads of recovery for each data directory.").dynamic().idle("recovery reads one log per data directory"),
];

pub(super) const REPLICATION: &[Setting] = &[
    int(
        "broker.session.timeout.ms",
        "9000",
        at_least(1),
        "A node of which the metadata's leader has heard nothing for so long is fenced: clients are told of it no longer.",
    )
    .acts("metadata"),
    int(
        "broker.heartbeat.interval.ms",
        "2000",
        at_least(1),
        "How often a node tells the metadata's leader that it lives; three times a session at least.",
    )
    .acts("metadata"),
    long(
        "replica.lag.time.max.ms",
        "30000",
        at_least(1),
        "A replica counts as in sync when it was caught up within this time.",
    )
    .acts("replication"),
    boolean("unclean.leader.election.enable", "false", "Whether a replica that lacks records may become leader.")
        .dynamic()
        .idle("Raft never elects a replica that lacks committed records"),
    unset("replica.selector.class", Kind::String, Range::Any, "Class that chooses the replica a consumer reads from.")
        .idle("a consumer that names its rack is sent to a replica there"),
    boolean(
        "ottla.balance.enable",
        "true",
        "Whether replicas and leaderships go to nodes that have joined and away from those that are hot or nearly full, by themselves.",
    )
    .dynamic()
    .acts("replication"),
    boolean("auto.leader.rebalance.enable", "true", "Whether leadership returns to preferred replicas by itself.")
        .acts("replication"),
    long(
        "leader.imbalance.check.interval.seconds",
        "300",
        at_least(1),
        "How often a node looks whether it leads in another's place; each looks at times of its own around this.",
    )
    .acts("replication"),
    int(
        "leader.imbalance.per.broker.percentage",
        "10",
        at_least(0),
        "Leadership returns to a node when it leads less than all it is preferred for by more than this percentage.",
    )
    .acts("replication"),
    long(
        "leader.replication.throttled.rate",
        "9223372036854775807",
        at_least(0),
        "Bytes per second that a node sends of what is moved.",
    )
    .dynamic()
    .idle(MOVES),
    long(
        "follower.replication.throttled.rate",
        "9223372036854775807",
        at_least(0),
        "Bytes per second that a node takes from others of what is moved or rebuilt, whatever the topics say; 65536 at least.",
    )
    .dynamic()
    .acts("storage"),
    long(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        "9223372036854775807",
        at_least(0),
        "Bytes per second that are moved between directories of a node; 65536 at least.",
    )
    .dynamic()
    .acts("storage"),
    int("num.replica.fetchers", "1", at_least(1), "Threads that copy from other nodes.").dynamic().idle(RAFT),
    int("replica.fetch.max.bytes", "1048576", at_least(0), "Bytes per partition in a fetch of a follower.").idle(RAFT),
    int("replica.fetch.min.bytes", "1", at_least(0), "Bytes a follower waits for.").idle(RAFT),
    int("replica.fetch.wait.max.ms", "500", at_least(0), "How long a follower waits.").idle(RAFT),
    int("replica.fetch.response.max.bytes", "10485760", at_least(0), "Bytes in the answer to a follower.").idle(RAFT),
    int("replica.fetch.backoff.ms", "1000", at_least(0), "Pause of a follower after an error.").idle(RAFT),
    int("replica.socket.timeout.ms", "30000", at_least(1), "Time-out of a follower's connection.").idle(RAFT),
    int("replica.socket.receive.buffer.bytes", "65536", at_least(-1), "Receive buffer of a follower's connection.")
        .idle(RAFT),
    long(
        "replica.high.watermark.checkpoint.interval.ms",
        "5000",
        at_least(0),
        "How often high watermarks are written.",
    )
    .idle(RAFT),
];
