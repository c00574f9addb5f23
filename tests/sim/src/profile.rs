//! What a seed specialises in, so that faults which matter together come together.
//!
//! May not know: what the faults are, and who runs.

use std::time::Duration;

use ottla_storage::env::sim;

/// The kind of trouble of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Everything, a little of it.
    Mixed,
    /// Power and processes fail all the time, also twice in a row.
    Crashes,
    /// The disk of one node rots: what a replacement is for (three replicas or more only).
    Corruption,
    /// Leaders come and go; machines fail just when they have promised something.
    Elections,
    /// Disks are lost for good, nodes come, shards move.
    Members,
    /// Log starts move fast: segments die, are rewritten and unlinked.
    Churn,
    /// Nodes go as their operators have them go: they stop, one after the other or at bad moments, and are forgotten.
    GracefulStops,
    /// As churn, with short segments, and checkpoint generations that change often, damaged checkpoints and lost indexes:
    /// what was unlinked must not be missed by an older generation, nor when an index is read back from the log.
    Generations,
}

/// Smaller seeds had all been run before there were departures: what they found, they find again.
const GRACEFUL_STOPS_FROM: u64 = 20_000;

/// Smaller seeds had all been run before a node that is alone survived a wrong byte in the head of a frame.
const DAMAGED_HEADS_FROM: u64 = 30_000;

/// True if crashes of a node that is alone damage a frame's head: a bit, which is corrected.
pub(crate) fn damages_heads(seed: u64, nodes: u32) -> bool {
    nodes == 1 && seed >= DAMAGED_HEADS_FROM
}

/// Clients of a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExtraClients {
    /// Members of groups, and groups whose offsets expire.
    Groups,
    /// Fetch sessions.
    Readers,
    /// Producers that begin anew.
    Producers,
}

impl Profile {
    /// The profile of a seed. Seven has no factor in common with the ten by which clusters differ in size.
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

    /// The clients that come besides those of every seed. Not all of them at once: they cost time.
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

/// How the nodes of a seed are set up, as far as it differs between seeds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    pub(crate) segment_bytes: u32,
    pub(crate) cache_bytes: usize,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) segment_batches_max: u32,
    pub(crate) reclaim_interval: Duration,
    /// A member that lacks more than this gets a snapshot.
    pub(crate) purge_horizon_bytes: u64,
}

impl Tuning {
    /// Drawn from the seed.
    pub(crate) fn draw(profile: Profile, trims: bool, seed: u64) -> Self {
        let segment_bytes = match seed % 7 {
            // Many an entry and set of verdicts is larger than a segment.
            5 => 64 << 10,
            _ if trims => 512 << 10,
            _ => 1 << 20,
        };
        // Without a cache followers and apply read what the disk has.
        let large = sim::random_below(2) == 0 && profile != Profile::Corruption;
        let cache_bytes = if large { 8 << 20 } else { 16 << 10 };
        let checkpoint_interval = Duration::from_millis([100, 400, 1_500][sim::random_below(3) as usize]);
        let changes = profile == Profile::Generations;
        let segment_batches_max = if changes { [20, 40, 80][sim::random_below(3) as usize] } else { 2_000_000 };
        // While generations stay, much is dead that only the older one needs.
        let reclaim_ms = if changes { [300, 2_000, 20_000][sim::random_below(3) as usize] } else { 20_000 };
        let reclaim_interval = Duration::from_millis(reclaim_ms);
        // So little that a few seconds of absence are enough, or entries that are read from disks.
        let entries = profile == Profile::Corruption && sim::random_below(2) == 0;
        let purge_horizon_bytes = if entries { 4 << 20 } else { 256 << 10 };
        Self {
            segment_bytes,
            cache_bytes,
            checkpoint_interval,
            segment_batches_max,
            reclaim_interval,
            purge_horizon_bytes,
        }
    }
}
