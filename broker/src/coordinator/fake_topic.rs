//! One partition of an internal topic in memory, for the tests of coordinators: applies what is appended in order, after a delay,
//! unless told otherwise.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::{rt, watch};
use ottla_protocol::ids::LeaderEpoch;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::topic_log::{AppendFuture, Conditions, Leadership, PartitionClock, TopicLog};
use crate::replicated::error::{AppendError, PartitionError};

/// The partition's clock when the node's monotonic clock began.
const BEGAN_MS: i64 = 1_700_000_000_000;

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

type Queued = (Bytes, Conditions, oneshot::Sender<Result<(), AppendError>>);

#[derive(Debug)]
pub(super) struct FakeTopic {
    topic: Mutex<Uuid>,
    epoch: Mutex<Option<i32>>,
    last_epoch: Mutex<i32>,
    leadership: watch::Sender<u64>,
    state: watch::Sender<LogState>,
    queue: mpsc::UnboundedSender<Queued>,
    pub(super) read_indexes: Mutex<usize>,
    /// Whether reads are confirmed.
    pub(super) confirms: Mutex<bool>,
}

impl FakeTopic {
    /// Led in epoch 1. `apply` judges a batch, and applies it if it accepts it.
    pub(super) fn start(apply: impl FnMut(Bytes, Conditions) -> Result<(), AppendError> + Send + 'static) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let state = watch::Sender::new(LogState::Applies);
        rt::spawn(apply_in_order(apply, queued, state.subscribe()));
        Self {
            topic: Mutex::new(Uuid::from_u128(1)),
            epoch: Mutex::new(Some(1)),
            last_epoch: Mutex::new(1),
            leadership: watch::Sender::new(0),
            state,
            queue,
            read_indexes: Mutex::default(),
            confirms: Mutex::new(true),
        }
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

    /// As a leader that has not heard from a majority for a while, and then does before another one is elected.
    pub(super) fn regain_leadership(&self) {
        *self.epoch.lock() = Some(*self.last_epoch.lock());
        self.leadership.send_modify(|version| *version += 1);
    }

    pub(super) fn set_state(&self, state: LogState) {
        self.state.send_replace(state);
    }

    /// The topic is deleted and created again: the partition begins in the epoch that it had.
    pub(super) fn set_topic(&self, topic: Uuid) {
        *self.topic.lock() = topic;
    }
}

async fn apply_in_order(
    mut apply: impl FnMut(Bytes, Conditions) -> Result<(), AppendError>,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    mut state: watch::Receiver<LogState>,
) {
    while let Some((batch, conditions, done)) = queued.recv().await {
        rt::sleep(Duration::from_millis(2)).await;
        if state.wait_for(|state| *state != LogState::Stalls).await.is_err() {
            return;
        }
        let times_out = *state.borrow() == LogState::TimesOut;
        if !times_out {
            drop(done.send(apply(batch, conditions)));
            continue;
        }
        drop(done.send(Err(AppendError::Partition(PartitionError::TimedOut))));
        if state.wait_for(|state| *state == LogState::Applies).await.is_err() {
            return;
        }
        let _unknown = apply(batch, conditions);
    }
}

impl TopicLog for FakeTopic {
    fn partition_count(&self) -> i32 {
        1
    }

    fn leadership(&self, _: i32) -> Option<Leadership> {
        let (topic, epoch) = (*self.topic.lock(), (*self.epoch.lock())?);
        Some(Leadership { topic, epoch: LeaderEpoch(epoch) })
    }

    fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.leadership.subscribe()
    }

    fn clock(&self, _: i32) -> Option<PartitionClock> {
        // A shard clock goes its own way, whatever the node's wall clock does.
        let now_ms = BEGAN_MS + rt::now().0 / 1_000_000;
        Some(PartitionClock { now_ms, for_expiry_ms: Some(now_ms) })
    }

    fn wait_until_led(&self, _: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        Box::pin(std::future::ready(Err(PartitionError::NotLeaderOrFollower)))
    }

    fn append(&self, partition: i32, by: Leadership, batch: Bytes, conditions: Conditions) -> AppendFuture {
        let refusal = match (self.leadership(partition), *self.state.borrow()) {
            (led, _) if led != Some(by) => Some(AppendError::Partition(PartitionError::NotLeaderOrFollower)),
            (_, LogState::Refuses) => Some(AppendError::DiskFull),
            _ => None,
        };
        if let Some(error) = refusal {
            return Box::pin(std::future::ready(Err(error)));
        }
        let (done, outcome) = oneshot::channel();
        self.queue.send((batch, conditions, done)).unwrap();
        Box::pin(async move { outcome.await.unwrap() })
    }

    fn read_index(&self, _: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        *self.read_indexes.lock() += 1;
        let confirms = *self.confirms.lock();
        Box::pin(std::future::ready(if confirms { Ok(()) } else { Err(PartitionError::NotLeaderOrFollower) }))
    }

    fn ensure_topic(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }
}
