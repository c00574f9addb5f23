//! What apply has changed in a shard's state, until readers and the checkpoint have been told of it.
//!
//! May not know: how either is told.

use std::collections::BTreeSet;

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId, ProducerId};

/// What changed in a partition since the last publication to readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Touched {
    /// Bytes of the batches appended.
    pub(crate) appended_bytes: u64,
    /// Its log start moved, or it is new.
    pub(crate) log_start_moved: bool,
    /// It was dropped; if it is carried now, it was adopted again afterwards and is another partition to readers.
    pub(crate) went: bool,
    /// Another shard of this node has taken it: its bytes live.
    pub(crate) moved: bool,
}

/// What changed since the last cut for the checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    pub(crate) shard: bool,
    pub(crate) partitions: BTreeSet<PartitionId>,
    pub(crate) epochs: BTreeSet<PartitionId>,
    pub(crate) producers: BTreeSet<(PartitionId, ProducerId)>,
    pub(crate) dropped: BTreeSet<PartitionId>,
    /// Aborted transactions, by the offset of their marker.
    pub(crate) aborted: BTreeSet<(PartitionId, Offset)>,
    /// Keys of groups of partitions that are gone.
    pub(crate) groups_gone: BTreeSet<(PartitionId, Bytes)>,
    /// The last place in the order of last use at that cut.
    pub(crate) cut_at: u64,
}

impl Dirty {
    /// Takes what is dirty; `order`: the last place in the order of last use.
    pub(crate) fn cut(&mut self, order: u64) -> Self {
        std::mem::replace(self, Self { cut_at: order, ..Self::default() })
    }

    /// Notes that a producer has another place in the order of last use. `replaced`: the one before; if it was taken since the cut, the
    /// producer is noted already, which most batches are spared so.
    pub(crate) fn producer_placed(&mut self, id: PartitionId, producer: ProducerId, replaced: Option<u64>) {
        if replaced.is_none_or(|replaced| replaced <= self.cut_at) {
            self.producers.insert((id, producer));
        }
        debug_assert!(self.producers.contains(&(id, producer)), "partition={id} producer={}", producer.0);
    }
}
