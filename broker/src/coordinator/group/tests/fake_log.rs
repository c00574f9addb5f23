//! One partition of `__consumer_offsets` in memory, and the topics that are deleted.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::watch;
use parking_lot::Mutex;
use uuid::Uuid;

use super::subscription;
use crate::coordinator::fake_topic::FakeTopic;
pub(super) use crate::coordinator::fake_topic::LogState;
use crate::coordinator::group::classic::{Join, JoinAnswer, MemberRef, Sync};
use crate::coordinator::group::coordinator_log::CoordinatorLog;
use crate::coordinator::group::partition_coordinator::{Commit, NewOffset};
use crate::coordinator::group::runtime::{GroupSettings, Groups};
use crate::coordinator::topic_log::TopicLog;
use crate::metadata::{FeatureLevel, Levels};
use crate::replicated::error::AppendError;
use crate::replicated::group::store::{GroupChange, GroupStore};

#[derive(Debug)]
pub(super) struct FakeLog {
    topic: FakeTopic,
    pub(super) store: Arc<Mutex<GroupStore>>,
    deletions: watch::Sender<u64>,
    deleted: Mutex<Vec<String>>,
    pub(super) level: Mutex<FeatureLevel>,
    /// Every batch that was accepted, in order.
    pub(super) written: Arc<Mutex<Vec<Bytes>>>,
}

impl Deref for FakeLog {
    type Target = FakeTopic;

    fn deref(&self) -> &FakeTopic {
        &self.topic
    }
}

impl FakeLog {
    pub(super) fn start() -> Arc<Self> {
        let (store, written) = (Arc::<Mutex<GroupStore>>::default(), Arc::<Mutex<Vec<Bytes>>>::default());
        let (applied, accepted) = (store.clone(), written.clone());
        let topic = FakeTopic::start(move |batch, conditions| {
            let mut store = applied.lock();
            let change = GroupChange::decode(conditions.guard.as_ref(), &batch).unwrap();
            store.judge(&change).map_err(AppendError::Group)?;
            store.apply(change);
            accepted.lock().push(batch);
            Ok(())
        });
        let (deletions, deleted) = (watch::Sender::new(0), Mutex::default());
        Arc::new(Self { topic, store, deletions, deleted, level: Mutex::new(Levels::OWN.newest), written })
    }

    /// The topic is deleted, and created again: the partition begins in the epoch that it had, and holds nothing.
    pub(super) fn create_anew(&self) {
        self.topic.set_topic(Uuid::from_u128(2));
        *self.store.lock() = GroupStore::default();
        self.deletions.send_modify(|version| *version += 1);
    }

    pub(super) fn delete_topic(&self, topic: &str) {
        self.deleted.lock().push(topic.into());
        self.deletions.send_modify(|version| *version += 1);
    }
}

impl CoordinatorLog for FakeLog {
    fn topic(&self) -> &dyn TopicLog {
        &self.topic
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
