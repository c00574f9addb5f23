//! One partition of `__transaction_state` while this node leads it: transitions of its transactional ids, and the markers
//! that follow them.
//!
//!     a request   decides by the replicated value -> its record is appended -> applied -> answer
//!     a task      prepared: markers to all partitions, again until all are written -> the completed record
//!
//! An id has one transition at a time; meanwhile other requests are answered CONCURRENT_TRANSACTIONS. A transition goes on if its
//! client does not wait any more. What a task does it finds in the store, so that it does not matter which request, coordinator or
//! panic left it there. May not know: wire versions, which node leads what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::error::TransactionError;
use super::partitions::each;
use super::transaction_log::{MarkerOutcome, TransactionLog};
use super::transitions::{Producer, Refusal, Transition, completed};
use crate::coordinator::topic_log::{AppendFuture, Conditions, Leadership, PartitionClock};
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::transaction::{Status, TransactionRecord, TransactionStore, TransactionValue};
use crate::replicated::transactions::Marker;

/// Between two attempts to write markers or the completed record.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What a request has made of an id.
#[derive(Debug)]
pub(super) enum Changed {
    /// This is in force from now on.
    To(Arc<TransactionValue>),
    /// This was in force before.
    Nothing(Arc<TransactionValue>),
    /// The open transaction is being aborted first: ask again.
    AbortsFirst,
    /// The id is forgotten.
    Removed,
}

/// A partition as its coordinator leads it.
#[derive(Debug)]
pub(super) struct LedPartition {
    index: i32,
    by: Leadership,
    log: Arc<dyn TransactionLog>,
    store: Arc<Mutex<TransactionStore>>,
    /// Ids whose record is being appended. One whose append has no known end stays until leadership changes.
    in_transition: Mutex<BTreeSet<Arc<str>>>,
    /// Ids whose markers a task writes.
    completing: Mutex<BTreeSet<Arc<str>>>,
    /// Requests that wait for the next record of an id.
    waiting: Mutex<BTreeMap<Arc<str>, Arc<Notify>>>,
}

/// A task writes the markers of this id, until this is dropped.
struct Completing {
    partition: Arc<LedPartition>,
    id: Arc<str>,
}

impl Drop for Completing {
    fn drop(&mut self) {
        self.partition.completing.lock().remove(&self.id);
    }
}

/// True if the transaction that an id has is the one that was prepared when its markers were begun.
fn is_it(current: &TransactionValue, prepared: &TransactionValue) -> bool {
    current == prepared || mutants::is_on(Bug::AnyPreparedCompleted)
}

impl LedPartition {
    /// What was prepared before goes on at once.
    pub(super) fn start(index: i32, by: Leadership, log: Arc<dyn TransactionLog>) -> Option<Arc<Self>> {
        let store = log.store(index)?;
        let (in_transition, completing, waiting) = Default::default();
        let partition = Arc::new(Self { index, by, log, store, in_transition, completing, waiting });
        partition.complete_prepared();
        Some(partition)
    }

    pub(super) fn store(&self) -> &Arc<Mutex<TransactionStore>> {
        &self.store
    }

    /// True while this node leads the partition by the leadership with which this began.
    pub(super) fn is_led(&self) -> bool {
        self.log.topic().leadership(self.index) == Some(self.by)
    }

    /// Confirms that this node led by the same leadership when it was called, so that what was read before was current.
    pub(super) async fn confirm(&self) -> Result<(), TransactionError> {
        self.log.topic().read_index(self.index).await.map_err(|error| TransactionError::from(&error))?;
        if self.is_led() { Ok(()) } else { Err(TransactionError::NotCoordinator) }
    }

    /// The time by which records are stamped and ids expire. A leader that serves has applied all that was appended before.
    pub(super) fn clock(&self) -> Result<PartitionClock, TransactionError> {
        let clock = if self.is_led() { self.log.topic().clock(self.index) } else { None };
        clock.ok_or(TransactionError::NotCoordinator)
    }

    /// Decides what becomes of an id and appends it; returns when that is applied. The append goes on if the caller does not wait.
    pub(super) async fn change(
        self: &Arc<Self>,
        id: &Arc<str>,
        decide: impl FnOnce(Option<&TransactionValue>, i64) -> Result<Transition, Refusal>,
    ) -> Result<Changed, Refusal> {
        let (changed, appended) = {
            let mut in_transition = self.in_transition.lock();
            if in_transition.contains(id) {
                return Err(TransactionError::ConcurrentTransactions.into());
            }
            let now_ms = self.clock()?.now_ms;
            // What is applied to an id is in transition here first, so nothing changes between this and the append.
            let current = self.store.lock().get(id).cloned();
            let (value, changed) = match decide(current.as_deref(), now_ms)? {
                Transition::Append(value) => (Some(value.clone()), Changed::To(Arc::new(value))),
                Transition::AbortFirst(value) => (Some(value), Changed::AbortsFirst),
                Transition::Remove => (None, Changed::Removed),
                Transition::Nothing => {
                    return current.map(Changed::Nothing).ok_or(TransactionError::Internal.into());
                }
            };
            in_transition.insert(id.clone());
            (changed, self.append(TransactionRecord { id: id.to_string(), value }, now_ms))
        };
        self.clone().finish(id.clone(), appended).await?;
        Ok(changed)
    }

    fn append(&self, record: TransactionRecord, now_ms: i64) -> AppendFuture {
        self.log.topic().append(self.index, self.by, record.batch(now_ms), Conditions::default())
    }

    /// Waits for the append of an id in transition, in a task of its own: callers may stop waiting.
    async fn finish(self: Arc<Self>, id: Arc<str>, appended: AppendFuture) -> Result<(), TransactionError> {
        let (done, ended) = oneshot::channel();
        rt::spawn(async move {
            let outcome = appended.await;
            self.appended(&id, &outcome);
            let _ = done.send(outcome);
        });
        if mutants::is_on(Bug::EndAnsweredEarly) {
            return Ok(());
        }
        match ended.await {
            Ok(outcome) => outcome.map_err(|error| TransactionError::from(&error)),
            Err(_panicked) => Err(TransactionError::Internal),
        }
    }

    fn appended(self: &Arc<Self>, id: &Arc<str>, outcome: &Result<(), AppendError>) {
        if *outcome == Err(AppendError::Partition(PartitionError::TimedOut)) {
            // It may be applied any time: nothing may be decided by what it replaces.
            tracing::error!(id = &**id, partition = self.index, "an append of a transactional id does not end");
            return;
        }
        self.in_transition.lock().remove(id);
        self.complete(id);
        if let Some(waiting) = self.waiting.lock().remove(id) {
            waiting.notify_waiters();
        }
    }

    /// Notified when the append of an id's next record has ended: what begins to wait before that is woken.
    pub(super) fn next_record(&self, id: &Arc<str>) -> Arc<Notify> {
        self.waiting.lock().entry(id.clone()).or_default().clone()
    }

    /// Starts what is prepared and has no task.
    pub(super) fn complete_prepared(self: &Arc<Self>) {
        if mutants::is_on(Bug::PreparedNotCompleted) {
            return;
        }
        let prepared: Vec<Arc<str>> = self.store.lock().prepared().cloned().collect();
        for id in prepared {
            self.complete(&id);
        }
    }

    /// Starts the task that completes an id, if it is prepared and has none.
    fn complete(self: &Arc<Self>, id: &Arc<str>) {
        let prepared = self.store.lock().get(id).filter(|value| value.is_prepared()).cloned();
        let Some(prepared) = prepared else { return };
        if !self.is_led() || !self.completing.lock().insert(id.clone()) {
            return;
        }
        let completing = Completing { partition: self.clone(), id: id.clone() };
        rt::spawn(async move {
            completing.partition.write_markers(&completing.id, &prepared).await;
            let (partition, id) = (completing.partition.clone(), completing.id.clone());
            drop(completing);
            // The id may have been prepared again since its completed record was applied.
            partition.complete(&id);
        });
    }

    /// Writes the markers of a prepared transaction, then the record that it is complete; ends when leadership does, or when it is complete
    /// without this task: one that was begun before this node lost its leadership and won it back under the same epoch is behind.
    async fn write_markers(self: &Arc<Self>, id: &Arc<str>, prepared: &TransactionValue) {
        let producer = Producer { id: prepared.producer_id, epoch: prepared.epoch };
        let marker = Marker {
            commits: prepared.status == Status::PrepareCommit,
            coordinator_epoch: self.by.epoch.0,
            version: if prepared.client_version >= 2 { 2 } else { 1 },
        };
        let mut left = each(&prepared.partitions);
        let mut pause = RETRY_MIN;
        while !left.is_empty() {
            if !self.is_led() || !self.is_prepared(id, prepared) {
                return;
            }
            let outcomes = self.log.write_markers(producer, marker, left.clone()).await;
            if outcomes.iter().any(|(_, outcome)| *outcome == MarkerOutcome::CoordinatorFenced) {
                tracing::info!(id = &**id, "another coordinator of the transactional id writes its markers");
                // This one learns soon that it leads no more.
                return rt::sleep(RETRY_MAX).await;
            }
            let (asked, answered) = (left.len(), outcomes.len());
            assert_eq!(
                asked, answered,
                "transactional id {id}, producer {}: markers and what became of them",
                producer.id.0
            );
            for ((topic, index), _) in outcomes.iter().filter(|(_, outcome)| *outcome == MarkerOutcome::ProducerFenced)
            {
                tracing::warn!(id = &**id, "the producer has gone on in {topic}-{index}: its transaction ended before");
            }
            if mutants::is_on(Bug::MarkersNotRetried) {
                break;
            }
            let again = outcomes.into_iter().filter(|(_, outcome)| *outcome == MarkerOutcome::Retry);
            left = again.map(|(partition, _)| partition).collect();
            if !left.is_empty() {
                rt::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
        self.append_completed(id, prepared).await;
    }

    /// True while this transaction is what is to be completed, and not one that the id has prepared since.
    fn is_prepared(&self, id: &str, prepared: &TransactionValue) -> bool {
        self.store.lock().get(id).is_some_and(|current| is_it(current, prepared))
    }

    async fn append_completed(self: &Arc<Self>, id: &Arc<str>, prepared: &TransactionValue) {
        let mut pause = RETRY_MIN;
        while self.is_led() {
            let is_ended = |current: Option<&TransactionValue>, now_ms| {
                // A later one has markers of its own, which are not written.
                let current = current.filter(|current| is_it(current, prepared));
                let completed = current.and_then(|current| completed(current, now_ms));
                Ok(completed.map_or(Transition::Nothing, Transition::Append))
            };
            match self.change(id, is_ended).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(id = &**id, "the end of a transaction is not written: {error:?}"),
            }
            rt::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}
