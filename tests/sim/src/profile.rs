//! The profile of a seed: which faults, clients and settings it combines, so that related faults come together.
//!
//! May not know: how faults are injected, what clients do.

use std::time::Duration;

use ottla_broker::config::CompressionType;
use ottla_broker::metadata::Levels;
use ottla_env::sim;

/// The kind of faults that a seed concentrates on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// All kinds.
    Mixed,
    /// Crashes and power losses, also twice in a row.
    Crashes,
    /// Corruption of one node's disk, which the other replicas repair or replace (three replicas or more only).
    Corruption,
    /// Changes of leaders, and crashes just after a replica has promised something.
    Elections,
    /// Membership changes: disks are lost for good, nodes join, shards move.
    Members,
    /// Log starts advance fast: segments become garbage, are rewritten and unlinked.
    Churn,
    /// Planned stops: nodes are stopped one after the other or at bad moments, and unregistered.
    GracefulStops,
    /// As churn, with short segments, checkpoint generations that change often, damaged checkpoints and lost indexes:
    /// an older generation must not need what was unlinked, nor an index that is rebuilt from the log.
    Generations,
}

/// Smaller seeds had all been run before there were planned stops: what they found, they find again.
pub(crate) const GRACEFUL_STOPS_FROM: u64 = 20_000;

/// Smaller seeds had all been run before a cluster of one node survived a wrong byte in the head of a frame.
pub(crate) const DAMAGED_HEADS_FROM: u64 = 30_000;

/// Smaller seeds had all been run before founders could be late, and before nodes were unregistered as soon as they had joined,
/// or on disks that hang.
pub(crate) const LATE_FOUNDERS_FROM: u64 = 60_000;

/// Smaller seeds had all been run before a replica's disk was lost while another one lagged or while its node was being
/// unregistered, and before nodes went down while a state was fetched from them.
pub(crate) const LOST_VOTERS_FROM: u64 = 70_000;

/// True if replicas lose their disks while others lag, and nodes go down while a state is fetched from them.
pub(crate) fn loses_voters(seed: u64, nodes: u32) -> bool {
    nodes >= 3 && seed >= LOST_VOTERS_FROM && Profile::of(seed, nodes) == Profile::Members
}

/// Smaller seeds had all been run before a seed node lost its disk while another node asked it whether it was removed.
pub(crate) const LOST_SEED_NODES_FROM: u64 = 80_000;

/// True if a seed node loses its disk while a node that gets no metadata asks the seed nodes whether it was removed.
pub(crate) fn loses_seed_node(seed: u64, nodes: u32) -> bool {
    nodes == 3 && seed >= LOST_SEED_NODES_FROM && Profile::of(seed, nodes) == Profile::Members
}

/// Smaller seeds had all been run before nodes had racks and producers compressed their batches.
pub(crate) const WIDENED_FROM: u64 = 90_000;

/// Smaller seeds had all been run before the disks of a majority stalled for seconds, topics had
/// fewer replicas than the default, nodes had several data directories, and groups had static members.
pub(crate) const WIDENED_AGAIN_FROM: u64 = 100_000;

/// Smaller seeds had all been run before the nodes of a cluster could run two releases, and before a cluster could have two nodes.
pub(crate) const MIXED_RELEASES_FROM: u64 = 110_000;

/// From this seed on pipelined producers send on to a new leader while the former one still owes them answers.
pub(crate) const SENDS_ON_FROM: u64 = 112_000;

/// From this seed on shards are split.
pub(crate) const SPLITS_FROM: u64 = 113_000;
/// From this seed on operators reassign single partitions too.
pub(crate) const PARTS_FROM: u64 = 114_000;
/// From this seed on shards are merged.
pub(crate) const MERGES_FROM: u64 = 115_000;
/// From this seed on a topic asks for numbers of shards of its own.
pub(crate) const SHARD_COUNTS_FROM: u64 = 116_000;
/// From this seed on its shards follow its load for some of the time.
pub(crate) const ON_DEMAND_FROM: u64 = 117_000;
/// Smaller seeds had all been run before leaders were cut off while their shards were merged.
pub(crate) const MERGES_INTERRUPTED_FROM: u64 = 118_000;

/// From this seed on there are transactions.
pub(crate) const TRANSACTIONS_FROM: u64 = 140_000;

/// From this seed on there are transactions in all of them, below in half of them; and markers come once more, late.
pub(crate) const ALWAYS_TRANSACTIONS_FROM: u64 = 150_000;

/// From this seed on there is a compacted topic.
pub(crate) const COMPACTION_FROM: u64 = 160_000;
/// From this seed on the topic of transactions is compacted, too.
pub(crate) const COMPACTED_TRANSFERS_FROM: u64 = 161_000;

/// From this seed on transactional producers abort at once what they have not sent.
pub(crate) const UNSENT_ABORTED_FROM: u64 = 162_000;
/// From this seed on coordinators of transactions lose their leadership and win it back while markers get lost.
pub(crate) const OUTLIVED_LEADERSHIP_FROM: u64 = 162_000;

/// True if a coordinator loses its leadership and wins it back while markers get lost.
pub(crate) fn outlives_leadership(seed: u64, nodes: u32) -> bool {
    let profiles = [Profile::Crashes, Profile::Churn];
    nodes == 3 && seed >= OUTLIVED_LEADERSHIP_FROM && profiles.contains(&Profile::of(seed, nodes))
}

/// From this seed on replicas are elected that have not applied markers of transactions.
pub(crate) const UNAPPLIED_MARKERS_FROM: u64 = 164_000;

/// True if replicas are elected that have not applied markers of transactions: in every second of the seeds whose nodes are stopped, since
/// it takes most of a storm.
pub(crate) fn leads_behind_markers(seed: u64, nodes: u32) -> bool {
    let is_second = seed.is_multiple_of(6);
    nodes == 3 && seed >= UNAPPLIED_MARKERS_FROM && is_second && Profile::of(seed, nodes) == Profile::GracefulStops
}

/// From this seed on a node is sent no entry of the metadata for some time from before the level is raised, after the last fault.
pub(crate) const UNKNOWN_LEVEL_FROM: u64 = 165_000;

/// From this seed on operators move partitions between the data directories of a node.
pub(crate) const DIRECTORY_MOVES_FROM: u64 = 166_000;

/// True if operators move partitions between the data directories of a node: it has two then.
pub(crate) fn moves_directories(seed: u64, nodes: u32) -> bool {
    seed >= DIRECTORY_MOVES_FROM && Profile::of(seed, nodes) != Profile::Corruption
}

/// True if producers run transactions.
pub(crate) fn has_transactions(seed: u64) -> bool {
    seed >= ALWAYS_TRANSACTIONS_FROM || seed >= TRANSACTIONS_FROM && seed.is_multiple_of(2)
}

/// True if markers of transactions come once more when the producer has gone on.
pub(crate) fn has_late_markers(seed: u64) -> bool {
    seed >= ALWAYS_TRANSACTIONS_FROM
}

/// True if the leader of a shard is cut off while it is sealed for a merge.
pub(crate) fn interrupts_merges(seed: u64, nodes: u32) -> bool {
    nodes >= 3 && seed >= MERGES_INTERRUPTED_FROM
}

/// True if nodes run two releases. None joins, leaves, comes late or loses its disk then: what a node of the older release
/// becomes in a cluster that has gone on without it is the operator's mistake. And no disks of followers stall, while which
/// nothing else happens.
pub(crate) fn mixes_releases(seed: u64, nodes: u32) -> bool {
    let loses = matches!(Profile::of(seed, nodes), Profile::Members | Profile::GracefulStops | Profile::Corruption);
    let is_else = stalls_followers(seed, nodes) || has_late_founder(seed, nodes);
    nodes >= 3 && seed >= MIXED_RELEASES_FROM && !loses && !is_else
}

/// True if the disks of a leader's followers stall, and nothing else happens meanwhile.
pub(crate) fn stalls_followers(seed: u64, nodes: u32) -> bool {
    let profiles = [Profile::Mixed, Profile::Elections];
    nodes == 3 && seed >= WIDENED_AGAIN_FROM && profiles.contains(&Profile::of(seed, nodes))
}

/// Replicas of the topic that all clients share, where no disk is lost or damaged; `None` for the default. Two of three nodes
/// would be raised to three: clusters of two nodes have topics of two replicas.
fn factor(profile: Profile, seed: u64, nodes: u32) -> Option<i16> {
    let keeps_disks = matches!(profile, Profile::Crashes | Profile::Churn | Profile::Elections);
    let most = if nodes >= 5 { Some(4) } else { None };
    let factor = [None, Some(1), most][usize::try_from(seed % 3).unwrap_or(0)];
    factor.filter(|_| nodes >= 3 && seed >= WIDENED_AGAIN_FROM && keeps_disks)
}

/// True if nodes lose their disks while they are being unregistered, or are killed then.
pub(crate) fn loses_leavers(seed: u64, nodes: u32) -> bool {
    nodes >= 3 && seed >= LOST_VOTERS_FROM && Profile::of(seed, nodes) == Profile::GracefulStops
}

/// True if a founder starts when the others have made the first shards: these have one replica, so no disk may be lost.
pub(crate) fn has_late_founder(seed: u64, nodes: u32) -> bool {
    let loses_disks = matches!(Profile::of(seed, nodes), Profile::Members | Profile::Corruption | Profile::Generations);
    nodes >= 3 && seed >= LATE_FOUNDERS_FROM && seed.is_multiple_of(2) && !loses_disks
}

/// True if nodes are unregistered while they join, and while their disks hang.
pub(crate) fn unregisters_early(seed: u64, nodes: u32) -> bool {
    nodes >= 3 && seed >= LATE_FOUNDERS_FROM && Profile::of(seed, nodes) == Profile::GracefulStops
}

/// True if crashes of the only node damage a frame's head: a bit, which is corrected.
pub(crate) fn damages_heads(seed: u64, nodes: u32) -> bool {
    nodes == 1 && seed >= DAMAGED_HEADS_FROM
}

/// The clients that only some seeds have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtraClients {
    /// Members of groups, and groups whose offsets expire.
    Groups,
    /// Fetch sessions.
    Readers,
    /// Producers that request new producer ids.
    Producers,
}

impl Profile {
    /// The profile of a seed. Seven has no common factor with the ten by which cluster sizes vary.
    pub(crate) fn of(seed: u64, nodes: u32) -> Self {
        let alone = nodes < 3;
        if seed >= GRACEFUL_STOPS_FROM && seed.is_multiple_of(3) {
            return Self::GracefulStops;
        }
        if seed % 11 < 3 && !alone {
            return Self::Members;
        }
        match seed % 7 {
            0 => Self::Crashes,
            2 | 6 if !alone => Self::Corruption,
            3 if !alone => Self::Elections,
            1 | 2 => Self::Churn,
            4 => Self::Generations,
            3 | 6 => Self::Crashes,
            _ => Self::Mixed,
        }
    }

    /// The clients that a seed has besides those of every seed. Not all at once: they cost time.
    pub(crate) fn extra_clients(self, seed: u64) -> ExtraClients {
        match seed % 4 {
            1 | 3 if self != Self::Corruption => ExtraClients::Groups,
            1 | 2 => ExtraClients::Readers,
            _ => ExtraClients::Producers,
        }
    }

    /// True if log starts follow the ends closely.
    pub(crate) fn trims(self, seed: u64) -> bool {
        matches!(self, Self::Churn | Self::Generations) || (self == Self::Corruption && seed.is_multiple_of(2))
    }
}

/// Settings of the nodes that differ between seeds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    pub(crate) segment_bytes: u32,
    pub(crate) cache_bytes: usize,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) segment_batches_max: u32,
    pub(crate) reclaim_interval: Duration,
    /// A member that lacks more than this gets a snapshot.
    pub(crate) purge_horizon_bytes: u64,
    /// Nodes are in racks, consumers read from the replica in theirs, and producers compress their batches.
    pub(crate) is_widened: bool,
    /// How topics store batches.
    pub(crate) compression_type: CompressionType,
    /// `min.insync.replicas` of topics.
    pub(crate) min_in_sync: i32,
    /// Data directories of a node.
    pub(crate) directories: usize,
    /// A group has static members.
    pub(crate) has_static_members: bool,
    /// The feature levels that a node understands.
    pub(crate) levels: Levels,
    /// How often leaders decide about passes of compaction, and nodes do them.
    pub(crate) compaction_check: Duration,
    /// The topic of transactions is compacted.
    pub(crate) compacts_transfers: bool,
    /// Transactional producers abort at once what they have not sent.
    pub(crate) aborts_at_once: bool,
    /// Operators move replicas between the data directories of a node.
    pub(crate) moves_directories: bool,
    /// Of the map of keys of a pass: in every second seed its keys, transactions' above all, do not fit one map.
    pub(crate) key_map_bytes: usize,
    /// Pipelined producers send on to a new leader while the former one still owes them answers.
    pub(crate) sends_on: bool,
    /// Replicas of the topic that all clients share; `None`: as many as the cluster's default.
    pub(crate) factor: Option<i16>,
}

impl Tuning {
    /// Drawn from the seed.
    pub(crate) fn draw(profile: Profile, trims: bool, seed: u64, nodes: u32) -> Self {
        let segment_bytes = match seed % 7 {
            // Many entries and sets of verdicts are larger than a segment.
            5 => 64 << 10,
            _ if trims => 512 << 10,
            _ => 1 << 20,
        };
        // Without a cache followers and apply read from the disk.
        let large = sim::random_below(2) == 0 && profile != Profile::Corruption;
        let cache_bytes = if large { 8 << 20 } else { 16 << 10 };
        let checkpoint_interval = Duration::from_millis([100, 400, 1_500][sim::random_below(3) as usize]);
        let changes = profile == Profile::Generations;
        let segment_batches_max = if changes { [20, 40, 80][sim::random_below(3) as usize] } else { 2_000_000 };
        // While generations stay, much is garbage that only the older one needs.
        let reclaim_ms = if changes { [300, 2_000, 20_000][sim::random_below(3) as usize] } else { 20_000 };
        let reclaim_interval = Duration::from_millis(reclaim_ms);
        // Either so little that a few seconds of absence need a snapshot, or so much that entries are read from disks.
        let entries = profile == Profile::Corruption && sim::random_below(2) == 0;
        let purge_horizon_bytes = if entries { 4 << 20 } else { 256 << 10 };
        let is_widened = seed >= WIDENED_FROM;
        let compression_type = match is_widened.then(|| sim::random_below(5)) {
            Some(0) => CompressionType::Zstd,
            Some(1) => CompressionType::Lz4,
            Some(2) => CompressionType::Uncompressed,
            _ => CompressionType::Producer,
        };
        // More than a majority of three.
        let min_in_sync = if is_widened && nodes >= 3 && seed.is_multiple_of(5) { 3 } else { 1 };
        Self {
            segment_bytes,
            cache_bytes,
            checkpoint_interval,
            segment_batches_max,
            reclaim_interval,
            purge_horizon_bytes,
            is_widened,
            compression_type,
            min_in_sync,
            // Files are damaged in the first one alone.
            directories: if moves_directories(seed, nodes) {
                2
            } else if seed >= WIDENED_AGAIN_FROM && profile != Profile::Corruption {
                1 + (seed % 2) as usize
            } else {
                1
            },
            has_static_members: seed >= WIDENED_AGAIN_FROM,
            levels: Levels::OWN,
            compaction_check: Duration::from_millis(if seed >= COMPACTION_FROM { 300 } else { 15_000 }),
            compacts_transfers: seed >= COMPACTED_TRANSFERS_FROM,
            moves_directories: moves_directories(seed, nodes),
            aborts_at_once: seed >= UNSENT_ABORTED_FROM,
            key_map_bytes: if seed.is_multiple_of(2) { 32 << 20 } else { 25 << 10 },
            sends_on: seed >= SENDS_ON_FROM,
            factor: factor(profile, seed, nodes).filter(|_| min_in_sync == 1),
        }
    }
}
