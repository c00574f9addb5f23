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

    /// Makes an entry of so many bytes evictable, and evicts what is above the cap. The caller must hold no lock.
    pub(crate) fn evictable(&self, replica: Weak<Replica>, index: RaftIndex, sequence: u64, bytes: usize) {
        {
            let mut evictable = self.evictable.lock();
            evictable.items.push_back(Item { replica, index, sequence, bytes });
            evictable.bytes += bytes;
        }
        self.evict();
    }

    /// Checks the oldest items: dropped already (purged, void) or to be evicted. Two checks per added item keep the
    /// queue short.
    fn evict(&self) {
        let mut looks = 2_u32;
        loop {
            let mut evictable = self.evictable.lock();
            let over = evictable.bytes > self.bytes_max;
            if !over && looks == 0 {
                return;
            }
            looks = looks.saturating_sub(1);
            let Some(item) = evictable.items.front() else { return };
            let replica = item.replica.upgrade();
            let (index, sequence, bytes) = (item.index, item.sequence, item.bytes);
            if let Some(replica) = replica {
                let mut state = replica.state.lock();
                let alive = state.slot(index).is_some_and(|slot| slot.sequence == sequence && slot.cached.is_some());
                if alive && !over {
                    return;
                }
                let freed = state.evict(index, sequence);
                self.freed(freed);
            }
            evictable.items.pop_front();
            evictable.bytes -= bytes;
        }
    }
}
