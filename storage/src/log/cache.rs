//! The entry cache: entries kept in memory after they are durable, capped in bytes, evicted oldest first.
//!
//! Entries that are not durable yet are always kept: they can be read nowhere else. Proposers bound their bytes. They do not
//! count towards the cap: where much is in flight, entries would be evicted in the moment in which they are durable, to be read
//! back at once for apply and for followers.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::replica::Replica;
use crate::ids::RaftIndex;

struct Item {
    replica: Weak<Replica>,
    index: RaftIndex,
    sequence: u64,
    bytes: usize,
}

/// Durable entries, in the order in which they became durable, and their bytes. Some of them may be dropped already.
#[derive(Default)]
struct Evictable {
    items: VecDeque<Item>,
    bytes: usize,
}

/// Which entries are cached.
pub(crate) struct Cache {
    bytes_max: usize,
    bytes: AtomicUsize,
    evictable: Mutex<Evictable>,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), evictable: Mutex::default() }
    }

    /// Bytes of all entries in memory, durable or not.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Adds an entry of so many bytes to the accounting.
    pub(crate) fn added(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Removes entries of so many bytes from the accounting.
    pub(crate) fn freed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Makes an entry of so many bytes evictable, and checks the oldest ones: dropped already (purged, void), or to be evicted while
    /// they are above the cap. Two checks per added entry keep the queue short. The caller must hold no lock.
    pub(crate) fn evictable(&self, replica: Weak<Replica>, index: RaftIndex, sequence: u64, bytes: usize) {
        let mut evictable = self.evictable.lock();
        let Evictable { items, bytes: total } = &mut *evictable;
        items.push_back(Item { replica, index, sequence, bytes });
        *total += bytes;
        let mut looks = 2_u32;
        while let Some(item) = items.front() {
            let over = *total > self.bytes_max;
            if !over && looks == 0 {
                return;
            }
            looks = looks.saturating_sub(1);
            if let Some(replica) = item.replica.upgrade() {
                let mut state = replica.state.lock();
                let slot = state.slot(item.index);
                let alive = slot.is_some_and(|slot| slot.sequence == item.sequence && slot.cached.is_some());
                if alive && !over {
                    return;
                }
                self.freed(state.evict(item.index, item.sequence));
            }
            *total -= item.bytes;
            items.pop_front();
        }
    }
}
