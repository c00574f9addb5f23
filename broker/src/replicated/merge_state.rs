//! What the state of a shard holds of merges.
//!
//! May not know: how a state is sealed or taken over.

use std::collections::BTreeMap;

use ottla_protocol::ids::PartitionId;
use ottla_storage::ids::RaftIndex;

/// What a shard was when it was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sealed {
    /// Metadata index of the intent.
    pub intent: RaftIndex,
    /// Term of the entry.
    pub term: u64,
    /// Its index.
    pub index: RaftIndex,
    /// The shard clock.
    pub clock_ms: i64,
    /// The last order number given to a producer.
    pub order: u64,
    /// The rolling checksum.
    pub checksum: u64,
}

/// The last merge by which a shard took over another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LastMerge {
    /// Metadata index of the intent: it and those before it are not carried out again.
    pub intent: RaftIndex,
    /// Index of the entry.
    pub index: RaftIndex,
    /// The shard's term at the entry, from which the epoch bases follow.
    pub term: u64,
}

/// What a shard has taken over in its last merge, as long as the replica runs: for those who wait at the absorbed one.
#[derive(Debug, Clone, Default)]
pub(crate) struct TakenOver {
    /// The epoch base that each partition had there.
    pub(crate) epoch_bases: BTreeMap<PartitionId, i32>,
}
