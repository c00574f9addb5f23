//! Compaction: the last value of every key of a partition, below a horizon. Which records a pass keeps, without I/O (design section 12).
//!
//! ```text
//!  learn   the keys of what is new -> the last offset of each       (KeyMap)
//!  judge   where there are transactions, which were aborted          (Transactions)
//!  mark    what the map knows at a later offset                      (Marks)
//!  keep    what is not superseded; empty batches where nothing is    (Keeper)
//! ```
//! Invariant: what a pass keeps is a function of what was written, its horizon and its cutoff, whatever passes came before.
//! May not know: files, indexes, replicas; when a pass is due.

mod keeper;
mod key_map;
mod marks;
#[cfg(test)]
mod tests;
mod transactions;

use bytes::Bytes;
use ottla_protocol::ids::{LeaderEpoch, Offset};
use ottla_protocol::records::RecordsError;

pub use keeper::{Keeper, Superseded};
pub use key_map::{HashRange, KeyMap};
pub use marks::Marks;
pub use transactions::Transactions;

/// How far a partition is to be compacted, the same for all of its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pass {
    /// Nothing at or above this offset is touched. The end of a batch, and not above the last stable offset.
    pub horizon: Offset,
    /// Tombstones and the markers of transactions go below this offset, which is not above the horizon.
    pub cutoff: Offset,
}

/// A pass that was done over the bytes of a partition in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassDone {
    /// The pass's number; they begin with 1.
    pub number: u64,
    /// What it was.
    pub pass: Pass,
}

impl PassDone {
    /// The number of a replica's last pass: 0 if it has done none.
    #[must_use]
    pub fn number_of(done: Option<Self>) -> u64 {
        done.map_or(0, |done| done.number)
    }

    /// True if the batches from an offset on are the same where these passes were done: what lies above both horizons is, and what
    /// one pass has left.
    #[must_use]
    pub fn are_alike(one: Option<Self>, other: Option<Self>, from: Offset) -> bool {
        let lies_above = |done: &Self| done.pass.horizon <= from;
        Self::number_of(one) == Self::number_of(other) || one.iter().chain(&other).all(lies_above)
    }
}

/// A batch as it is stored: its offset and epoch may stand in an index alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Epoch of the leader that appended it.
    pub epoch: LeaderEpoch,
    /// Its bytes, header included.
    pub data: Bytes,
}

/// Why a pass cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// A batch cannot be read.
    #[error("the batch at offset {offset} cannot be read: {cause}")]
    Unreadable {
        /// Its first offset.
        offset: Offset,
        /// What is wrong with it.
        cause: RecordsError,
    },
    /// The bytes are shorter than a header.
    #[error("the batch at offset {offset} has no whole header")]
    NoHeader {
        /// Its first offset.
        offset: Offset,
    },
    /// A batch is of a transaction, and the keeper was not told which were aborted.
    #[error("the batch at offset {offset} is of a transaction that nothing is known about")]
    Unjudged {
        /// Its first offset.
        offset: Offset,
    },
    /// There are more keys in the range of hashes than the map may hold: the range has to be divided.
    #[error("more than {capacity} keys")]
    MapFull {
        /// Keys that it may hold.
        capacity: usize,
    },
}

/// Tells whether a transaction was aborted: by its producer and the first offset of a batch of it.
pub type IsAborted = Box<dyn Fn(i64, Offset) -> bool + Send>;
