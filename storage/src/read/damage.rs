//! The known damage of a data directory: batches that do not read back, and offsets that the index lacks.
//!
//! A repair of each item is tried once in every round of the rewriter, until it succeeds or no reader needs the data any
//! more. May not know: how it is repaired.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ottla_protocol::ids::Offset;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::index::ExtentKey;

/// A batch in any file: its partition and an offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) key: ExtentKey,
    pub(crate) offset: Offset,
}

#[derive(Debug, Default)]
struct State {
    /// Files with a damaged batch, and one that is damaged there.
    files: BTreeMap<u64, Spot>,
    /// Partitions with a gap, and the offsets that contain it.
    gaps: BTreeMap<ExtentKey, Range<Offset>>,
    /// What is still to be tried in this round.
    due_files: BTreeSet<u64>,
    due_gaps: BTreeSet<ExtentKey>,
}

/// The known damage of a data directory.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    state: Mutex<State>,
    news: Notify,
}

impl Damage {
    /// Records that a batch in this file does not read back.
    pub(crate) fn batch(&self, file: u64, spot: Spot) {
        let mut state = self.state.lock();
        if let Entry::Vacant(new) = state.files.entry(file) {
            new.insert(spot);
            state.due_files.insert(file);
            self.news.notify_one();
        }
    }

    /// Records that the index lacks some of these offsets, all of which were applied.
    pub(crate) fn gap(&self, key: ExtentKey, offsets: Range<Offset>) {
        let mut state = self.state.lock();
        if let Entry::Vacant(new) = state.gaps.entry(key) {
            new.insert(offsets);
            state.due_gaps.insert(key);
            self.news.notify_one();
        }
    }

    /// Returns when new damage is recorded.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Begins a round: everything known is tried once more.
    pub(crate) fn begin_round(&self) {
        let mut state = self.state.lock();
        state.due_files = state.files.keys().copied().collect();
        state.due_gaps = state.gaps.keys().copied().collect();
    }

    /// The next damaged file of this round.
    pub(crate) fn next_file(&self) -> Option<(u64, Spot)> {
        let mut state = self.state.lock();
        while let Some(file) = state.due_files.pop_first() {
            if let Some(spot) = state.files.get(&file) {
                return Some((file, *spot));
            }
        }
        None
    }

    /// The next gap of this round.
    pub(crate) fn next_gap(&self) -> Option<(ExtentKey, Range<Offset>)> {
        let mut state = self.state.lock();
        while let Some(key) = state.due_gaps.pop_first() {
            if let Some(offsets) = state.gaps.get(&key) {
                return Some((key, offsets.clone()));
            }
        }
        None
    }

    /// Forgets a file that no reader needs any more.
    pub(crate) fn forget_file(&self, file: u64) {
        self.state.lock().files.remove(&file);
    }

    /// Forgets a gap that is filled, or that no reader needs any more.
    pub(crate) fn forget_gap(&self, key: ExtentKey) {
        self.state.lock().gaps.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::ids::PartitionId;
    use uuid::Uuid;

    use super::*;
    use crate::ids::ReplicaId;

    fn spot(index: i32) -> Spot {
        let partition = PartitionId { topic: Uuid::from_u128(7), index };
        Spot { key: ExtentKey::of(ReplicaId(1), partition), offset: Offset(5) }
    }

    #[test]
    fn what_is_known_is_tried_once_a_round_until_it_is_forgotten() {
        let damage = Damage::default();
        damage.batch(3, spot(0));
        damage.batch(3, spot(1));
        damage.gap(spot(2).key, Offset(5)..Offset(9));
        assert_eq!((damage.next_file(), damage.next_file()), (Some((3, spot(0))), None));
        assert_eq!((damage.next_gap(), damage.next_gap()), (Some((spot(2).key, Offset(5)..Offset(9))), None));
        damage.batch(3, spot(0));
        assert_eq!(damage.next_file(), None, "it was tried in this round");
        damage.begin_round();
        damage.forget_gap(spot(2).key);
        assert_eq!((damage.next_file(), damage.next_gap()), (Some((3, spot(0))), None));
        damage.forget_file(3);
        damage.begin_round();
        assert_eq!(damage.next_file(), None);
    }
}
