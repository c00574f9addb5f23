//! Where one connection's batches go: the partitions that it wrote to last, with their counters, so that a request on
//! the way needs no look into the tables. Forgotten as a whole when the metadata change or a batch is refused.
//!
//! May not know: what is appended.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::protocol::StrBytes;
use ottla_protocol::produce::ProduceTopic;
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use crate::metrics::TopicMetrics;
use crate::partition::Partition;

/// Partitions remembered per connection; beyond it everything is forgotten.
const TARGETS_MAX: usize = 4_096;
/// Topics remembered per connection.
const TOPICS_MAX: usize = 32;

/// A partition and what is counted for its topic.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) partition: Partition,
    pub(crate) metrics: Arc<TopicMetrics>,
}

/// A topic as a client names it. The name is a copy: that in a request keeps the connection's whole read buffer alive.
#[derive(Debug)]
pub(super) struct Named {
    name: Option<StrBytes>,
    id: Option<Uuid>,
}

impl Named {
    /// True if the request means this topic, by the same name or id.
    pub(super) fn is(&self, topic: &ProduceTopic) -> bool {
        self.name == topic.name && self.id == topic.id
    }
}

impl From<&ProduceTopic> for Named {
    fn from(topic: &ProduceTopic) -> Self {
        Self { name: topic.name.as_ref().map(|name| StrBytes::from_string(name.to_string())), id: topic.id }
    }
}

#[derive(Debug)]
struct KnownTopic {
    named: Named,
    /// Number of this topic in the keys of `targets`.
    number: usize,
}

/// The partitions that a connection wrote to last.
#[derive(Debug, Default)]
pub struct Targets {
    image: RaftIndex,
    /// The one used last is first.
    topics: Vec<KnownTopic>,
    targets: HashMap<(usize, i32), Arc<Target>>,
}

impl Targets {
    /// What is remembered holds for this image only.
    pub(crate) fn under(&mut self, image: RaftIndex) -> &mut Self {
        if self.image != image {
            self.forget();
            self.image = image;
        }
        self
    }

    pub(crate) fn forget(&mut self) {
        self.topics.clear();
        self.targets.clear();
    }

    pub(crate) fn get(&mut self, topic: &ProduceTopic, index: i32) -> Option<Arc<Target>> {
        let number = self.number(topic)?;
        self.targets.get(&(number, index)).cloned()
    }

    /// Remembers a partition that was found under the image of [`Self::under`]; one that is not adopted yet is not kept.
    pub(crate) fn add(
        &mut self,
        topic: &ProduceTopic,
        index: i32,
        partition: Partition,
        metrics: Arc<TopicMetrics>,
    ) -> Arc<Target> {
        let target = Arc::new(Target { partition: partition.remember_adoption(), metrics });
        if !target.partition.is_known_adopted() {
            return target;
        }
        if self.targets.len() >= TARGETS_MAX || self.topics.len() >= TOPICS_MAX {
            self.forget();
        }
        let number = self.number(topic).unwrap_or_else(|| {
            let number = self.topics.len();
            self.topics.push(KnownTopic { named: topic.into(), number });
            number
        });
        self.targets.insert((number, index), target.clone());
        target
    }

    fn number(&mut self, topic: &ProduceTopic) -> Option<usize> {
        let place = self.topics.iter().position(|known| known.named.is(topic))?;
        self.topics.swap(0, place);
        self.topics.first().map(|known| known.number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ottla_storage::env::rt;

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
    async fn a_target_holds_for_one_image_and_only_once_it_is_adopted() {
        let (_group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 1, pinned: false });
        let metadata = Arc::new(FakeMetadata::new(image_with_topic(3, TopicConfig::default())));
        let partitions = Partitions::new(Shards::for_tests(shard.clone(), metadata.clone()));
        let find = || partitions.find_now(TopicRef::Name("t"), 0).unwrap().unwrap();
        let counted = Metrics::new(&Config::default().metrics).topic(&"t".into());
        let mut targets = Targets::default();
        targets.under(RaftIndex(1)).add(&topic("t"), 0, find(), counted.clone());
        assert!(targets.get(&topic("t"), 0).is_none(), "not adopted yet");
        rt::spawn(crate::shard::tasks::run(shard, metadata, LeaderTaskSettings::default()));
        partitions.find(TopicRef::Name("t"), 0).await.unwrap();
        targets.under(RaftIndex(1)).add(&topic("t"), 0, find(), counted);
        assert!(targets.get(&topic("t"), 0).is_some());
        assert!(targets.get(&topic("t"), 1).is_none());
        assert!(targets.get(&topic("u"), 0).is_none());
        assert!(targets.under(RaftIndex(2)).get(&topic("t"), 0).is_none(), "another image");
    }
}
