//! The handover of queued batches from a shard to the child that a split makes of a part of it, or to the shard that takes it
//! over (design section 8): clients are not told that their partition moves.
//!
//! ```text
//!  Split is proposed      batches of its partitions are held: apply would refuse what is in the log behind it
//!  not carried out        they go on
//!  the child is open      they are queued there, in order, and so is whatever still arrives here
//! ```
//! Coordinators' own batches are not handed over. Only where one node leads the parent and opens the child; held for a bounded
//! time, within the bounds of the queue. May not know: what a batch holds, how a child becomes a group.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ottla_env::rt::Instant;
use ottla_protocol::ids::PartitionId;

use super::queued::QueuedBatch;

/// For so long batches wait for a split, and then for the election of the child's leader: clients that have waited so long
/// are told to look for the leader.
pub(crate) const HANDOVER_WAIT: Duration = Duration::from_secs(2);

/// The child or survivor: a shard that takes batches over.
pub(crate) trait Successor: std::fmt::Debug + Send + Sync {
    /// Queues a batch behind all others, or answers it.
    fn enqueue(&self, batch: QueuedBatch);
}

/// The partitions that a split or merge takes out of a shard, and what becomes of their batches.
#[derive(Debug)]
pub(crate) struct Handover {
    /// `None`: all that the shard carries.
    partitions: Option<BTreeSet<PartitionId>>,
    to: To,
}

#[derive(Debug)]
enum To {
    HeldUntil(Instant),
    /// Weak, for it may be removed before its parent.
    Child(Weak<dyn Successor>),
}

/// Where a batch goes.
#[derive(Debug)]
pub(crate) enum Destination {
    /// It waits in the parent's queue, until then at most.
    HeldUntil(Instant),
    Child(Arc<dyn Successor>),
}

impl Handover {
    /// Of a split that is proposed now.
    pub(crate) fn proposed(partitions: &[PartitionId], now: Instant) -> Self {
        Self { partitions: Some(partitions.iter().copied().collect()), to: To::HeldUntil(now + HANDOVER_WAIT) }
    }

    /// Of the Seal of a shard that another one takes over, which is proposed now.
    pub(crate) fn sealed(now: Instant) -> Self {
        Self { partitions: None, to: To::HeldUntil(now + HANDOVER_WAIT) }
    }

    /// To a child that is open here, of the partitions that it carries.
    pub(crate) fn to(child: Weak<dyn Successor>, partitions: BTreeSet<PartitionId>) -> Self {
        Self { partitions: Some(partitions), to: To::Child(child) }
    }

    /// The shard carries these partitions from now on: nothing of them goes elsewhere.
    pub(crate) fn take_back(&mut self, carried: &BTreeSet<PartitionId>) {
        if let Some(partitions) = &mut self.partitions {
            partitions.retain(|partition| !carried.contains(partition));
        }
    }

    /// `None`: the shard keeps the partition, or the child is gone.
    pub(crate) fn destination_of(&self, partition: PartitionId) -> Option<Destination> {
        if self.partitions.as_ref().is_some_and(|partitions| !partitions.contains(&partition)) {
            return None;
        }
        match &self.to {
            To::HeldUntil(until) => Some(Destination::HeldUntil(*until)),
            To::Child(child) => child.upgrade().map(Destination::Child),
        }
    }
}
