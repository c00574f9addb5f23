//! What the metadata records of the merge of one shard into another (design section 8).
//!
//! ```text
//!  Seal     the absorbed shard is to be sealed: its log decides
//!  Cancel   it is not to be sealed, or to be unsealed
//!  Absorb   every member has the Seal: the survivor's log takes it over, and nothing takes that back
//!  Drain    its partitions are the survivor's; replicas that are behind still need it
//! ```
//! The metadata's log decides between Cancel and Absorb, so that the absorbed shard is unsealed only where it is never absorbed.
//! May not know: how a state is taken over.

use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::shard_id::ShardId;
use crate::levels::FeatureLevel;

/// So many leader epochs are left out by a merge. The absorbed shard may still elect leaders between its Seal and the Absorb, and
/// clients may be told of their epochs.
const EPOCHS_LEFT_OUT: i64 = 1 << 12;

/// The replica that takes over, and the one that is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MergeReplica {
    /// The replica of the shard that carries everything afterwards.
    pub survivor: ReplicaId,
    /// The replica of the other one, in the same data directory.
    pub absorbed: ReplicaId,
}

/// How far a merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MergePhase {
    /// The absorbed shard is to be sealed.
    Seal,
    /// The merge is cancelled; the absorbed shard is to be as before.
    Cancel,
    /// It is sealed for good, and to be absorbed.
    Absorb,
    /// It is absorbed, and carries nothing.
    Drain,
}

impl MergePhase {
    /// Its name, as operators see it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Seal => "sealing",
            Self::Cancel => "cancelling",
            Self::Absorb => "absorbing",
            Self::Drain => "draining",
        }
    }
}

/// The Seal of a shard, as its leader reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub struct SealReport {
    /// Its index in the log.
    pub index: RaftIndex,
    /// Its term.
    pub term: u64,
    /// The rolling checksum of the state.
    pub checksum: u64,
}

/// The merge of a shard into another one, in the record of the one that is absorbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeRecord {
    /// The shard that takes over.
    pub survivor: ShardId,
    /// Metadata index of the command: the intent that both logs name.
    pub intent: RaftIndex,
    /// How far it is.
    pub phase: MergePhase,
    /// For each of its replicas that of the survivor; while it drains, those that have not reported that they have taken over.
    pub replicas: Vec<MergeReplica>,
    /// From [`MergePhase::Absorb`] on.
    pub sealed: SealReport,
}

impl MergeRecord {
    /// The level from which on shards may be merged, and removed.
    pub const LEVEL: FeatureLevel = FeatureLevel(4);
}

/// A step of a merge, requested by an operator or reported by a shard's leader. `absorbed`: the shard in whose record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeStep {
    /// Begin.
    Begin {
        /// The shard that takes over.
        survivor: ShardId,
        /// The shard that it takes over.
        absorbed: ShardId,
    },
    /// Every member of the absorbed shard has its Seal.
    Sealed {
        /// The shard.
        absorbed: ShardId,
        /// The merge.
        intent: RaftIndex,
        /// What was sealed.
        sealed: SealReport,
    },
    /// Cancel, if it is not sealed for good.
    Cancel {
        /// The shard.
        absorbed: ShardId,
        /// The merge.
        intent: RaftIndex,
    },
    /// A cancelled merge has left nothing in the shard's log that could be carried out.
    Cancelled {
        /// The shard.
        absorbed: ShardId,
        /// The merge.
        intent: RaftIndex,
    },
    /// The survivor's log has taken over the shard.
    Absorbed {
        /// The shard.
        absorbed: ShardId,
        /// The merge.
        intent: RaftIndex,
        /// The survivor's term then, from which the epoch bases follow.
        term: u64,
    },
    /// A replica of the survivor has taken over the one beside it, durably.
    TakenOver {
        /// The shard.
        absorbed: ShardId,
        /// The survivor's replica.
        replica: ReplicaId,
    },
}

impl MergeStep {
    /// The absorbed shard.
    #[must_use]
    pub fn absorbed(&self) -> ShardId {
        match *self {
            Self::Begin { absorbed, .. }
            | Self::Sealed { absorbed, .. }
            | Self::Cancel { absorbed, .. }
            | Self::Cancelled { absorbed, .. }
            | Self::Absorbed { absorbed, .. }
            | Self::TakenOver { absorbed, .. } => absorbed,
        }
    }
}

/// The epoch base of a partition in the shard that takes it over in `term`: its epochs go on above all that the absorbed shard,
/// which was sealed in the term `sealed`, has announced.
#[must_use]
pub fn merged_epoch_base(base: i32, sealed: u64, term: u64) -> i32 {
    if mutants::is_on(Bug::MergeEpochFalls) {
        return base;
    }
    let as_epoch = |term: u64| i64::from(i32::try_from(term).unwrap_or(i32::MAX));
    let next = i64::from(base) + as_epoch(sealed) + EPOCHS_LEFT_OUT - as_epoch(term);
    i32::try_from(next.max(0)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_go_on_above_those_of_both_shards() {
        for (base, sealed, term) in [(0, 5, 3), (7, 1, 900), (0, 3, 1_000_000), (1 << 20, 9, 9)] {
            let merged = merged_epoch_base(base, sealed, term);
            let epoch = i64::from(merged) + i64::try_from(term).unwrap_or(0);
            let before = i64::from(base) + i64::try_from(sealed).unwrap_or(0);
            assert!(epoch > before && merged >= 0, "{base} {sealed} {term}: {epoch}");
        }
        assert_eq!(merged_epoch_base(i32::MAX, u64::MAX, 0), i32::MAX);
    }
}
