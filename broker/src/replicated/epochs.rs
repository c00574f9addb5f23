//! The leader epochs of one partition, each with its start offset. An epoch is added when its first batch is appended.
//!
//! Answers OffsetForLeaderEpoch (KIP-101, KIP-320) and diverging epochs (KIP-595). Pure. Follows Kafka's
//! LeaderEpochFileCache: if the requested epoch does not exist, the next lower one that does is returned.
//! Invariant: epochs and start offsets both rise strictly.

use ottla_protocol::ids::{LeaderEpoch, Offset};

/// One epoch and its first offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of its first record.
    pub start: Offset,
}

/// The epochs of one partition, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochHistory(Vec<EpochStart>);

impl EpochHistory {
    /// A history as a checkpoint holds it.
    #[must_use]
    pub fn restored(starts: Vec<EpochStart>) -> Self {
        Self(starts)
    }

    /// Records that a batch was appended at `offset` under `epoch`; true if that epoch is new.
    pub fn note_append(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        match self.0.last() {
            Some(last) if last.epoch >= epoch => {
                assert!(last.epoch == epoch, "leader epoch falls from {} to {epoch}", last.epoch);
                false
            }
            _ => {
                // An epoch whose records are all deleted is replaced by the one that begins at its offset.
                self.0.truncate(self.0.partition_point(|known| known.start < offset));
                self.0.push(EpochStart { epoch, start: offset });
                true
            }
        }
    }

    /// The epoch under which `offset` was written, if it is known.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.0.partition_point(|known| known.start <= offset);
        self.0.get(after.checked_sub(1)?).map(|known| known.epoch)
    }

    /// The oldest epoch that has a record.
    #[must_use]
    pub fn oldest(&self) -> Option<LeaderEpoch> {
        self.0.first().map(|known| known.epoch)
    }

    /// The newest epoch that has a record.
    #[must_use]
    pub fn newest(&self) -> Option<LeaderEpoch> {
        self.0.last().map(|known| known.epoch)
    }

    /// The oldest epoch from this one on that has a record, and where it begins.
    #[must_use]
    pub fn first_from(&self, epoch: LeaderEpoch) -> Option<EpochStart> {
        self.0.get(self.0.partition_point(|known| known.epoch < epoch)).copied()
    }

    /// The oldest epoch above this one that has a record.
    #[must_use]
    pub fn after(&self, epoch: LeaderEpoch) -> Option<LeaderEpoch> {
        self.0.get(self.0.partition_point(|known| known.epoch <= epoch)).map(|known| known.epoch)
    }

    /// Where `requested` ends: the greatest known epoch that is not above it, and the first offset of the next one.
    /// `current` is the leader's epoch now, `end` the offset after the last record. `None`: the history does not reach
    /// that far back.
    #[must_use]
    pub fn end_of(&self, requested: LeaderEpoch, current: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        if requested == current {
            return Some((current, end));
        }
        let above = self.0.partition_point(|known| known.epoch <= requested);
        match (above.checked_sub(1).and_then(|at| self.0.get(at)), self.0.get(above)) {
            // Above every epoch that has a record, but the leader's own epoch may still be above it: ends at the end.
            (Some(known), None) if requested < current => Some((known.epoch, end)),
            (_, None) => None,
            (Some(known), Some(next)) => Some((known.epoch, next.start)),
            // Older than everything kept: it has no records left, so it ends where the oldest begins.
            (None, Some(oldest)) => Some((requested, oldest.start)),
        }
    }

    /// Removes epochs that end at or below the log start; true if anything changed. The epoch that holds the log start
    /// stays and now begins there, as in Kafka.
    pub fn prune(&mut self, log_start: Offset) -> bool {
        let holds = self.0.partition_point(|known| known.start <= log_start).saturating_sub(1);
        let mut changed = holds > 0;
        self.0.drain(..holds);
        if let Some(oldest) = self.0.first_mut()
            && oldest.start < log_start
        {
            oldest.start = log_start;
            changed = true;
        }
        changed
    }

    /// All epochs, oldest first.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(starts: &[(i32, i64)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (epoch, start) in starts {
            let _ = history.note_append(LeaderEpoch(*epoch), Offset(*start));
        }
        history
    }

    fn end(history: &EpochHistory, requested: i32) -> Option<(i32, i64)> {
        history.end_of(LeaderEpoch(requested), LeaderEpoch(9), Offset(100)).map(|(e, o)| (e.0, o.0))
    }

    #[test]
    fn an_absent_epoch_is_answered_by_the_next_lower_one() {
        let history = history(&[(2, 0), (4, 30), (7, 50)]);
        assert_eq!(end(&history, 2), Some((2, 30)));
        assert_eq!(end(&history, 3), Some((2, 30)));
        assert_eq!(end(&history, 6), Some((4, 50)));
        assert_eq!(end(&history, 7), Some((7, 100)));
        assert_eq!(end(&history, 8), Some((7, 100)));
        assert_eq!(end(&history, 9), Some((9, 100)));
        assert_eq!(end(&history, 10), None);
        assert_eq!(end(&history, 1), Some((1, 0)));
    }

    #[test]
    fn an_empty_history_knows_the_current_epoch_only() {
        assert_eq!(end(&EpochHistory::default(), 9), Some((9, 100)));
        assert_eq!(end(&EpochHistory::default(), 8), None);
    }

    #[test]
    fn pruning_keeps_the_epoch_that_holds_the_log_start() {
        let mut history = history(&[(2, 0), (4, 30), (7, 50)]);
        assert!(!history.prune(Offset(0)));
        assert!(history.prune(Offset(40)));
        assert_eq!(history.epoch_of(Offset(40)), Some(LeaderEpoch(4)));
        assert_eq!(history.epoch_of(Offset(39)), None);
        assert!(history.prune(Offset(100)));
        assert_eq!(history.starts(), [EpochStart { epoch: LeaderEpoch(7), start: Offset(100) }]);
    }

    #[test]
    fn an_epoch_without_records_gives_way_to_the_next() {
        let mut history = history(&[(2, 0), (4, 30)]);
        assert!(history.prune(Offset(50)));
        assert!(history.note_append(LeaderEpoch(7), Offset(50)));
        assert_eq!(history.starts(), [EpochStart { epoch: LeaderEpoch(7), start: Offset(50) }]);
        assert_eq!(end(&history, 6), Some((6, 50)));
    }

    #[test]
    fn an_epoch_is_noted_once() {
        let mut history = EpochHistory::default();
        assert!(history.note_append(LeaderEpoch(1), Offset(0)));
        assert!(!history.note_append(LeaderEpoch(1), Offset(5)));
        assert!(history.note_append(LeaderEpoch(3), Offset(6)));
        assert_eq!(history.epoch_of(Offset(5)), Some(LeaderEpoch(1)));
    }
}
