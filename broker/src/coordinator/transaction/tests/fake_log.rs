//! One partition of `__transaction_state` in memory, which applies in order, after a delay, unless told otherwise; and partitions
//! of clients that take markers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::{rt, watch};
use ottla_protocol::ids::{LeaderEpoch, ProducerId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::coordinator::topic_log::{AppendFuture, Conditions, Leadership, PartitionClock, TopicLog};
use crate::coordinator::transaction::transitions::{Partitions, Producer};
use crate::coordinator::transaction::{MarkerOutcome, TransactionLog, TransactionSettings, Transactions};
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::transaction::{Status, TransactionStore, TransactionValue};
use crate::replicated::transactions::Marker;

/// The partition's clock when the node's monotonic clock began.
const BEGAN_MS: i64 = 1_700_000_000_000;

type Queued = (Bytes, oneshot::Sender<Result<(), AppendError>>);

/// How the log behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogState {
    Applies,
    /// Takes batches and does nothing with them.
    Stalls,
    /// Refuses before anything is written.
    Refuses,
    /// Says that the end of an append is not known, and applies it later.
    TimesOut,
}

/// A marker as a partition took it.
pub(super) type Written = (Arc<str>, i32, Producer, Marker);

#[derive(Debug)]
pub(super) struct FakeLog {
    pub(super) store: Arc<Mutex<TransactionStore>>,
    epoch: Mutex<Option<i32>>,
    last_epoch: Mutex<i32>,
    leadership: watch::Sender<u64>,
    state: watch::Sender<LogState>,
    queue: mpsc::UnboundedSender<Queued>,
    next_producer_id: Mutex<i64>,
    /// Whether reads are confirmed.
    pub(super) confirms: Mutex<bool>,
    pub(super) markers: Arc<Mutex<Vec<Written>>>,
    /// Partitions whose markers have another outcome than being written.
    pub(super) outcomes: Arc<Mutex<BTreeMap<i32, MarkerOutcome>>>,
}

impl FakeLog {
    fn start() -> Arc<Self> {
        let (queue, queued) = mpsc::unbounded_channel();
        let log = Arc::new(Self {
            store: Arc::default(),
            epoch: Mutex::new(Some(1)),
            last_epoch: Mutex::new(1),
            leadership: watch::Sender::new(0),
            state: watch::Sender::new(LogState::Applies),
            queue,
            next_producer_id: Mutex::new(1_000),
            confirms: Mutex::new(true),
            markers: Arc::default(),
            outcomes: Arc::default(),
        });
        rt::spawn(apply_in_order(log.store.clone(), queued, log.state.subscribe()));
        log
    }

    pub(super) fn lose_leadership(&self) {
        *self.epoch.lock() = None;
        self.leadership.send_modify(|version| *version += 1);
    }

    pub(super) fn win_leadership(&self) {
        let mut last = self.last_epoch.lock();
        *last += 1;
        *self.epoch.lock() = Some(*last);
        self.leadership.send_modify(|version| *version += 1);
    }

    pub(super) fn set_state(&self, state: LogState) {
        self.state.send_replace(state);
    }

    pub(super) fn status(&self, id: &str) -> Option<Status> {
        self.value(id).map(|value| value.status)
    }

    pub(super) fn value(&self, id: &str) -> Option<Arc<TransactionValue>> {
        self.store.lock().get(id).cloned()
    }

    /// Waits until an id is in this state.
    pub(super) async fn reaches(&self, id: &str, status: Status) {
        while self.status(id) != Some(status) {
            rt::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn apply_in_order(
    store: Arc<Mutex<TransactionStore>>,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    mut state: watch::Receiver<LogState>,
) {
    while let Some((batch, done)) = queued.recv().await {
        rt::sleep(Duration::from_millis(2)).await;
        if state.wait_for(|state| *state != LogState::Stalls).await.is_err() {
            return;
        }
        let timed_out = Err(AppendError::Partition(PartitionError::TimedOut));
        let times_out = *state.borrow() == LogState::TimesOut;
        let mut done = Some(done);
        if times_out {
            drop(done.take().map(|done| done.send(timed_out)));
            if state.wait_for(|state| *state == LogState::Applies).await.is_err() {
                return;
            }
        }
        store.lock().apply(TransactionStore::decode(&batch).unwrap());
        drop(done.map(|done| done.send(Ok(()))));
    }
}

impl TopicLog for FakeLog {
    fn partition_count(&self) -> i32 {
        1
    }

    fn leadership(&self, _: i32) -> Option<Leadership> {
        Some(Leadership { topic: Uuid::from_u128(1), epoch: LeaderEpoch((*self.epoch.lock())?) })
    }

    fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.leadership.subscribe()
    }

    fn clock(&self, _: i32) -> Option<PartitionClock> {
        let now_ms = BEGAN_MS + rt::now().0 / 1_000_000;
        Some(PartitionClock { now_ms, for_expiry_ms: Some(now_ms) })
    }

    fn wait_until_led(&self, _: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        Box::pin(std::future::ready(Err(PartitionError::NotLeaderOrFollower)))
    }

    fn append(&self, partition: i32, by: Leadership, batch: Bytes, _: Conditions) -> AppendFuture {
        let refusal = match (self.leadership(partition), *self.state.borrow()) {
            (led, _) if led != Some(by) => Some(AppendError::Partition(PartitionError::NotLeaderOrFollower)),
            (_, LogState::Refuses) => Some(AppendError::DiskFull),
            _ => None,
        };
        if let Some(error) = refusal {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (done, outcome) = oneshot::channel();
        self.queue.send((batch, done)).unwrap();
        Box::pin(async move { outcome.await.unwrap() })
    }

    fn read_index(&self, _: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        let confirms = *self.confirms.lock();
        Box::pin(std::future::ready(if confirms { Ok(()) } else { Err(PartitionError::NotLeaderOrFollower) }))
    }

    fn ensure_topic(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }
}

impl TransactionLog for FakeLog {
    fn topic(&self) -> &dyn TopicLog {
        self
    }

    fn store(&self, _: i32) -> Option<Arc<Mutex<TransactionStore>>> {
        Some(self.store.clone())
    }

    fn new_producer_id(&self) -> BoxFuture<'static, Option<ProducerId>> {
        let mut next = self.next_producer_id.lock();
        *next += 1;
        Box::pin(std::future::ready(Some(ProducerId(*next))))
    }

    fn write_markers(
        &self,
        producer: Producer,
        marker: Marker,
        partitions: Partitions,
    ) -> BoxFuture<'static, Vec<(Arc<str>, i32, MarkerOutcome)>> {
        let (markers, outcomes) = (self.markers.clone(), self.outcomes.clone());
        Box::pin(async move {
            rt::sleep(Duration::from_millis(1)).await;
            let each = partitions.into_iter().flat_map(|(topic, indexes)| {
                indexes.into_iter().map(move |index| (topic.clone(), index)).collect::<Vec<_>>()
            });
            let write = |(topic, index): (Arc<str>, i32)| {
                let outcome = outcomes.lock().get(&index).copied().unwrap_or(MarkerOutcome::Done);
                if outcome == MarkerOutcome::Done {
                    markers.lock().push((topic.clone(), index, producer, marker));
                }
                (topic, index, outcome)
            };
            each.map(write).collect()
        })
    }
}

pub(super) fn start() -> (Arc<FakeLog>, Transactions) {
    let log = FakeLog::start();
    let settings = TransactionSettings {
        timeout_ms_max: 60_000,
        expiration_ms: 600_000,
        abort_interval: Duration::from_secs(1),
        expiration_interval: Duration::from_secs(10),
        append_timeout: Duration::from_secs(5),
    };
    (log.clone(), Transactions::new(settings, log))
}

pub(super) fn partitions(indexes: &[i32]) -> Partitions {
    Partitions::from([(Arc::from("t"), indexes.iter().copied().collect::<BTreeSet<_>>())])
}
