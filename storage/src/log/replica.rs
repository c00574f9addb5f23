//! One replica's log as memory knows it: its entries' ids and places, its vote, what is purged, what is durable.
//!
//! Pure state under one lock; it never waits and never calls back while locked.

use std::collections::VecDeque;
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

/// What is known of one entry.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) term: Term,
    /// Number of its frame.
    pub(crate) sequence: u64,
    /// Known once it is durable.
    pub(crate) place: Option<EntryPlace>,
    /// The entry, while it is not durable and as long as the cache keeps it.
    pub(crate) cached: Option<Entry>,
    /// Bytes that `cached` counts for.
    pub(crate) bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct ReplicaState {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    /// What is durable of it.
    pub(crate) purged_synced: Option<LogId>,
    /// Number of the next frame.
    pub(crate) next_sequence: u64,
    /// Number of the last durable frame.
    pub(crate) synced_sequence: u64,
    /// Index of the first slot; slots have consecutive indexes.
    pub(crate) first_index: u64,
    pub(crate) slots: VecDeque<Slot>,
    pub(crate) lost: bool,
    /// Entries that were voided or purged by frames which are not durable yet: (frame, first of them).
    voiding: Vec<(u64, Slot)>,
    /// Those who wait for an entry to become durable.
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

/// What an entry counts for in memory.
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

    /// True if an entry may come at this index: within the log, right after it, or anywhere after a purge of everything.
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

    /// Adds an entry; voids what was at its index and above. Returns the cached bytes that went with it.
    pub(crate) fn push(&mut self, index: u64, slot: Slot) -> usize {
        let freed = self.void_from(index, slot.sequence);
        if self.slots.is_empty() {
            self.first_index = index;
        }
        self.slots.push_back(slot);
        freed
    }

    /// The frame `by` voids the entries from `index` on; returns the cached bytes that are freed.
    pub(crate) fn void_from(&mut self, index: u64, by: u64) -> usize {
        let keep = usize::try_from(index.saturating_sub(self.first_index)).unwrap_or(usize::MAX);
        let Some(first) = self.slots.get(keep) else { return 0 };
        if by > self.synced_sequence {
            self.voiding.push((by, Slot { cached: None, ..first.clone() }));
        }
        self.slots.drain(keep..).map(|slot| cached_bytes(&slot)).sum()
    }

    /// The oldest entry above `released` that recovery must still find.
    pub(crate) fn oldest_needed(&self, released: Option<RaftIndex>) -> Option<&Slot> {
        let voided = self.voiding.iter().map(|(_, slot)| slot);
        let first = released.map_or(self.first_index, |index| self.first_index.max(index.0 + 1));
        self.slot(RaftIndex(first)).into_iter().chain(voided).min_by_key(|slot| slot.sequence)
    }

    /// The newest frame that voids or purges entries and is not durable yet.
    pub(crate) fn voiding_by(&self) -> Option<u64> {
        self.voiding.iter().map(|(by, _)| *by).max()
    }

    /// The frames up to `sequence` are durable.
    pub(crate) fn synced(&mut self, sequence: u64) {
        self.synced_sequence = sequence;
        self.voiding.retain(|(by, _)| *by > sequence);
    }

    /// The frame `by` purges the entries up to `upto`; returns the cached bytes that are freed.
    pub(crate) fn purge(&mut self, upto: LogId, by: u64) -> usize {
        self.purged = self.purged.max(Some(upto));
        if by > self.synced_sequence
            && let Some(first) = self.slots.front()
        {
            self.voiding.push((by, Slot { cached: None, ..first.clone() }));
        }
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

    /// The frame became durable at `place`; true if its entry is still there.
    pub(crate) fn placed(&mut self, index: RaftIndex, sequence: u64, place: EntryPlace) -> bool {
        let slot = self.offset_of(index.0).and_then(|at| self.slots.get_mut(at));
        match slot.filter(|slot| slot.sequence == sequence) {
            Some(slot) => {
                slot.place = Some(place);
                true
            }
            None => {
                let voided = self.voiding.iter_mut().find(|(_, slot)| slot.sequence == sequence);
                if let Some((_, slot)) = voided {
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

    /// Told when the frame `sequence` is durable.
    pub(crate) fn wait_for(&mut self, sequence: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.push((sequence, sender));
        receiver
    }

    /// Those who waited for what is durable now; to be told once the lock is released.
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
