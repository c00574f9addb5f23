//! The floors below the coordinator, as it sees them: partitions of `__consumer_offsets` and the metadata.
//!
//! May not know: groups.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::LeaderEpoch;
use ottla_storage::env::{rt, watch};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::coordinator::group::journal::{AppendFuture, Journal};
use crate::coordinator::group::{GroupError, GroupStore};
use crate::metadata::{CONSUMER_OFFSETS, InternalTopic, Metadata, MetadataImage};
use crate::partition::{Acks, AppendOptions, Origin, Partition, PartitionError, Partitions, TopicRef};

/// Deleted topics are looked for this often at most: their offsets may stay that long.
const DELETIONS_EVERY: Duration = Duration::from_secs(1);

/// The coordinator's way to its partitions.
#[derive(Debug)]
pub(super) struct PartitionJournal {
    metadata: Metadata,
    partitions: Partitions,
    partitions_to_be: i32,
    commit_timeout: Duration,
    deletions: watch::Sender<u64>,
}

impl PartitionJournal {
    /// Over the node's partitions; `offsets.topic.num.partitions` and `offsets.commit.timeout.ms`.
    pub(super) fn new(
        metadata: Metadata,
        partitions: Partitions,
        partitions_to_be: i32,
        commit_timeout: Duration,
    ) -> Arc<Self> {
        let deletions = watch::Sender::new(0);
        rt::spawn(watch_deletions(metadata.watch(), deletions.clone()));
        Arc::new(Self { metadata, partitions, partitions_to_be, commit_timeout, deletions })
    }

    fn partition(&self, index: i32) -> Option<Partition> {
        self.partitions.find_now(TopicRef::Name(CONSUMER_OFFSETS), index).ok().flatten()
    }
}

/// Counts how often a topic has gone.
async fn watch_deletions(mut images: watch::Receiver<Arc<MetadataImage>>, deletions: watch::Sender<u64>) {
    let mut before = images.borrow_and_update().clone();
    while images.changed().await.is_ok() {
        let now = images.borrow_and_update().clone();
        if before.topics_by_id.keys().any(|id| now.topic_by_id(id).is_none()) {
            deletions.send_modify(|count| *count += 1);
        }
        before = now;
        rt::sleep(DELETIONS_EVERY).await;
    }
}

impl Journal for PartitionJournal {
    fn partition_count(&self) -> i32 {
        self.metadata.image().topic(CONSUMER_OFFSETS).map_or(self.partitions_to_be, |topic| topic.partition_count())
    }

    fn leader_epoch(&self, partition: i32) -> Option<LeaderEpoch> {
        self.partition(partition)?.leader_epoch()
    }

    fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.partitions.leadership_changes()
    }

    fn topic_deletions(&self) -> watch::Receiver<u64> {
        self.deletions.subscribe()
    }

    fn store(&self, partition: i32) -> Option<Arc<Mutex<GroupStore>>> {
        self.partition(partition)?.group_store()
    }

    fn append(&self, partition: i32, batch: Bytes, guard: Bytes) -> AppendFuture {
        let Some(partition) = self.partition(partition) else {
            return std::future::ready(Err(PartitionError::NotLeaderOrFollower.into())).boxed();
        };
        let options = AppendOptions {
            acks: Acks::All,
            timeout: self.commit_timeout,
            origin: Origin::Coordinator,
            guard: Some(guard),
        };
        partition.append(batch, options).map(|appended| appended.map(|_| ())).boxed()
    }

    fn read_index(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        let partition = self.partition(partition);
        async move { partition.ok_or(PartitionError::NotLeaderOrFollower)?.read_index().await }.boxed()
    }

    fn topic_id(&self, topic: &str) -> Option<Uuid> {
        self.metadata.image().topic(topic).map(|topic| topic.id)
    }

    fn gone(&self, topics: Vec<(Arc<str>, Uuid)>) -> BoxFuture<'static, Vec<(Arc<str>, Uuid)>> {
        let metadata = self.metadata.clone();
        async move {
            if metadata.read_index().await.is_err() {
                return Vec::new();
            }
            let image = metadata.image();
            let exists = |(name, id): &(Arc<str>, Uuid)| {
                image.topic(name).is_some_and(|topic| id.is_nil() || topic.id == *id)
            };
            topics.into_iter().filter(|topic| !exists(topic)).collect()
        }
        .boxed()
    }

    fn ensure_topic(&self) -> BoxFuture<'static, Result<(), GroupError>> {
        let metadata = self.metadata.clone();
        async move {
            let ensured = metadata.ensure_internal(InternalTopic::ConsumerOffsets).await;
            ensured.map(|_| ()).map_err(|error| {
                tracing::debug!("{CONSUMER_OFFSETS} cannot be made now: {error}");
                GroupError::CoordinatorNotAvailable
            })
        }
        .boxed()
    }
}
