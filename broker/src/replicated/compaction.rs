//! How far a partition is compacted, as its state says it, and which pass follows (design section 12.1).
//!
//! Pure, as apply is. May not know: when a pass is due, what it keeps, which replicas have done it.

use ottla_protocol::ids::Offset;
use ottla_storage::compact::Pass;
use ottla_storage::ids::RaftIndex;

use super::command::CompactionChange;

/// The last pass over a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CompactionState {
    /// 0 if there was none.
    pub(crate) number: u64,
    pub(crate) horizon: Offset,
    pub(crate) cutoff: Offset,
    /// The entry of this shard since which it is known here.
    pub(crate) decided_at: RaftIndex,
    /// The cutoff may rise to here once `delete.retention.ms` have passed since the time below: what is a tombstone below was compacted
    /// at that time, and so were the values before it.
    pub(crate) next_cutoff: Offset,
    pub(crate) since_ms: i64,
}

impl CompactionState {
    pub(crate) fn pass(&self) -> Pass {
        Pass { horizon: self.horizon, cutoff: self.cutoff }
    }

    /// The cutoff of a pass that is decided at this time of the shard's clock.
    pub(crate) fn cutoff_at(&self, now_ms: i64, delete_retention_ms: i64) -> Offset {
        let is_over = now_ms.saturating_sub(self.since_ms) >= delete_retention_ms;
        if is_over { self.next_cutoff.max(self.cutoff) } else { self.cutoff }
    }

    pub(super) fn is_followed_by(&self, change: &CompactionChange, last_stable: Offset) -> bool {
        change.number == self.number + 1
            && (self.horizon..=last_stable).contains(&change.horizon)
            && (self.cutoff..=self.horizon).contains(&change.cutoff)
    }

    pub(super) fn followed_by(&self, change: &CompactionChange, decided_at: RaftIndex, clock_ms: i64) -> Self {
        let CompactionChange { number, horizon, cutoff, .. } = *change;
        let is_used = cutoff >= self.next_cutoff;
        let (next_cutoff, since_ms) = if is_used { (horizon, clock_ms) } else { (self.next_cutoff, self.since_ms) };
        Self { number, horizon, cutoff, decided_at, next_cutoff, since_ms }
    }

    /// The same where the partition is carried by another shard, whose entry this is.
    pub(super) fn carried_since(self, entry: RaftIndex) -> Self {
        let decided_at = if self.number == 0 { self.decided_at } else { entry };
        Self { decided_at, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_protocol::ids::PartitionId;
    use uuid::Uuid;

    const ID: PartitionId = PartitionId { topic: Uuid::from_u128(1), index: 0 };

    fn change(number: u64, horizon: i64, cutoff: i64) -> CompactionChange {
        CompactionChange { id: ID, number, horizon: Offset(horizon), cutoff: Offset(cutoff) }
    }

    #[test]
    fn only_a_pass_that_follows_the_last_one_is_carried_out() {
        let first = change(1, 10, 0);
        let state = CompactionState::default().followed_by(&first, RaftIndex(5), 100);
        let follows = |change| state.is_followed_by(&change, Offset(20));
        assert!(follows(change(2, 10, 0)) && follows(change(2, 20, 10)));
        assert!(!follows(first), "it was carried out");
        assert!(!follows(change(3, 20, 0)), "one was left out");
        assert!(!follows(change(2, 9, 0)), "the horizon falls");
        assert!(!follows(change(2, 21, 0)), "what is not stable is compacted");
        assert!(!follows(change(2, 20, 11)), "tombstones go that were not compacted before");
    }

    #[test]
    fn a_cutoff_rises_to_a_horizon_that_is_old_enough_and_never_falls() {
        let state = CompactionState::default().followed_by(&change(1, 10, 0), RaftIndex(1), 1_000);
        assert_eq!(state.cutoff_at(1_499, 500), Offset(0));
        assert_eq!(state.cutoff_at(1_500, 500), Offset(10));
        let state = state.followed_by(&change(2, 20, 0), RaftIndex(2), 1_400);
        assert_eq!(state.cutoff_at(1_500, 500), Offset(10), "of the pass at 1,000");
        let state = state.followed_by(&change(3, 30, 10), RaftIndex(3), 1_600);
        assert_eq!((state.next_cutoff, state.since_ms), (Offset(30), 1_600));
        assert_eq!(state.cutoff_at(2_000, 500), Offset(10));
        assert_eq!(state.cutoff_at(2_100, 500), Offset(30));
    }
}
