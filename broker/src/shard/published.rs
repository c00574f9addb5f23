//! What readers see of a shard: watermarks and epochs per partition, swapped in after the index knows the batches.
//!
//! The machine publishes, readers look and wait. A waiter is woken once: when the partitions it waits on have grown by
//! what it wants, or when one of them is led no longer. May not know: how a read is done, who waits for what.
//! Lock order: the map, then a cell's marks, then its waiters; none is held across an await.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::env::watch;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use super::epochs::EpochHistory;
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
    pub groups: Option<Arc<Mutex<GroupStore>>>,
    marks: RwLock<Marks>,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    gone: bool,
    by_id: BTreeMap<u64, Arc<DataWaiter>>,
}

/// Somebody who waits for new bytes in any of several partitions.
#[derive(Debug)]
pub struct DataWaiter {
    id: u64,
    missing_bytes: AtomicI64,
    wake: Mutex<Option<oneshot::Sender<()>>>,
}

static NEXT_WAITER: AtomicU64 = AtomicU64::new(1);

impl DataWaiter {
    /// A waiter for `missing_bytes`, and the end on which to wait.
    #[must_use]
    pub fn new(missing_bytes: usize) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        let waiter = Self {
            id: NEXT_WAITER.fetch_add(1, Ordering::Relaxed),
            missing_bytes: AtomicI64::new(i64::try_from(missing_bytes).unwrap_or(i64::MAX).max(1)),
            wake: Mutex::new(Some(sender)),
        };
        (Arc::new(waiter), receiver)
    }

    /// Ends the wait.
    pub fn wake(&self) {
        if let Some(sender) = self.wake.lock().take() {
            // Whoever waited may have given up.
            let _ = sender.send(());
        }
    }

    /// Counts new bytes; true if the wait is over.
    pub fn credit(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let satisfied = self.missing_bytes.fetch_sub(bytes, Ordering::AcqRel) <= bytes;
        if satisfied {
            self.wake();
        }
        satisfied
    }
}

impl PartitionCell {
    /// The watermarks and epochs as published.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks.read().clone()
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

    /// Wakes everybody: leadership or the partition went.
    pub fn wake_all(&self) {
        let waiters = std::mem::take(&mut self.waiters.lock().by_id);
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
        if appended_bytes > 0 {
            self.waiters.lock().by_id.retain(|_, waiter| !waiter.credit(appended_bytes));
        }
    }
}

/// All partitions of a shard as readers see them.
#[derive(Debug)]
pub struct Published {
    cells: RwLock<BTreeMap<PartitionId, Arc<PartitionCell>>>,
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

    /// All partitions.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<PartitionCell>> {
        self.cells.read().values().cloned().collect()
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
        updates: Vec<(PartitionId, Marks, u64, Option<Arc<Mutex<GroupStore>>>)>,
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

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(waiter.missing_bytes.load(Ordering::Relaxed), 1);
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
    #[should_panic(expected = "high watermark falls")]
    fn a_falling_high_watermark_is_never_shown() {
        let published = Published::default();
        let _ = cell(&published, 0);
        published.publish(vec![(id(0), marks(5), 1, None)], &[]);
        published.publish(vec![(id(0), marks(4), 1, None)], &[]);
    }
}
