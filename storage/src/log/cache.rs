//! The entry cache: entries kept in memory after they are durable, capped in bytes, evicted oldest first.
//!
//! Entries that are not durable yet are always kept: they can be read nowhere else. Proposers bound their bytes.

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
}

/// Which entries are cached, in the order in which they became durable.
pub(crate) struct Cache {
    bytes_max: usize,
    bytes: AtomicUsize,
    items: Mutex<VecDeque<Item>>,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0), items: Mutex::new(VecDeque::new()) }
    }

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

    /// Makes an entry evictable, and evicts what is above the cap. The caller must hold no lock.
    pub(crate) fn evictable(&self, replica: Weak<Replica>, index: RaftIndex, sequence: u64) {
        self.items.lock().push_back(Item { replica, index, sequence });
        self.evict();
    }

    /// Checks the oldest items: dropped already (purged, void) or to be evicted. Two checks per added item keep the
    /// queue short.
    fn evict(&self) {
        let mut looks = 2_u32;
        loop {
            let over = self.bytes() > self.bytes_max;
            if !over && looks == 0 {
                return;
            }
            looks = looks.saturating_sub(1);
            let mut items = self.items.lock();
            let Some(item) = items.front() else { return };
            let replica = item.replica.upgrade();
            let (index, sequence) = (item.index, item.sequence);
            if let Some(replica) = replica {
                let mut state = replica.state.lock();
                let alive = state.slot(index).is_some_and(|slot| slot.sequence == sequence && slot.cached.is_some());
                if alive && !over {
                    return;
                }
                let freed = state.evict(index, sequence);
                self.freed(freed);
            }
            items.pop_front();
        }
    }
}
