//! `__consumer_offsets` as this node carries it, and the deletion of topics.
//!
//! May not know: what is appended, which request waits.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::critical::Owner;
use ottla_env::{rt, watch};
use parking_lot::Mutex;
use uuid::Uuid;

use super::coordinator_log::CoordinatorLog;
use crate::coordinator::partition_writer::PartitionWriter;
use crate::coordinator::topic_log::TopicLog;
use crate::metadata::{FeatureLevel, InternalTopic, MetadataImage};
use crate::partition::Partitions;
use crate::replicated::group::store::GroupStore;
use crate::shard::MetadataView;

/// Changes of the metadata within this time are checked for deletions once.
const DELETIONS_PAUSE: Duration = Duration::from_millis(200);

/// The log of this node's group coordinators.
#[derive(Debug)]
pub struct OffsetsLog {
    writer: PartitionWriter,
    deletions: watch::Sender<u64>,
}

impl OffsetsLog {
    /// A log over these partitions; starts to follow the deletion of topics.
    #[must_use]
    pub fn start(metadata: Arc<dyn MetadataView>, partitions: Partitions) -> Arc<Self> {
        let writer = PartitionWriter::new(InternalTopic::ConsumerOffsets, metadata, partitions);
        let log = Arc::new(Self { writer, deletions: watch::Sender::new(0) });
        rt::spawn_critical("topic-deletions", Owner::process(), follow_deletions(Arc::downgrade(&log)));
        log
    }
}

impl CoordinatorLog for OffsetsLog {
    fn topic(&self) -> &dyn TopicLog {
        &self.writer
    }

    fn level(&self) -> FeatureLevel {
        self.writer.metadata().image().level
    }

    fn topic_deletions(&self) -> watch::Receiver<u64> {
        self.deletions.subscribe()
    }

    fn store(&self, partition: i32) -> Option<Arc<Mutex<GroupStore>>> {
        self.writer.partition(partition).ok()?.group_store()
    }

    fn deleted_topics(&self, topics: Vec<(Arc<str>, Uuid)>) -> BoxFuture<'static, Vec<(Arc<str>, Uuid)>> {
        let metadata = self.writer.metadata().clone();
        Box::pin(async move {
            // An image that is behind lacks the newest topics: nothing is removed unless the image is current.
            if topics.is_empty() || !metadata.read_index().await {
                return Vec::new();
            }
            let image = metadata.image();
            topics.into_iter().filter(|(name, id)| is_deleted(&image, name, *id)).collect()
        })
    }
}

/// True if the topic is deleted, or was deleted and created again under another id.
fn is_deleted(image: &MetadataImage, name: &str, id: Uuid) -> bool {
    match image.topic(name) {
        None => true,
        Some(topic) => !id.is_nil() && topic.id != id,
    }
}

async fn follow_deletions(log: Weak<OffsetsLog>) {
    let Some(mut images) = log.upgrade().map(|log| log.writer.metadata().changes()) else { return };
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
