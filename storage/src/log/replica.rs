//! The in-memory state of one replica's log: ids and positions of its entries, its vote, what is purged and durable.
//!
//! Pure state under one lock; it never waits and never calls back while locked.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::types::EntryPlace;
use crate::entry::{Entry, Vote};
use crate::ids::{LogId, RaftIndex, ReplicaId, Term};

/// A replica of the directory.
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) creation: Bytes,
    priority: AtomicBool,
    pub(crate) state: Mutex<ReplicaState>,
}

/// One entry in memory.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) term: Term,
    /// Number of its frame.
    pub(crate) sequence: u64,
    /// Known once it is durable.
    pub(crate) place: Option<EntryPlace>,
    /// The entry, while it is not durable and as long as the cache keeps it.
    pub(crate) cached: Option<Entry>,
    /// Bytes of `cached` in the cache's accounting.
    pub(crate) bytes: usize,
    /// A copy of it is being written to the tail.
    pub(crate) moving: bool,
}

/// An entry that was voided or purged by the frame `by`, which is not durable yet.
#[derive(Debug)]
struct Voiding {
    by: u64,
    slot: Slot,
    relocated: bool,
}

/// Entries that recovery must still find.
#[derive(Debug, Default)]
pub(crate) struct Needed<'a> {
    /// The first of those that lie in log order: everything after it lies after it in the log.
    pub(crate) first: Option<&'a Slot>,
    /// Those that were relocated.
    pub(crate) relocated: Vec<&'a Slot>,
}

#[derive(Debug, Default)]
pub(crate) struct ReplicaState {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    /// Its durable part.
    pub(crate) purged_synced: Option<LogId>,
    /// Number of the next frame.
    pub(crate) next_sequence: u64,
    /// Number of the last durable frame.
    pub(crate) synced_sequence: u64,
    /// Index of the first slot; slots have consecutive indexes.
    pub(crate) first_index: u64,
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) lost: bool,
    /// Its last frame is queued: none may follow, or segment tables would list the replica again.
    pub(crate) removed: bool,
    /// Relocated entries: their frame was written again, at the then tail.
    pub(crate) relocated: BTreeSet<u64>,
    /// Entries up to here are not relocated: the index has their positions, or verdicts in the log refer to them.
    pub(crate) fixed: Option<RaftIndex>,
    /// Of the entries that frames which are not durable yet have voided or purged: the first in log order, and those that
    /// were relocated.
    voiding: Vec<Voiding>,
    /// Waiters for an entry to become durable.
    waiters: Vec<(u64, oneshot::Sender<()>)>,
}

impl Replica {
    pub(crate) fn new(id: ReplicaId, creation: Bytes) -> Self {
        let state = ReplicaState { next_sequence: 1, ..ReplicaState::default() };
        Self { id, creation, priority: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(crate) fn with_state(id: ReplicaId, creation: Bytes, state: ReplicaState) -> Self {
        Self { id, creation, priority: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(crate) fn has_priority(&self) -> bool {
        self.priority.load(Ordering::Relaxed)
    }

    pub(crate) fn set_priority(&self, first: bool) {
        self.priority.store(first, Ordering::Relaxed);
    }
}

/// Bytes of an entry in memory, for accounting.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    const FIXED: usize = 160;
    FIXED + entry.payload.len() + entry.batches.iter().map(|b| b.data.len() + 64).sum::<usize>()
}

impl ReplicaState {
    /// Takes the next sequence number.
    pub(crate) fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        sequence
    }

    /// Index after the last entry.
    pub(crate) fn end_index(&self) -> u64 {
        if self.slots.is_empty() {
            self.purged.map_or(0, |id| id.index.0 + 1)
        } else {
            self.first_index + self.slots.len() as u64
        }
    }

    /// True if an entry may be appended at this index: within the log, right after it, or anywhere after a purge of all.
    pub(crate) fn may_follow(&self, index: u64) -> bool {
        let above_purge = self.purged.is_none_or(|id| index > id.index.0);
        if self.slots.is_empty() {
            above_purge && self.purged.is_none_or(|id| index == id.index.0 + 1)
        } else {
            above_purge && index <= self.end_index()
        }
    }

    pub(crate) fn slot(&self, index: RaftIndex) -> Option<&Slot> {
        self.slots.get(self.offset_of(index.0)?)
    }

    fn offset_of(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.first_index)?).ok()
    }

    /// Adds an entry; voids what was at its index and above. Returns the cached bytes that this freed.
    pub(crate) fn push(&mut self, index: u64, slot: Slot) -> usize {
        let freed = self.void_from(index, slot.sequence);
        if self.slots.is_empty() {
            self.first_index = index;
        }
        let (end, sequence) = (self.end_index(), slot.sequence);
        assert!(
            self.slots.is_empty() || index == end,
            "frame {sequence}: entry {index} after {} before {end}",
            self.first_index
        );
        self.slots.push_back(slot);
        freed
    }

    /// Voids the entries from `index` on, by the frame `by`; returns the cached bytes that are freed.
    pub(crate) fn void_from(&mut self, index: u64, by: u64) -> usize {
        let keep = usize::try_from(index.saturating_sub(self.first_index)).unwrap_or(usize::MAX);
        if keep >= self.slots.len() {
            return 0;
        }
        self.remember(keep..self.slots.len(), by);
        self.relocated.split_off(&index);
        self.slots.drain(keep..).map(|slot| cached_bytes(&slot)).sum()
    }

    /// Remembers that until the frame `by` is durable, recovery must find what it voids.
    fn remember(&mut self, range: std::ops::Range<usize>, by: u64) {
        if by <= self.synced_sequence {
            return;
        }
        let mut in_turn = false;
        for at in range {
            let relocated = self.relocated.contains(&(self.first_index + at as u64));
            if let Some(slot) = self.slots.get(at)
                && (relocated || !in_turn)
            {
                self.voiding.push(Voiding { by, slot: Slot { cached: None, ..slot.clone() }, relocated });
                in_turn |= !relocated;
            }
            if in_turn && self.relocated.range(self.first_index + at as u64..).next().is_none() {
                break;
            }
        }
    }

    /// The entries above `released`, without those that are void for certain.
    pub(crate) fn standing(&self, released: Option<RaftIndex>) -> Needed<'_> {
        let from = released.map_or(self.first_index, |index| self.first_index.max(index.0.saturating_add(1)));
        let mut first = from;
        while self.relocated.contains(&first) {
            first += 1;
        }
        let relocated = self.relocated.range(from..).filter_map(|index| self.slot(RaftIndex(*index)));
        Needed { first: self.slot(RaftIndex(first)), relocated: relocated.collect() }
    }

    /// The entries above `released` that recovery must still find.
    pub(crate) fn needed(&self, released: Option<RaftIndex>) -> Needed<'_> {
        let mut needed = self.standing(released);
        for voiding in &self.voiding {
            if voiding.relocated {
                needed.relocated.push(&voiding.slot);
            } else {
                let first = needed.first.into_iter().chain([&voiding.slot]);
                needed.first = first.min_by_key(|slot| slot.sequence);
            }
        }
        needed
    }

    /// The position of an entry, final from now on; `None` while it is not known, or changes.
    pub(crate) fn fix_place(&mut self, index: RaftIndex) -> Option<&Slot> {
        let at = self.offset_of(index.0)?;
        let slot = self.slots.get(at).filter(|slot| slot.place.is_some() && !slot.moving)?;
        self.fixed = self.fixed.max(Some(index));
        Some(slot)
    }

    /// True if the entry may be relocated: it is this one, lies there, and nothing refers to its position.
    pub(crate) fn may_move(&mut self, index: RaftIndex, sequence: u64, place: EntryPlace) -> Option<&mut Slot> {
        if self.removed || self.fixed >= Some(index) {
            return None;
        }
        let slot = self.offset_of(index.0).and_then(|at| self.slots.get_mut(at))?;
        (slot.sequence == sequence && slot.place == Some(place) && !slot.moving).then_some(slot)
    }

    /// The newest frame that voids or purges entries and is not durable yet.
    pub(crate) fn voiding_by(&self) -> Option<u64> {
        self.voiding.iter().map(|voiding| voiding.by).max()
    }

    /// Marks the frames up to `sequence` as durable.
    pub(crate) fn synced(&mut self, sequence: u64) {
        // A relocated frame has an older number.
        self.synced_sequence = self.synced_sequence.max(sequence);
        self.voiding.retain(|voiding| voiding.by > sequence);
    }

    /// Purges the entries up to `upto`, by the frame `by`; returns the cached bytes that are freed.
    pub(crate) fn purge(&mut self, upto: LogId, by: u64) -> usize {
        self.purged = self.purged.max(Some(upto));
        let count =
            usize::try_from(upto.index.0.saturating_add(1).saturating_sub(self.first_index)).unwrap_or(usize::MAX);
        self.remember(0..count.min(self.slots.len()), by);
        self.relocated = self.relocated.split_off(&upto.index.0.saturating_add(1));
        let mut freed = 0;
        while self.first_index <= upto.index.0 {
            let Some(slot) = self.slots.pop_front() else { break };
            self.first_index += 1;
            freed += cached_bytes(&slot);
        }
        freed
    }

    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        let last = self.slots.back().map(|slot| LogId { term: slot.term, index: RaftIndex(self.end_index() - 1) });
        last.or(self.purged)
    }

    /// The newest entry whose frame is durable.
    pub(crate) fn last_synced(&self) -> Option<LogId> {
        let durable = self.slots.partition_point(|slot| slot.sequence <= self.synced_sequence);
        match durable.checked_sub(1).and_then(|at| Some((at, self.slots.get(at)?))) {
            Some((at, slot)) => Some(LogId { term: slot.term, index: RaftIndex(self.first_index + at as u64) }),
            None => self.purged,
        }
    }

    pub(crate) fn log_id(&self, index: RaftIndex) -> Option<LogId> {
        match self.slot(index) {
            Some(slot) => Some(LogId { term: slot.term, index }),
            None => self.purged.filter(|id| id.index == index),
        }
    }

    /// Records that the frame became durable at `place`; true if its entry still exists, and was not durable elsewhere before.
    pub(crate) fn placed(&mut self, index: RaftIndex, sequence: u64, place: EntryPlace) -> bool {
        let slot = self.offset_of(index.0).and_then(|at| self.slots.get_mut(at));
        match slot.filter(|slot| slot.sequence == sequence) {
            Some(slot) => {
                if let Some(known) = slot.place {
                    assert!(slot.moving, "frame {sequence}, entry {}: lies at {known:?} and at {place:?}", index.0);
                    self.relocated.insert(index.0);
                }
                slot.moving = false;
                slot.place.replace(place).is_none()
            }
            None => {
                // The position before it was relocated serves as well, and what else was voided with it lies after that.
                let voided = self.voiding.iter_mut().map(|voiding| &mut voiding.slot);
                if let Some(slot) = voided.into_iter().find(|slot| slot.sequence == sequence && slot.place.is_none()) {
                    slot.place = Some(place);
                }
                false
            }
        }
    }

    /// Drops a cached entry; returns the bytes that are freed.
    pub(crate) fn evict(&mut self, index: RaftIndex, sequence: u64) -> usize {
        let slot = self.offset_of(index.0).and_then(|at| self.slots.get_mut(at));
        match slot.filter(|slot| slot.sequence == sequence && slot.place.is_some()) {
            Some(slot) => {
                let freed = cached_bytes(slot);
                slot.cached = None;
                freed
            }
            None => 0,
        }
    }

    /// A receiver that is notified when the frame `sequence` is durable.
    pub(crate) fn wait_for(&mut self, sequence: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push((sequence, sender));
        receiver
    }

    /// Waiters for what is durable now; to be notified after the lock is released.
    pub(crate) fn take_waiters(&mut self) -> Vec<oneshot::Sender<()>> {
        let synced = self.synced_sequence;
        let (ready, waiting) = std::mem::take(&mut self.waiters).into_iter().partition(|(s, _)| *s <= synced);
        self.waiters = waiting;
        Vec::into_iter(ready).map(|(_, sender)| sender).collect()
    }
}

fn cached_bytes(slot: &Slot) -> usize {
    if slot.cached.is_some() { slot.bytes } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;

    /// An entry that is purged is never written again, also where it would follow one that is there.
    #[test]
    fn an_entry_follows_what_is_there_and_lies_above_the_purge() {
        let purged = |index| Some(LogId { term: Term(1), index: RaftIndex(index) });
        let follows = |state: &ReplicaState| (4..=10).filter(|index| state.may_follow(*index)).collect::<Vec<_>>();
        let mut state = ReplicaState { purged: purged(5), ..ReplicaState::default() };
        assert_eq!(follows(&state), [6], "a log that is purged to its end");
        state.first_index = 6;
        let slot = |sequence| Slot { term: Term(1), sequence, place: None, cached: None, bytes: 0, moving: false };
        state.slots.extend((1..=3).map(slot));
        assert_eq!(follows(&state), [6, 7, 8, 9], "an entry in place of one of three, or behind them");
        state.purged = purged(7);
        assert_eq!(follows(&state), [8, 9]);
        assert_eq!(follows(&ReplicaState::default()), (4..=10).collect::<Vec<_>>(), "a new log begins anywhere");
    }
}
