//! Delayed fetch (Kafka's fetch purgatory): a request waits on its own partitions only, and is woken once: when they
//! have grown by enough bytes together, when one of them is led here no longer, or at its deadline.
//!
//! May not know: what is done with the data, and how a partition publishes it.

use std::sync::Arc;

use ottla_env::rt;
use ottla_protocol::ids::Offset;

use super::handle::Partition;
use super::types::{Access, Isolation};
use crate::shard::data_waiters::{ChangeFeed, DataWaiter, Growth};
use crate::shard::read_view::PartitionReadView;

/// A registered waiter; unregistered from its partitions when dropped.
struct Registered {
    waiter: Arc<DataWaiter>,
    views: Vec<Arc<PartitionReadView>>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.views.iter().for_each(|view| view.unregister(&self.waiter));
    }
}

/// Waits until at least `min_bytes` can be read from the offsets together, or until there is a reason not to wait any
/// longer.
pub(super) async fn wait(
    waits: &[(Partition, Offset)],
    (isolation, access): (Isolation, Access),
    min_bytes: usize,
    deadline: rt::Instant,
) {
    let (waiter, woken) = DataWaiter::new(min_bytes, isolation);
    let mut registered = Registered { waiter, views: Vec::with_capacity(waits.len()) };
    for (partition, ..) in waits {
        // Not readable here any more, or gone: the request must be answered, not kept.
        let Some(view) = partition.view().filter(|_| partition.is_readable(access)) else { return };
        if !view.register(&registered.waiter) {
            return;
        }
        registered.views.push(view);
    }
    // Bytes from before the registration count too; bytes that come meanwhile may count twice, which only wakes early.
    for (partition, offset) in waits {
        let bytes = partition.available_bytes(*offset, (isolation, access), min_bytes).await;
        if registered.waiter.credit(Growth::of(bytes as u64)) {
            return;
        }
    }
    if waits.iter().any(|(partition, ..)| !partition.is_readable(access)) {
        return;
    }
    let _ = rt::timeout(deadline.since(rt::now()), woken).await;
}

/// Waits until the partitions of `feed` have got `missing_bytes` since its changes were last taken, or until there is a
/// reason not to wait any longer.
pub(super) async fn wait_for_change(
    feed: &ChangeFeed,
    missing_bytes: usize,
    isolation: Isolation,
    deadline: rt::Instant,
) {
    let (waiter, woken) = DataWaiter::new(missing_bytes, isolation);
    feed.attach(&waiter);
    let _ = rt::timeout(deadline.since(rt::now()), woken).await;
}
