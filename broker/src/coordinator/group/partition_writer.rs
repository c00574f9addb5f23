//! The partition writer: the coordinator's log over real partitions and the real metadata.
//!
//! May not know: what is appended, which request waits.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::critical::Owner;
use ottla_env::{rt, watch};
use parking_lot::Mutex;
use uuid::Uuid;

use super::coordinator_log::{AppendFuture, CoordinatorLog, Leadership, PartitionClock};
use super::error::GroupError;
use crate::metadata::{CONSUMER_OFFSETS, FeatureLevel, InternalTopic, MetadataImage};
use crate::partition::{AppendOptions, Origin, Partition, PartitionError, Partitions, TopicRef};
use crate::replicated::group::store::GroupStore;
use crate::shard::MetadataView;

/// An append of the coordinator ends only when leadership goes; the client's request may stop waiting before.
const APPEND_TIMEOUT: Duration = Duration::from_secs(600);

/// Changes of the metadata within this time are checked for deletions once.
const DELETIONS_PAUSE: Duration = Duration::from_millis(200);

/// `__consumer_offsets` as this node carries it.
pub struct PartitionWriter {
    metadata: Arc<dyn MetadataView>,
    partitions: Partitions,
    deletions: watch::Sender<u64>,
}

impl PartitionWriter {
    /// A writer to these partitions; starts to follow the deletion of topics.
    #[must_use]
    pub fn start(metadata: Arc<dyn MetadataView>, partitions: Partitions) -> Arc<Self> {
        let log = Arc::new(Self { metadata, partitions, deletions: watch::Sender::new(0) });
        rt::spawn_critical("topic-deletions", Owner::process(), follow_deletions(Arc::downgrade(&log)));
        log
    }

    fn partition(&self, index: i32) -> Result<Partition, PartitionError> {
        let found = self.partitions.find_now(TopicRef::Name(CONSUMER_OFFSETS), index)?;
        found.ok_or(PartitionError::LeaderNotAvailable)
    }
}

impl std::fmt::Debug for PartitionWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartitionWriter")
    }
}

impl CoordinatorLog for PartitionWriter {
    fn level(&self) -> FeatureLevel {
        self.metadata.image().level
    }

    fn partition_count(&self) -> i32 {
        let image = self.metadata.image();
        let existing = image.topic(CONSUMER_OFFSETS).map(|topic| topic.partition_count());
        existing.unwrap_or(image.config.offsets.topic_partitions)
    }

    fn leadership(&self, partition: i32) -> Option<Leadership> {
        let partition = self.partition(partition).ok()?;
        Some(Leadership { topic: partition.topic().id, epoch: partition.leader_epoch()? })
    }

    fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.partitions.leadership_changes()
    }

    fn topic_deletions(&self) -> watch::Receiver<u64> {
        self.deletions.subscribe()
    }

    fn clock(&self, partition: i32) -> Option<PartitionClock> {
        let time = self.partition(partition).ok()?.time()?;
        Some(PartitionClock { now_ms: time.now_ms, for_expiry_ms: time.for_expiry_ms })
    }

    fn wait_until_led(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        let partitions = self.partitions.clone();
        Box::pin(async move { partitions.find(TopicRef::Name(CONSUMER_OFFSETS), partition).await.map(drop) })
    }

    fn store(&self, partition: i32) -> Option<Arc<Mutex<GroupStore>>> {
        self.partition(partition).ok()?.group_store()
    }

    fn append(&self, partition: i32, by: Leadership, batch: Bytes, guard: Bytes) -> AppendFuture {
        let options = AppendOptions::new(Origin::Coordinator(by.epoch), APPEND_TIMEOUT);
        let options = AppendOptions { guard: Some(guard), ..options };
        let found = self.partition(partition).and_then(|found| match found.topic().id == by.topic {
            true => Ok(found),
            false => Err(PartitionError::UnknownTopicOrPartition),
        });
        match found {
            Ok(partition) => {
                let appended = partition.append(batch, &options);
                Box::pin(async move { appended.await.map(drop) })
            }
            Err(error) => Box::pin(std::future::ready(Err(error.into()))),
        }
    }

    fn read_index(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        let partition = self.partition(partition);
        Box::pin(async move { partition?.read_index().await })
    }

    fn deleted_topics(&self, topics: Vec<(Arc<str>, Uuid)>) -> BoxFuture<'static, Vec<(Arc<str>, Uuid)>> {
        let metadata = self.metadata.clone();
        Box::pin(async move {
            // An image that is behind lacks the newest topics: nothing is removed unless the image is current.
            if topics.is_empty() || !metadata.read_index().await {
                return Vec::new();
            }
            let image = metadata.image();
            topics.into_iter().filter(|(name, id)| is_deleted(&image, name, *id)).collect()
        })
    }

    fn ensure_topic(&self) -> BoxFuture<'static, Result<(), GroupError>> {
        let made = self.metadata.ensure_internal(InternalTopic::ConsumerOffsets);
        Box::pin(async move { made.await.then_some(()).ok_or(GroupError::CoordinatorNotAvailable) })
    }
}

/// True if the topic is deleted, or was deleted and created again under another id.
fn is_deleted(image: &MetadataImage, name: &str, id: Uuid) -> bool {
    match image.topic(name) {
        None => true,
        Some(topic) => !id.is_nil() && topic.id != id,
    }
}

async fn follow_deletions(log: Weak<PartitionWriter>) {
    let Some(mut images) = log.upgrade().map(|log| log.metadata.changes()) else { return };
    let mut before = images.borrow_and_update().clone();
    while images.changed().await.is_ok() {
        rt::sleep(DELETIONS_PAUSE).await;
        let Some(log) = log.upgrade() else { return };
        let now = images.borrow_and_update().clone();
        if before.topics_by_id.iter().any(|(id, _)| now.topic_by_id(id).is_none()) {
            log.deletions.send_modify(|version| *version += 1);
        }
        before = now;
    }
}
