//! Topics that only some clients use, created over the wire by whichever of them comes first.
//!
//! May not know: what is in them.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::{CreateTopicsRequest, TopicName};
use uuid::Uuid;

use super::pause;
use crate::wire::{Client, text};
use crate::world::World;

const CREATE: i16 = 7;

/// Creates a topic unless it is there; its id, `None` if the workload ends before.
pub(super) async fn create(
    world: &World,
    client: &mut Client,
    (name, partitions): (&str, i32),
    configs: &[(&str, &str)],
) -> Option<Uuid> {
    let known = || world.image().and_then(|image| image.topic(name).map(|topic| topic.id));
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(world.factor().unwrap_or(-1))
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000);
    while known().is_none() && world.workload_runs() {
        let _ = client.call(world.random_node(), CREATE, &request).await;
        pause(300).await;
    }
    known()
}
