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

use ottla_env::sim::SimNode;
use uuid::Uuid;

use super::{leader_of, own_topic};
use crate::wire::Client;
use crate::world::World;

const TOPIC: &str = "transfers";
const PARTITIONS: i32 = 4;
/// Transactional ids.
const IDS: u64 = 2;

/// The topic's id, once it is there.
pub(crate) fn topic_id(world: &World) -> Option<Uuid> {
    world.image()?.topic(TOPIC).map(|topic| topic.id)
}

/// Creates the topic unless it is there; its id.
async fn topic(world: &World, client: &mut Client) -> Option<Uuid> {
    // Nothing is deleted: a reader gets all that was ever committed.
    let mut configs = vec![("retention.ms", "-1")];
    if world.compacts_transfers() {
        // Markers go soon after what they end.
        let compacts = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.0"),
            ("delete.retention.ms", "1000"),
            ("segment.ms", "1"),
        ];
        configs.extend(compacts);
    }
    own_topic::create(world, client, (TOPIC, PARTITIONS), &configs).await
}

/// The node for the next request about a partition.
fn target(world: &World, index: i32) -> SimNode {
    leader_of(world, TOPIC, index)
}
