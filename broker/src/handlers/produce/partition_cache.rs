//! The cache of the partitions that a connection wrote to last, with their counters: a Produce request whose partitions
//! are cached needs no lookup in the metadata. Cleared as a whole when the metadata change or a partition is not found. One is looked
//! up again once a batch was refused because another replica leads: that may be on this node too, in another data directory.
//!
//! May not know: what is appended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kafka_protocol::protocol::StrBytes;
use ottla_protocol::id_hash::IdHashMap;
use ottla_protocol::produce::ProduceTopic;
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use crate::metrics::TopicMetrics;
use crate::partition::Partition;

/// Partitions cached per connection; above it the cache is cleared.
const PARTITIONS_MAX: usize = 4_096;
/// Topics cached per connection.
const TOPICS_MAX: usize = 32;

/// A partition and the counters of its topic.
#[derive(Debug)]
pub(crate) struct CachedPartition {
    pub(crate) partition: Partition,
    pub(crate) metrics: Arc<TopicMetrics>,
    /// Its replica here does not lead any more.
    is_stale: AtomicBool,
}

impl CachedPartition {
    /// It is looked up again from now on.
    pub(crate) fn mark_stale(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }
}

/// A topic as a client names it. The name is a copy: the name in a request keeps the whole read buffer alive.
#[derive(Debug)]
pub(super) struct TopicKey {
    name: Option<StrBytes>,
    id: Option<Uuid>,
}

impl TopicKey {
    /// True if the request names this topic, by the same name or id.
    pub(super) fn is(&self, topic: &ProduceTopic) -> bool {
        self.name == topic.name && self.id == topic.id
    }
}

impl From<&ProduceTopic> for TopicKey {
    fn from(topic: &ProduceTopic) -> Self {
        Self { name: topic.name.as_ref().map(|name| StrBytes::from_string(name.to_string())), id: topic.id }
    }
}

#[derive(Debug)]
struct CachedTopic {
    key: TopicKey,
    /// Number of this topic in the keys of `partitions`.
    number: usize,
}

/// The partitions that a connection wrote to last.
#[derive(Debug, Default)]
pub struct PartitionCache {
    image: RaftIndex,
    /// The topic used last is first.
    topics: Vec<CachedTopic>,
    partitions: IdHashMap<(usize, i32), Arc<CachedPartition>>,
}

impl PartitionCache {
    /// Clears the cache if it was filled under another image.
    pub(crate) fn valid_for(&mut self, image: RaftIndex) -> &mut Self {
        if self.image != image {
            self.clear();
            self.image = image;
        }
        self
    }

    pub(crate) fn clear(&mut self) {
        self.topics.clear();
        self.partitions.clear();
    }

    pub(crate) fn get(&mut self, topic: &ProduceTopic, index: i32) -> Option<Arc<CachedPartition>> {
        let number = self.number(topic)?;
        self.partitions.get(&(number, index)).filter(|cached| !cached.is_stale.load(Ordering::Relaxed)).cloned()
    }

    /// Caches a partition found under the image of [`Self::valid_for`], unless it is not adopted yet.
    pub(crate) fn insert(
        &mut self,
        topic: &ProduceTopic,
        index: i32,
        partition: Partition,
        metrics: Arc<TopicMetrics>,
    ) -> Arc<CachedPartition> {
        let cached = Arc::new(CachedPartition {
            partition: partition.remember_adoption(),
            metrics,
            is_stale: AtomicBool::new(false),
        });
        if !cached.partition.is_known_adopted() {
            return cached;
        }
        if self.partitions.len() >= PARTITIONS_MAX || self.topics.len() >= TOPICS_MAX {
            self.clear();
        }
        let number = self.number(topic).unwrap_or_else(|| {
            let number = self.topics.len();
            self.topics.push(CachedTopic { key: topic.into(), number });
            number
        });
        self.partitions.insert((number, index), cached.clone());
        cached
    }

    fn number(&mut self, topic: &ProduceTopic) -> Option<usize> {
        let position = self.topics.iter().position(|known| known.key.is(topic))?;
        self.topics.swap(0, position);
        self.topics.first().map(|known| known.number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ottla_env::rt;

    use super::*;
    use crate::config::{Config, TopicConfig};
    use crate::metadata::ShardKind;
    use crate::metrics::Metrics;
    use crate::partition::{Partitions, TopicRef};
    use crate::shard::fake::{FakeGroup, FakeMetadata, image_with_topic};
    use crate::shard::{LeaderTaskSettings, Shards};

    fn topic(name: &'static str) -> ProduceTopic {
        ProduceTopic { name: Some(StrBytes::from_static_str(name)), id: None, partitions: Vec::new() }
    }

    #[tokio::test]
    async fn a_cached_partition_holds_for_one_image_and_only_once_it_is_adopted() {
        let (_group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 1, pinned: false });
        let metadata = Arc::new(FakeMetadata::new(image_with_topic(3, TopicConfig::default())));
        let partitions = Partitions::new(Shards::for_tests(shard.clone(), metadata.clone()));
        let find = || partitions.find_now(TopicRef::Name("t"), 0).unwrap().unwrap();
        let counted = Metrics::new(&Config::default().metrics).topic(&"t".into());
        let mut cache = PartitionCache::default();
        cache.valid_for(RaftIndex(1)).insert(&topic("t"), 0, find(), counted.clone());
        assert!(cache.get(&topic("t"), 0).is_none(), "not adopted yet");
        rt::spawn(crate::shard::tasks::run(shard, metadata, LeaderTaskSettings::default(), Box::new(|_| None)));
        partitions.find(TopicRef::Name("t"), 0).await.unwrap();
        cache.valid_for(RaftIndex(1)).insert(&topic("t"), 0, find(), counted.clone());
        let cached = cache.get(&topic("t"), 0).unwrap();
        cached.mark_stale();
        assert!(cache.get(&topic("t"), 0).is_none(), "another replica leads");
        cache.insert(&topic("t"), 0, find(), counted);
        assert!(cache.get(&topic("t"), 0).is_some());
        assert!(cache.get(&topic("t"), 1).is_none());
        assert!(cache.get(&topic("u"), 0).is_none());
        assert!(cache.valid_for(RaftIndex(2)).get(&topic("t"), 0).is_none(), "another image");
    }
}
