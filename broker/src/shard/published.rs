//! What readers see of a shard: watermarks and epochs per partition, swapped in after the index knows the batches.
//!
//! The machine publishes, readers look and wait. A waiter is woken once: when the partitions it waits on have grown by
//! what it wants, or when one of them is led no longer. May not know: how a read is done, who waits for what.
//! Lock order: the map, then a cell's marks, then its waiters; none is held across an await.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::env::sync::{Mutex, RwLock};
use ottla_storage::env::watch;

use super::epochs::EpochHistory;
use super::watching::{DataWaiter, Watch};
use crate::coordinator::group::GroupStore;

/// What a partition's readers may know.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    /// First offset that can be read.
    pub log_start: Offset,
    /// Last applied offset + 1.
    pub high_watermark: Offset,
    /// Last stable offset.
    pub last_stable: Offset,
    /// Leader epoch = this + the shard's term.
    pub epoch_base: i32,
    /// Which epoch held from where.
    pub epochs: Arc<EpochHistory>,
}

/// One partition as readers see it.
#[derive(Debug)]
pub struct PartitionCell {
    /// Which partition.
    pub id: PartitionId,
    /// The replicated group state; partitions of `__consumer_offsets` only.
    pub groups: Option<Arc<parking_lot::Mutex<GroupStore>>>,
    marks: RwLock<Marks>,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    gone: bool,
    by_id: BTreeMap<u64, Arc<DataWaiter>>,
    /// Those who want to know of every change, each with the number it gave this partition.
    watchers: Vec<(u64, Arc<Watch>)>,
}

impl Waiters {
    fn note(&self, bytes: u64, urgent: bool) {
        self.watchers.iter().for_each(|(slot, watch)| watch.note(*slot, bytes, urgent));
    }
}

impl PartitionCell {
    /// The watermarks and epochs as published.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks.read().clone()
    }

    /// The partition's epoch base as its shard knows it.
    #[must_use]
    pub fn epoch_base(&self) -> i32 {
        self.marks.read().epoch_base
    }

    /// Adds a waiter; false if the partition is gone.
    pub fn register(&self, waiter: &Arc<DataWaiter>) -> bool {
        let mut waiters = self.waiters.lock();
        if !waiters.gone {
            waiters.by_id.insert(waiter.id, waiter.clone());
        }
        !waiters.gone
    }

    /// Takes a waiter away again.
    pub fn unregister(&self, waiter: &DataWaiter) {
        self.waiters.lock().by_id.remove(&waiter.id);
    }

    /// Tells `watch` of every change from now on, under the number `slot`; `None` if the partition is gone.
    pub(crate) fn watch(self: &Arc<Self>, watch: &Arc<Watch>, slot: u64) -> Option<Watched> {
        let mut waiters = self.waiters.lock();
        if waiters.gone {
            return None;
        }
        waiters.watchers.push((slot, watch.clone()));
        Some(Watched { cell: self.clone(), watch: watch.clone(), slot })
    }

    fn unwatch(&self, watch: &Arc<Watch>, slot: u64) {
        let mut waiters = self.waiters.lock();
        let place = waiters.watchers.iter().position(|(known, by)| *known == slot && Arc::ptr_eq(by, watch));
        if let Some(place) = place {
            waiters.watchers.swap_remove(place);
        }
    }

    /// Wakes everybody: leadership or the partition went.
    pub fn wake_all(&self) {
        let waiters = {
            let mut waiters = self.waiters.lock();
            waiters.note(0, true);
            std::mem::take(&mut waiters.by_id)
        };
        waiters.values().for_each(|waiter| waiter.wake());
    }

    fn publish(&self, marks: Marks, appended_bytes: u64) {
        {
            let mut current = self.marks.write();
            assert!(current.high_watermark <= marks.high_watermark, "{}: high watermark falls", self.id);
            assert!(current.log_start <= marks.log_start, "{}: log start falls", self.id);
            assert!(marks.log_start <= marks.last_stable && marks.last_stable <= marks.high_watermark);
            *current = marks;
        }
        let mut waiters = self.waiters.lock();
        waiters.note(appended_bytes, false);
        if appended_bytes > 0 {
            waiters.by_id.retain(|_, waiter| !waiter.credit(appended_bytes));
        }
    }
}

/// A watched partition; watched no longer when dropped.
#[derive(Debug)]
pub struct Watched {
    cell: Arc<PartitionCell>,
    watch: Arc<Watch>,
    slot: u64,
}

impl Watched {
    /// True if this is the partition as it is carried now.
    pub(crate) fn is_of(&self, cell: &Arc<PartitionCell>) -> bool {
        Arc::ptr_eq(&self.cell, cell)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.cell.unwatch(&self.watch, self.slot);
    }
}

/// Folds a partition's id into a number. Topic ids are random and the broker's own, so that nobody can make them collide;
/// without a seed, so that a run can be repeated.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}

/// All partitions of a shard as readers see them.
#[derive(Debug)]
pub struct Published {
    cells: RwLock<HashMap<PartitionId, Arc<PartitionCell>, BuildHasherDefault<IdHasher>>>,
    /// Grows whenever a partition comes or goes.
    changes: watch::Sender<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self { cells: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl Published {
    /// A partition, if the shard carries it.
    #[must_use]
    pub fn get(&self, id: PartitionId) -> Option<Arc<PartitionCell>> {
        self.cells.read().get(&id).cloned()
    }

    /// All partitions, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PartitionCell>> {
        let mut all: Vec<_> = self.cells.read().values().cloned().collect();
        all.sort_unstable_by_key(|cell| cell.id);
        all
    }

    /// Changes whenever a partition comes or goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Wakes every waiter of the shard.
    pub fn wake_all(&self) {
        self.all().iter().for_each(|cell| cell.wake_all());
        self.changes.send_modify(|version| *version += 1);
    }

    /// Forgets what is gone, then shows new marks; makes a partition known if it is new.
    pub(crate) fn publish(
        &self,
        updates: Vec<(PartitionId, Marks, u64, Option<Arc<parking_lot::Mutex<GroupStore>>>)>,
        gone: &[PartitionId],
    ) {
        let removed: Vec<_> = {
            let mut cells = if gone.is_empty() { None } else { Some(self.cells.write()) };
            gone.iter().filter_map(|id| cells.as_mut().and_then(|cells| cells.remove(id))).collect()
        };
        let mut added: Vec<Arc<PartitionCell>> = Vec::new();
        for (id, marks, appended_bytes, groups) in updates {
            match self.get(id) {
                Some(cell) => cell.publish(marks, appended_bytes),
                None => {
                    let cell = PartitionCell { id, groups, marks: RwLock::new(marks), waiters: Mutex::default() };
                    added.push(Arc::new(cell));
                }
            }
        }
        if added.is_empty() && removed.is_empty() {
            return;
        }
        self.cells.write().extend(added.into_iter().map(|cell| (cell.id, cell)));
        for cell in removed {
            cell.waiters.lock().gone = true;
            cell.wake_all();
        }
        self.changes.send_modify(|version| *version += 1);
    }
}

#[cfg(all(test, feature = "shuttle"))]
#[path = "published_shuttle_tests.rs"]
mod shuttle_tests;
#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::watching::ANY_BYTES;
    use uuid::Uuid;

    fn id(index: i32) -> PartitionId {
        PartitionId { topic: Uuid::from_u128(1), index }
    }

    fn marks(high_watermark: i64) -> Marks {
        let end = Offset(high_watermark);
        Marks { high_watermark: end, last_stable: end, ..Marks::default() }
    }

    fn cell(published: &Published, index: i32) -> Arc<PartitionCell> {
        published.publish(vec![(id(index), marks(0), 0, None)], &[]);
        match published.get(id(index)) {
            Some(cell) => cell,
            None => panic!("published"),
        }
    }

    #[test]
    fn a_waiter_is_woken_once_its_bytes_are_there_and_not_before() {
        let published = Published::default();
        let (first, second) = (cell(&published, 0), cell(&published, 1));
        let (waiter, mut done) = DataWaiter::new(100);
        assert!(first.register(&waiter) && second.register(&waiter));
        published.publish(vec![(id(0), marks(5), 60, None)], &[]);
        assert!(done.try_recv().is_err());
        published.publish(vec![(id(1), marks(5), 40, None)], &[]);
        assert!(done.try_recv().is_ok());
        // Satisfied waiters leave the partition that satisfied them.
        assert!(second.waiters.lock().by_id.is_empty());
    }

    #[test]
    fn waiters_of_other_partitions_sleep_on() {
        let published = Published::default();
        let (first, _second) = (cell(&published, 0), cell(&published, 1));
        let (waiter, mut done) = DataWaiter::new(1);
        assert!(first.register(&waiter));
        published.publish(vec![(id(1), marks(5), 40, None)], &[]);
        assert!(done.try_recv().is_err());
        assert_eq!(waiter.missing_bytes(), 1);
    }

    #[test]
    fn of_a_thousand_who_wait_only_those_concerned_are_woken() {
        const PARTITIONS: i32 = 10_000;
        let published = Published::default();
        published.publish((0..PARTITIONS).map(|index| (id(index), marks(0), 0, None)).collect(), &[]);
        let mut waiting: Vec<_> = (0..1000)
            .map(|index| {
                let (waiter, done) = DataWaiter::new(1);
                assert!(published.get(id(index)).is_some_and(|cell| cell.register(&waiter)));
                done
            })
            .collect();
        let mut woken = || waiting.iter_mut().map(|done| usize::from(done.try_recv().is_ok())).sum::<usize>();
        published.publish(vec![(id(PARTITIONS - 1), marks(5), 40, None)], &[]);
        assert_eq!(woken(), 0);
        published.publish(vec![(id(7), marks(5), 40, None), (id(999), marks(5), 40, None)], &[]);
        assert_eq!(woken(), 2);
    }

    #[test]
    fn whoever_waits_on_a_partition_that_goes_is_woken_and_nobody_registers_after() {
        let published = Published::default();
        let first = cell(&published, 0);
        let (waiter, mut done) = DataWaiter::new(1);
        assert!(first.register(&waiter));
        published.publish(Vec::new(), &[id(0)]);
        assert!(done.try_recv().is_ok());
        assert!(!first.register(&waiter));
        assert!(published.get(id(0)).is_none());
    }

    #[test]
    fn a_watch_knows_what_changed_and_tells_who_waits() {
        let published = Published::default();
        let (first, second) = (cell(&published, 0), cell(&published, 1));
        let watch = Arc::new(Watch::default());
        let watched = (first.watch(&watch, 10), second.watch(&watch, 11));
        published.publish(vec![(id(1), marks(5), 60, None)], &[]);
        // What came before somebody waited counts.
        let (waiter, mut done) = DataWaiter::new(61);
        watch.tell(&waiter);
        assert!(done.try_recv().is_err());
        published.publish(vec![(id(0), marks(5), 1, None)], &[]);
        assert!(done.try_recv().is_ok());
        assert_eq!(watch.take_changed().into_iter().collect::<Vec<_>>(), [10, 11]);
        assert!(watch.take_changed().is_empty());
        // A partition that goes ends the wait, whatever is missing.
        let (waiter, mut done) = DataWaiter::new(1000);
        watch.tell(&waiter);
        published.publish(Vec::new(), &[id(0)]);
        assert!(done.try_recv().is_ok());
        assert!(first.watch(&watch, 10).is_none(), "it is gone");
        assert_eq!(watch.take_changed().into_iter().collect::<Vec<_>>(), [10]);
        drop(watched);
        published.publish(vec![(id(1), marks(6), 60, None)], &[]);
        assert!(watch.take_changed().is_empty(), "watched no longer");
    }

    /// Found by the simulation (seed 3238, 3 nodes): a replica that took a snapshot counted beyond 64 bits, and stopped.
    #[test]
    fn a_watch_of_many_partitions_outlives_that_all_of_them_came_with_a_snapshot() {
        let published = Published::default();
        let watch = Arc::new(Watch::default());
        let watched: Vec<_> = (0..3).map(|index| cell(&published, index).watch(&watch, 10)).collect();
        for high_watermark in [5, 6] {
            published.publish((0..3).map(|index| (id(index), marks(high_watermark), ANY_BYTES, None)).collect(), &[]);
        }
        let (waiter, mut done) = DataWaiter::new(usize::MAX);
        watch.tell(&waiter);
        assert!(done.try_recv().is_ok(), "whoever waits for bytes looks again");
        drop(watched);
    }

    #[test]
    #[should_panic(expected = "high watermark falls")]
    fn a_falling_high_watermark_is_never_shown() {
        let published = Published::default();
        let _ = cell(&published, 0);
        published.publish(vec![(id(0), marks(5), 1, None)], &[]);
        published.publish(vec![(id(0), marks(4), 1, None)], &[]);
    }
}
