//! One partition of `__transaction_state` in memory, and partitions of clients that take markers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::rt;
use ottla_protocol::ids::ProducerId;
use parking_lot::Mutex;

use crate::coordinator::fake_topic::FakeTopic;
pub(super) use crate::coordinator::fake_topic::LogState;
use crate::coordinator::topic_log::TopicLog;
use crate::coordinator::transaction::partitions::{NamedPartition, Partitions};
use crate::coordinator::transaction::{MarkerOutcome, Producer, TransactionLog, TransactionSettings, Transactions};
use crate::replicated::transaction::{Status, TransactionStore, TransactionValue};
use crate::replicated::transactions::Marker;

/// A marker as a partition took it.
pub(super) type Written = (Arc<str>, i32, Producer, Marker);

#[derive(Debug)]
pub(super) struct FakeLog {
    topic: FakeTopic,
    store: Arc<Mutex<TransactionStore>>,
    next_producer_id: Mutex<i64>,
    pub(super) markers: Arc<Mutex<Vec<Written>>>,
    /// Partitions whose markers have another outcome than being written.
    pub(super) outcomes: Arc<Mutex<BTreeMap<i32, MarkerOutcome>>>,
    /// How long markers take from now on.
    pub(super) marker_time: Mutex<Duration>,
}

impl Deref for FakeLog {
    type Target = FakeTopic;

    fn deref(&self) -> &FakeTopic {
        &self.topic
    }
}

impl FakeLog {
    fn start() -> Arc<Self> {
        let store = Arc::<Mutex<TransactionStore>>::default();
        let applied = store.clone();
        let topic = FakeTopic::start(move |batch, _| {
            applied.lock().apply(TransactionStore::decode(&batch).unwrap());
            Ok(())
        });
        let (markers, outcomes) = Default::default();
        let marker_time = Mutex::new(Duration::from_millis(1));
        Arc::new(Self { topic, store, next_producer_id: Mutex::new(1_000), markers, outcomes, marker_time })
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

impl TransactionLog for FakeLog {
    fn topic(&self) -> &dyn TopicLog {
        &self.topic
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
        partitions: Vec<NamedPartition>,
    ) -> BoxFuture<'static, Vec<(NamedPartition, MarkerOutcome)>> {
        let (markers, outcomes, time) = (self.markers.clone(), self.outcomes.clone(), *self.marker_time.lock());
        Box::pin(async move {
            rt::sleep(time).await;
            let write = |(topic, index): NamedPartition| {
                let outcome = outcomes.lock().get(&index).copied().unwrap_or(MarkerOutcome::Done);
                if outcome == MarkerOutcome::Done {
                    markers.lock().push((topic.clone(), index, producer, marker));
                }
                ((topic, index), outcome)
            };
            partitions.into_iter().map(write).collect()
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
