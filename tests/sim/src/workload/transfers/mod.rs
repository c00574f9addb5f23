//! Transactions over the wire: producers that share transactional ids, so that some are zombies, in both protocols, readers of
//! committed data and of stable offsets, and markers that come late.
//!
//! Their records lie in a topic of their own, beside which shards split and merge as beside any other. Each has a key of its own,
//! so that no value is lost where the topic is compacted: only markers and what was aborted may go.

mod late_markers;
mod offsets;
mod producer;
mod reader;

pub(crate) use late_markers::late_markers;
pub(crate) use producer::transfers;
pub(crate) use reader::{judge, reader};

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use ottla_env::sim::SimNode;
use uuid::Uuid;

use super::{leader_of, pause};
use crate::wire::{Client, text};
use crate::world::World;

const TOPIC: &str = "transfers";
const PARTITIONS: i32 = 4;
/// Transactional ids.
const IDS: u64 = 2;
const CREATE: i16 = 7;

/// Creates the topic unless it is there; its id.
async fn topic(world: &World, client: &mut Client) -> Option<Uuid> {
    let known = || world.image().and_then(|image| image.topic(TOPIC).map(|topic| topic.id));
    while known().is_none() && world.workload_runs() {
        let config = |name: &str, value: &str| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        // Nothing is deleted: a reader gets all that was ever committed.
        let mut configs = vec![config("retention.ms", "-1")];
        if world.compacts_transfers() {
            // Markers go soon after what they end.
            configs.extend([
                config("cleanup.policy", "compact"),
                config("min.cleanable.dirty.ratio", "0.0"),
                config("delete.retention.ms", "1000"),
            ]);
        }
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_num_partitions(PARTITIONS)
            .with_replication_factor(world.factor().unwrap_or(-1))
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000);
        let _ = client.call(world.random_node(), CREATE, &request).await;
        pause(300).await;
    }
    known()
}

/// The node for the next request about a partition.
fn target(world: &World, index: i32) -> SimNode {
    leader_of(world, TOPIC, index)
}
