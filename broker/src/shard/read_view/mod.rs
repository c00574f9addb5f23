//! The read view of a shard: watermarks and epochs per partition, published after the index holds the batches.
//!
//! The state machine publishes, readers read and wait. A waiter is woken once: when its partitions have grown by the
//! bytes that it lacks, or when one of them is led here no longer. May not know: how a read is done, which request
//! waits for what. Lock order: the map, then a view's offsets, then its waiters; none is held across an await.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_env::sync::{Mutex, RwLock};
use ottla_env::watch;
use ottla_protocol::id_hash::IdHashMap;
use ottla_protocol::ids::{Offset, PartitionId};

use super::data_waiters::{ANY_BYTES, ChangeFeed, DataWaiter, Growth};
use super::traffic::Traffic;
use crate::replicated::epochs::EpochHistory;
use crate::replicated::kept::Kept;
use crate::replicated::transactions::AbortedIndex;

/// A partition's offsets and epochs as published.
#[derive(Debug, Clone, Default)]
pub struct LogOffsetSnapshot {
    /// First offset that can be read.
    pub log_start: Offset,
    /// Last applied offset + 1.
    pub high_watermark: Offset,
    /// Last stable offset.
    pub last_stable: Offset,
    /// The aborted transactions.
    pub aborted: Arc<AbortedIndex>,
    /// A transaction has ended here once: there may be control records.
    pub has_markers: bool,
    /// Leader epoch = this + the shard's term.
    pub epoch_base: i32,
    /// The start offset of each epoch.
    pub epochs: Arc<EpochHistory>,
}

/// One partition as readers see it.
#[derive(Debug)]
pub struct PartitionReadView {
    /// Which partition.
    pub id: PartitionId,
    /// What its records make; partitions of internal topics only.
    pub kept: Option<Kept>,
    /// What clients have sent and got; counted for partitions of on-demand topics alone.
    pub(crate) traffic: Traffic,
    offsets: RwLock<LogOffsetSnapshot>,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    gone: bool,
    by_id: BTreeMap<u64, Arc<DataWaiter>>,
    /// The feeds that are subscribed, each with its slot number for this partition.
    feeds: Vec<(u64, Arc<ChangeFeed>)>,
}

impl Waiters {
    fn record(&self, growth: Growth, urgent: bool) {
        self.feeds.iter().for_each(|(slot, feed)| feed.record(*slot, growth, urgent));
    }
}

impl PartitionReadView {
    /// The watermarks and epochs as published.
    #[must_use]
    pub fn offsets(&self) -> LogOffsetSnapshot {
        self.offsets.read().clone()
    }

    /// The partition's epoch base as its shard has it.
    #[must_use]
    pub fn epoch_base(&self) -> i32 {
        self.offsets.read().epoch_base
    }

    /// Adds a waiter; false if the partition is gone.
    pub fn register(&self, waiter: &Arc<DataWaiter>) -> bool {
        let mut waiters = self.waiters.lock();
        if !waiters.gone {
            waiters.by_id.insert(waiter.id, waiter.clone());
        }
        !waiters.gone
    }

    /// Removes a waiter.
    pub fn unregister(&self, waiter: &DataWaiter) {
        self.waiters.lock().by_id.remove(&waiter.id);
    }

    /// Subscribes `feed` to every change from now on, under the number `slot`; `None` if the partition is gone.
    pub(crate) fn subscribe(self: &Arc<Self>, feed: &Arc<ChangeFeed>, slot: u64) -> Option<Subscription> {
        let mut waiters = self.waiters.lock();
        if waiters.gone {
            return None;
        }
        waiters.feeds.push((slot, feed.clone()));
        Some(Subscription { view: self.clone(), feed: feed.clone(), slot })
    }

    fn unsubscribe(&self, feed: &Arc<ChangeFeed>, slot: u64) {
        let mut waiters = self.waiters.lock();
        let place = waiters.feeds.iter().position(|(known, by)| *known == slot && Arc::ptr_eq(by, feed));
        if let Some(place) = place {
            waiters.feeds.swap_remove(place);
        }
    }

    /// Wakes all waiters: leadership or the partition is gone.
    pub fn wake_all(&self) {
        let waiters = {
            let mut waiters = self.waiters.lock();
            waiters.record(Growth::default(), true);
            std::mem::take(&mut waiters.by_id)
        };
        waiters.values().for_each(|waiter| waiter.wake());
    }

    fn publish(&self, offsets: LogOffsetSnapshot, appended_bytes: u64) {
        let growth = {
            let mut current = self.offsets.write();
            let growth = Growth { appended: appended_bytes, stable: stable_bytes(&current, &offsets, appended_bytes) };
            assert!(current.high_watermark <= offsets.high_watermark, "{}: high watermark falls", self.id);
            assert!(current.log_start <= offsets.log_start, "{}: log start falls", self.id);
            assert!(offsets.log_start <= offsets.last_stable && offsets.last_stable <= offsets.high_watermark);
            assert!(current.last_stable <= offsets.last_stable, "{}: last stable offset falls", self.id);
            *current = offsets;
            growth
        };
        let mut waiters = self.waiters.lock();
        waiters.record(growth, false);
        if growth != Growth::default() {
            waiters.by_id.retain(|_, waiter| !waiter.credit(growth));
        }
    }
}

/// The bytes that have become stable; where a transaction has ended more than any request waits for, as it is not known
/// how many lie between the ends.
fn stable_bytes(before: &LogOffsetSnapshot, now: &LogOffsetSnapshot, appended_bytes: u64) -> u64 {
    let is_open = |offsets: &LogOffsetSnapshot| offsets.last_stable < offsets.high_watermark;
    match (is_open(before), is_open(now)) {
        (false, false) => appended_bytes,
        _ if now.last_stable > before.last_stable => ANY_BYTES,
        _ => 0,
    }
}

/// A subscribed partition; subscribed no longer when dropped.
#[derive(Debug)]
pub struct Subscription {
    view: Arc<PartitionReadView>,
    feed: Arc<ChangeFeed>,
    slot: u64,
}

impl Subscription {
    /// True if this is a subscription to the partition as it is carried now.
    pub(crate) fn is_of(&self, view: &Arc<PartitionReadView>) -> bool {
        Arc::ptr_eq(&self.view, view)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.view.unsubscribe(&self.feed, self.slot);
    }
}

/// All partitions of a shard as readers see them.
#[derive(Debug)]
pub struct ReadView {
    views: RwLock<IdHashMap<PartitionId, Arc<PartitionReadView>>>,
    /// Grows whenever a partition is added or removed.
    changes: watch::Sender<u64>,
}

impl Default for ReadView {
    fn default() -> Self {
        Self { views: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl ReadView {
    /// A partition, if the shard carries it.
    #[must_use]
    pub fn get(&self, id: PartitionId) -> Option<Arc<PartitionReadView>> {
        self.views.read().get(&id).cloned()
    }

    /// All partitions, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PartitionReadView>> {
        let mut all: Vec<_> = self.views.read().values().cloned().collect();
        all.sort_unstable_by_key(|view| view.id);
        all
    }

    /// Changes whenever a partition is added or removed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Wakes every waiter of the shard.
    pub fn wake_all(&self) {
        self.all().iter().for_each(|view| view.wake_all());
        self.changes.send_modify(|version| *version += 1);
    }

    /// Removes the partitions that are gone, then publishes new offsets; adds a partition if it is new.
    pub(crate) fn publish(
        &self,
        updates: Vec<(PartitionId, LogOffsetSnapshot, u64, Option<Kept>)>,
        gone: &[PartitionId],
    ) {
        let removed: Vec<_> = {
            let mut views = if gone.is_empty() { None } else { Some(self.views.write()) };
            gone.iter().filter_map(|id| views.as_mut().and_then(|views| views.remove(id))).collect()
        };
        let mut added: Vec<Arc<PartitionReadView>> = Vec::new();
        for (id, offsets, appended_bytes, kept) in updates {
            match self.get(id) {
                Some(view) => view.publish(offsets, appended_bytes),
                None => {
                    let view = PartitionReadView {
                        id,
                        kept,
                        traffic: Traffic::default(),
                        offsets: RwLock::new(offsets),
                        waiters: Mutex::default(),
                    };
                    added.push(Arc::new(view));
                }
            }
        }
        if added.is_empty() && removed.is_empty() {
            return;
        }
        self.views.write().extend(added.into_iter().map(|view| (view.id, view)));
        for view in removed {
            view.waiters.lock().gone = true;
            view.wake_all();
        }
        self.changes.send_modify(|version| *version += 1);
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::data_waiters::Isolation;
    use uuid::Uuid;

    fn id(index: i32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(1), index }
    }

    fn offsets(high_watermark: i64) -> LogOffsetSnapshot {
        let end = Offset(high_watermark);
        LogOffsetSnapshot { high_watermark: end, last_stable: end, ..LogOffsetSnapshot::default() }
    }

    fn view(read_view: &ReadView, index: i32) -> Arc<PartitionReadView> {
        read_view.publish(vec![(id(index), offsets(0), 0, None)], &[]);
        match read_view.get(id(index)) {
            Some(view) => view,
            None => panic!("published"),
        }
    }

    #[test]
    fn a_waiter_is_woken_once_its_bytes_are_there_and_not_before() {
        let read_view = ReadView::default();
        let (first, second) = (view(&read_view, 0), view(&read_view, 1));
        let (waiter, mut done) = DataWaiter::new(100, Isolation::ReadUncommitted);
        assert!(first.register(&waiter) && second.register(&waiter));
        read_view.publish(vec![(id(0), offsets(5), 60, None)], &[]);
        assert!(done.try_recv().is_err());
        read_view.publish(vec![(id(1), offsets(5), 40, None)], &[]);
        assert!(done.try_recv().is_ok());
        // Satisfied waiters leave the partition that satisfied them.
        assert!(second.waiters.lock().by_id.is_empty());
    }

    #[test]
    fn waiters_of_other_partitions_sleep_on() {
        let read_view = ReadView::default();
        let (first, _second) = (view(&read_view, 0), view(&read_view, 1));
        let (waiter, mut done) = DataWaiter::new(1, Isolation::ReadUncommitted);
        assert!(first.register(&waiter));
        read_view.publish(vec![(id(1), offsets(5), 40, None)], &[]);
        assert!(done.try_recv().is_err());
        assert_eq!(waiter.missing_bytes(), 1);
    }

    #[test]
    fn of_a_thousand_waiters_only_those_of_the_changed_partitions_are_woken() {
        const PARTITIONS: i32 = 10_000;
        let read_view = ReadView::default();
        read_view.publish((0..PARTITIONS).map(|index| (id(index), offsets(0), 0, None)).collect(), &[]);
        let mut waiting: Vec<_> = (0..1000)
            .map(|index| {
                let (waiter, done) = DataWaiter::new(1, Isolation::ReadUncommitted);
                assert!(read_view.get(id(index)).is_some_and(|view| view.register(&waiter)));
                done
            })
            .collect();
        let mut woken = || waiting.iter_mut().map(|done| usize::from(done.try_recv().is_ok())).sum::<usize>();
        read_view.publish(vec![(id(PARTITIONS - 1), offsets(5), 40, None)], &[]);
        assert_eq!(woken(), 0);
        read_view.publish(vec![(id(7), offsets(5), 40, None), (id(999), offsets(5), 40, None)], &[]);
        assert_eq!(woken(), 2);
    }

    #[test]
    fn a_waiter_of_a_removed_partition_is_woken_and_none_registers_after() {
        let read_view = ReadView::default();
        let first = view(&read_view, 0);
        let (waiter, mut done) = DataWaiter::new(1, Isolation::ReadUncommitted);
        assert!(first.register(&waiter));
        read_view.publish(Vec::new(), &[id(0)]);
        assert!(done.try_recv().is_ok());
        assert!(!first.register(&waiter));
        assert!(read_view.get(id(0)).is_none());
    }

    #[test]
    fn a_feed_collects_what_changed_and_credits_its_waiter() {
        let read_view = ReadView::default();
        let (first, second) = (view(&read_view, 0), view(&read_view, 1));
        let feed = Arc::new(ChangeFeed::default());
        let subscribed = (first.subscribe(&feed, 10), second.subscribe(&feed, 11));
        read_view.publish(vec![(id(1), offsets(5), 60, None)], &[]);
        // What came before the waiter was attached counts.
        let (waiter, mut done) = DataWaiter::new(61, Isolation::ReadUncommitted);
        feed.attach(&waiter);
        assert!(done.try_recv().is_err());
        read_view.publish(vec![(id(0), offsets(5), 1, None)], &[]);
        assert!(done.try_recv().is_ok());
        assert_eq!(feed.take_changed().into_iter().collect::<Vec<_>>(), [10, 11]);
        assert!(feed.take_changed().is_empty());
        // Removal of a partition ends the wait, however many bytes are missing.
        let (waiter, mut done) = DataWaiter::new(1000, Isolation::ReadUncommitted);
        feed.attach(&waiter);
        read_view.publish(Vec::new(), &[id(0)]);
        assert!(done.try_recv().is_ok());
        assert!(first.subscribe(&feed, 10).is_none(), "it is gone");
        assert_eq!(feed.take_changed().into_iter().collect::<Vec<_>>(), [10]);
        drop(subscribed);
        read_view.publish(vec![(id(1), offsets(6), 60, None)], &[]);
        assert!(feed.take_changed().is_empty(), "subscribed no longer");
    }

    /// Found by the simulation (seed 3238, 3 nodes): a replica that took a snapshot counted beyond 64 bits, and
    /// stopped.
    #[test]
    fn a_feed_of_many_partitions_survives_a_snapshot_of_all_of_them() {
        let read_view = ReadView::default();
        let feed = Arc::new(ChangeFeed::default());
        let subscribed: Vec<_> = (0..3).map(|index| view(&read_view, index).subscribe(&feed, 10)).collect();
        for high_watermark in [5, 6] {
            read_view.publish((0..3).map(|index| (id(index), offsets(high_watermark), ANY_BYTES, None)).collect(), &[]);
        }
        let (waiter, mut done) = DataWaiter::new(usize::MAX, Isolation::ReadUncommitted);
        feed.attach(&waiter);
        assert!(done.try_recv().is_ok(), "a request that waits for bytes reads again");
        drop(subscribed);
    }

    #[test]
    #[should_panic(expected = "high watermark falls")]
    fn a_falling_high_watermark_is_never_shown() {
        let read_view = ReadView::default();
        let _ = view(&read_view, 0);
        read_view.publish(vec![(id(0), offsets(5), 1, None)], &[]);
        read_view.publish(vec![(id(0), offsets(4), 1, None)], &[]);
    }
}
