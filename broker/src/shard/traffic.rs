//! Bytes that clients have sent to a shard or partition of this node, and got from it.
//!
//! May not know: what is done with them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::metadata::balance::Totals;

/// Bytes of record batches, since the replica was opened.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Traffic {
    /// Counts what a producer has appended.
    pub(crate) fn appended(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what a consumer has fetched.
    pub(crate) fn fetched(&self, bytes: u64) {
        self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals { bytes_in: of(&self.bytes_in), bytes_out: of(&self.bytes_out) }
    }
}
