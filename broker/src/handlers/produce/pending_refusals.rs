//! Idempotent batches of a connection that were refused before their partition was found. Later batches of the same
//! producer must not be appended before the refused ones are sent again (design section 3): as soon as the partition is
//! found, the refusals are passed to its shard.
//!
//! May not know: what ends a refusal.

use std::sync::atomic::{AtomicBool, Ordering};

use ottla_protocol::batch::BatchHeader;
use ottla_protocol::produce::ProduceTopic;
use parking_lot::Mutex;

use super::partition_cache::TopicKey;
use crate::partition::{ConnectionId, Partition, PartitionError, RefusedBefore};

/// Pairs of producer and partition stored per connection; above it the oldest are dropped.
const REFUSED_MAX: usize = 1_024;

#[derive(Debug)]
struct PendingRefusal {
    topic: TopicKey,
    index: i32,
    batch: RefusedBefore,
}

impl PendingRefusal {
    fn is_for(&self, topic: &ProduceTopic, index: i32) -> bool {
        self.index == index && self.topic.is(topic)
    }
}

/// The batches that a connection had refused before their partition was found.
#[derive(Debug, Default)]
pub struct PendingRefusals {
    any: AtomicBool,
    refused: Mutex<Vec<PendingRefusal>>,
}

impl PendingRefusals {
    /// Records that a batch is refused because its partition was not found.
    pub(crate) fn record(&self, topic: &ProduceTopic, index: i32, batch: &[u8], error: &PartitionError) {
        let Some(header) = BatchHeader::parse(batch).filter(BatchHeader::is_idempotent) else { return };
        let batch = RefusedBefore::new(&header, error.clone());
        let mut refused = self.refused.lock();
        let same =
            |known: &&mut PendingRefusal| known.batch.producer() == batch.producer() && known.is_for(topic, index);
        let known = refused.iter_mut().find(same);
        match known {
            Some(known) => known.batch.and(batch),
            None => {
                if refused.len() >= REFUSED_MAX {
                    refused.remove(0);
                }
                refused.push(PendingRefusal { topic: topic.into(), index, batch });
            }
        }
        self.any.store(true, Ordering::Release);
    }

    /// The partition is found: passes its refusals to its shard.
    pub(crate) fn report_to(&self, topic: &ProduceTopic, index: i32, partition: &Partition, connection: ConnectionId) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut refused = self.refused.lock();
        for known in refused.extract_if(.., |known| known.is_for(topic, index)) {
            partition.note_refusal(connection, known.batch);
        }
        self.any.store(!refused.is_empty(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use bytes::Bytes;
    use kafka_protocol::protocol::StrBytes;
    use ottla_env::rt;
    use ottla_protocol::batch::{BatchBuilder, NewRecord};
    use ottla_protocol::compression::Codec;

    use super::*;
    use crate::config::TopicConfig;
    use crate::metadata::ShardKind;
    use crate::partition::{AppendError, AppendOptions, Origin, Partitions, TopicRef};
    use crate::shard::fake::{FakeGroup, FakeMetadata, image_with_topic};
    use crate::shard::{LeaderTaskSettings, Shards};

    const CONNECTION: ConnectionId = ConnectionId(1);

    fn topic(name: &'static str) -> ProduceTopic {
        ProduceTopic { name: Some(StrBytes::from_static_str(name)), id: None, partitions: Vec::new() }
    }

    fn batch(sequence: i32) -> Bytes {
        let mut builder = BatchBuilder::new(Codec::None).with_producer(7, 0, sequence);
        builder.push(&NewRecord { timestamp: rt::wall_clock_ms(), key: None, value: Some(b"v"), headers: &[] });
        builder.build().unwrap()
    }

    /// Found by the simulation (seed 7312): a node with old metadata refused the first two batches of a producer, got
    /// the topic, and appended the third.
    #[tokio::test]
    async fn what_comes_behind_a_batch_without_a_partition_waits_for_it() {
        let (_group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 1, pinned: false });
        let metadata = std::sync::Arc::new(FakeMetadata::new(image_with_topic(3, TopicConfig::default())));
        let partitions = Partitions::new(Shards::for_tests(shard.clone(), metadata.clone()));
        rt::spawn(crate::shard::tasks::run(shard, metadata, LeaderTaskSettings::default(), Box::new(|_| None)));
        let partition = partitions.find(TopicRef::Name("t"), 0).await.unwrap();
        let options = AppendOptions::new(Origin::Client(CONNECTION), Duration::from_secs(5));
        let refusals = PendingRefusals::default();
        let error = PartitionError::LeaderNotAvailable;
        for sequence in [1, 0, 2] {
            refusals.record(&topic("t"), 0, &batch(sequence), &error);
        }
        refusals.report_to(&topic("u"), 0, &partition, CONNECTION);
        refusals.report_to(&topic("t"), 1, &partition, CONNECTION);
        refusals.report_to(&topic("t"), 0, &partition, CONNECTION);
        let refused: AppendError = error.into();
        assert_eq!(partition.append(batch(3), &options).await.map(|_| ()), Err(refused));
        for sequence in 0..3 {
            let appended = partition.append(batch(sequence), &options).await.unwrap();
            assert_eq!(appended.base_offset.0, i64::from(sequence));
            refusals.report_to(&topic("t"), 0, &partition, CONNECTION);
        }
    }
}
