//! The partition writer: a coordinator's log over real partitions and the real metadata.
//!
//! May not know: what is appended, which request waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ottla_env::watch;

use super::topic_log::{AppendFuture, Conditions, Leadership, PartitionClock, TopicLog};
use crate::metadata::InternalTopic;
use crate::partition::{AppendOptions, Origin, Partition, PartitionError, Partitions, TopicRef};
use crate::shard::MetadataView;

/// An append of the coordinator ends only when leadership goes; the client's request may stop waiting before.
const APPEND_TIMEOUT: Duration = Duration::from_secs(600);

/// An internal topic as this node carries it.
pub struct PartitionWriter {
    topic: InternalTopic,
    metadata: Arc<dyn MetadataView>,
    partitions: Partitions,
}

impl PartitionWriter {
    /// A writer to the partitions of a topic.
    #[must_use]
    pub fn new(topic: InternalTopic, metadata: Arc<dyn MetadataView>, partitions: Partitions) -> Self {
        Self { topic, metadata, partitions }
    }

    pub(super) fn metadata(&self) -> &Arc<dyn MetadataView> {
        &self.metadata
    }

    /// One of its partitions, if this node has a replica.
    pub(super) fn partition(&self, index: i32) -> Result<Partition, PartitionError> {
        let found = self.partitions.find_now(TopicRef::Name(self.topic.name()), index)?;
        found.ok_or(PartitionError::LeaderNotAvailable)
    }
}

impl std::fmt::Debug for PartitionWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartitionWriter({})", self.topic.name())
    }
}

impl TopicLog for PartitionWriter {
    fn partition_count(&self) -> i32 {
        let image = self.metadata.image();
        let existing = image.topic(self.topic.name()).map(|topic| topic.partition_count());
        existing.unwrap_or(match self.topic {
            InternalTopic::ConsumerOffsets => image.config.offsets.topic_partitions,
            InternalTopic::TransactionState => image.config.transaction.topic_partitions,
        })
    }

    fn leadership(&self, partition: i32) -> Option<Leadership> {
        let partition = self.partition(partition).ok()?;
        Some(Leadership { topic: partition.topic().id, epoch: partition.leader_epoch()? })
    }

    fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.partitions.leadership_changes()
    }

    fn clock(&self, partition: i32) -> Option<PartitionClock> {
        let time = self.partition(partition).ok()?.time()?;
        Some(PartitionClock { now_ms: time.now_ms, for_expiry_ms: time.for_expiry_ms })
    }

    fn wait_until_led(&self, partition: i32) -> BoxFuture<'static, Result<(), PartitionError>> {
        let (partitions, topic) = (self.partitions.clone(), self.topic.name());
        Box::pin(async move { partitions.find(TopicRef::Name(topic), partition).await.map(drop) })
    }

    fn append(&self, partition: i32, by: Leadership, batch: Bytes, conditions: Conditions) -> AppendFuture {
        let options = AppendOptions::new(Origin::Coordinator(by.epoch), APPEND_TIMEOUT);
        let Conditions { guard, transaction } = conditions;
        let options = AppendOptions { guard, transaction, ..options };
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

    fn ensure_topic(&self) -> BoxFuture<'static, bool> {
        self.metadata.ensure_internal(self.topic)
    }
}
