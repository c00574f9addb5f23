//! The read barrier: confirms leadership before a read, one confirmation for all readers that requested it before it
//! began.
//!
//! So a request for thousands of partitions costs two read indexes, not thousands. May not know: what is read.

use std::sync::atomic::{AtomicU64, Ordering};

use super::group::Group;

/// The outcome of the last read index, and how many requests had been made when it began.
#[derive(Default)]
struct ReadRound {
    covers: u64,
    confirmed: bool,
}

/// The read barrier of one shard.
#[derive(Default)]
pub(super) struct ReadBarrier {
    /// Read indexes requested so far.
    requested: AtomicU64,
    last: tokio::sync::Mutex<ReadRound>,
}

impl ReadBarrier {
    /// Waits for a read index that began after this call; false if it failed.
    pub(super) async fn confirm(&self, group: &dyn Group) -> bool {
        let mine = self.requested.fetch_add(1, Ordering::AcqRel);
        let mut last = self.last.lock().await;
        if last.covers <= mine {
            let covers = self.requested.load(Ordering::Acquire);
            *last = ReadRound { covers, confirmed: group.read_index().await.is_ok() };
        }
        last.confirmed
    }
}
