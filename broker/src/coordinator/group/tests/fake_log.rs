//! One partition of `__consumer_offsets` in memory: judges and applies in order, after a delay, unless told otherwise.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::{rt, watch};
use ottla_protocol::ids::LeaderEpoch;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::subscription;
use crate::coordinator::group::classic::{Join, JoinAnswer, MemberRef, Sync};
use crate::coordinator::group::coordinator_log::CoordinatorLog;
use crate::coordinator::group::partition_coordinator::{Commit, NewOffset};
use crate::coordinator::group::runtime::{GroupSettings, Groups};
use crate::coordinator::topic_log::{AppendFuture, Conditions, Leadership, PartitionClock, TopicLog};
use crate::metadata::{FeatureLevel, Levels};
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::group::store::{GroupChange, GroupStore};

/// The partition's clock when the node's monotonic clock began.
const BEGAN_MS: i64 = 1_700_000_000_000;

type Queued = (Bytes, Bytes, oneshot::Sender<Result<(), AppendError>>);

/// How the log behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogState {
    Applies,
    /// Takes batches and does nothing with them.
    Stalls,
    /// Refuses before anything is written.
    Refuses,
}

#[derive(Debug)]
pub(super) struct FakeLog {
    pub(super) store: Arc<Mutex<GroupStore>>,
    topic: Mutex<Uuid>,
    epoch: Mutex<Option<i32>>,
    last_epoch: Mutex<i32>,
    leadership: watch::Sender<u64>,
    deletions: watch::Sender<u64>,
    state: watch::Sender<LogState>,
    queue: mpsc::UnboundedSender<Queued>,
    deleted: Mutex<Vec<String>>,
    pub(super) read_indexes: Mutex<usize>,
    pub(super) level: Mutex<FeatureLevel>,
    /// Every batch that was accepted, in order.
    pub(super) written: Arc<Mutex<Vec<Bytes>>>,
}

impl FakeLog {
    pub(super) fn start() -> Arc<Self> {
        let (queue, queued) = mpsc::unbounded_channel();
        let log = Arc::new(Self {
            store: Arc::default(),
            topic: Mutex::new(Uuid::from_u128(1)),
            epoch: Mutex::new(Some(1)),
            last_epoch: Mutex::new(1),
            leadership: watch::Sender::new(0),
            deletions: watch::Sender::new(0),
            state: watch::Sender::new(LogState::Applies),
            queue,
            deleted: Mutex::default(),
            read_indexes: Mutex::default(),
            level: Mutex::new(Levels::OWN.newest),
            written: Arc::default(),
        });
        let (store, written) = (log.store.clone(), log.written.clone());
        rt::spawn(apply_in_order(store, written, queued, log.state.subscribe()));
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

    /// The topic is deleted, and created again: the partition begins in the epoch that it had, and holds nothing.
    pub(super) fn create_anew(&self) {
        *self.topic.lock() = Uuid::from_u128(2);
        *self.store.lock() = GroupStore::default();
        self.deletions.send_modify(|version| *version += 1);
    }

    pub(super) fn set_state(&self, state: LogState) {
        self.state.send_replace(state);
    }

    pub(super) fn delete_topic(&self, topic: &str) {
        self.deleted.lock().push(topic.into());
        self.deletions.send_modify(|version| *version += 1);
    }
}

async fn apply_in_order(
    store: Arc<Mutex<GroupStore>>,
    written: Arc<Mutex<Vec<Bytes>>>,
    mut queued: mpsc::UnboundedReceiver<Queued>,
    mut state: watch::Receiver<LogState>,
) {
    while let Some((batch, guard, done)) = queued.recv().await {
        rt::sleep(Duration::from_millis(2)).await;
        if state.wait_for(|state| *state != LogState::Stalls).await.is_err() {
            return;
        }
        let mut store = store.lock();
        let change = GroupChange::decode(Some(&guard), &batch).unwrap();
        let outcome = store.judge(&change).map_err(AppendError::Group);
        if outcome.is_ok() {
            store.apply(change);
            written.lock().push(batch);
        }
        drop(done.send(outcome));
    }
}

impl TopicLog for FakeLog {
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
        self.queue.send((batch, conditions.guard.unwrap(), done)).unwrap();
        Box::pin(async move { outcome.await.unwrap() })
    }

    fn read_index(&self, _: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        *self.read_indexes.lock() += 1;
        Box::pin(std::future::ready(Ok(())))
    }

    fn ensure_topic(&self) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(true))
    }
}

impl CoordinatorLog for FakeLog {
    fn topic(&self) -> &dyn TopicLog {
        self
    }

    fn level(&self) -> FeatureLevel {
        *self.level.lock()
    }

    fn topic_deletions(&self) -> watch::Receiver<u64> {
        self.deletions.subscribe()
    }

    fn store(&self, _: i32) -> Option<Arc<Mutex<GroupStore>>> {
        Some(self.store.clone())
    }

    fn deleted_topics(&self, topics: Vec<(Arc<str>, Uuid)>) -> BoxFuture<'static, Vec<(Arc<str>, Uuid)>> {
        let deleted = self.deleted.lock().clone();
        let gone = topics.into_iter().filter(|(topic, _)| deleted.iter().any(|name| **name == **topic)).collect();
        Box::pin(std::future::ready(gone))
    }
}

pub(super) fn settings() -> GroupSettings {
    GroupSettings {
        initial_rebalance_delay_ms: 100,
        session_timeout_ms_min: 1_000,
        session_timeout_ms_max: 60_000,
        members_max: 100,
        metadata_bytes_max: 10,
        commit_timeout: Duration::from_secs(5),
        retention_ms: 3_600_000,
        retention_check_interval_ms: 600_000,
    }
}

pub(super) fn start() -> (Arc<FakeLog>, Groups) {
    let log = FakeLog::start();
    let groups = Groups::new(settings(), log.clone());
    (log, groups)
}

pub(super) fn join(member_id: &str) -> Join {
    Join {
        member_id: member_id.into(),
        new_member_id: crate::coordinator::group::new_member_id("client"),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/10.0.0.7".into(),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), subscription(0, &["t"]))],
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        id_required: false,
        skips_assignment: false,
        reason: None,
    }
}

pub(super) fn sync(member_id: &str, generation: i32, members: &[String]) -> Sync {
    Sync {
        member_id: member_id.into(),
        instance_id: None,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: members.iter().map(|id| (id.clone(), Bytes::from(format!("for {id}")))).collect(),
    }
}

pub(super) fn who(member_id: &str, generation: i32) -> MemberRef {
    MemberRef { member_id: member_id.into(), instance_id: None, generation }
}

pub(super) fn commit(who: MemberRef, offsets: &[(&str, i32, i64)]) -> Commit {
    let new = |(topic, partition, offset): &(&str, i32, i64)| NewOffset {
        topic: Arc::from(*topic),
        topic_id: Uuid::nil(),
        partition: *partition,
        offset: *offset,
        leader_epoch: -1,
        metadata: "".into(),
    };
    let offsets = offsets.iter().map(new).collect();
    Commit { who, retention_ms: None, knows_group_not_found: true, transaction: None, offsets }
}

/// A member that has its share.
pub(super) async fn settled(groups: &Groups, group: &str) -> (String, i32) {
    let JoinAnswer { member_id, outcome } = groups.join(group, join("")).await;
    let generation = outcome.unwrap().generation;
    groups.sync(group, sync(&member_id, generation, std::slice::from_ref(&member_id))).await.unwrap();
    (member_id, generation)
}

/// The committed offset of one partition.
pub(super) async fn fetched(groups: &Groups, group: &str, topic: &str) -> Option<i64> {
    let read = |_, store: &GroupStore| Some(store.group(group)?.offsets.get(topic)?.get(&0)?.offset);
    groups.fetch(&[group], read).await.remove(0).unwrap()
}
