//! Consumers with a rack, over the wire: they ask the leader, which sends them to the replica in their rack, read there,
//! and ask the leader again now and then, or when that replica refuses (KIP-392).

use std::collections::BTreeMap;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest};
use ottla_env::sim::{self, SimNode};

use super::fetched::{self, Got};
use super::{pause, target};
use crate::laws::reads;
use crate::registry::{PARTITIONS, RACKS, rack};
use crate::wire::{Client, text};
use crate::world::World;

/// Requests name topics by id.
const VERSION: i16 = 17;
/// A reader forgets its replica after one of so many answers, as consumers do when they refresh their metadata.
const FORGETS_ONE_IN: u64 = 40;
/// It seeks to the start once in so many.
const SEEKS_ONE_IN: u64 = 60;

struct Reader {
    world: World,
    client: Client,
    rack: String,
    /// The replica to which the leader sent it, by partition.
    nearest: BTreeMap<i32, SimNode>,
    /// Its position, and its process in the history while it continues there.
    at: BTreeMap<i32, (u32, i64)>,
}

/// Reads until the workload ends; `number` counts the readers, one for each rack.
pub(crate) async fn reader(world: World, number: u32) {
    let rack = rack(SimNode(number % RACKS));
    let client = Client::new(world.clone(), &format!("reader-in-{rack}"));
    let mut reader = Reader { world, client, rack, nearest: BTreeMap::new(), at: BTreeMap::new() };
    while reader.world.workload_runs() {
        let index = i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0);
        reader.read(index).await;
        pause(10).await;
    }
}

impl Reader {
    async fn read(&mut self, index: i32) {
        if sim::random_below(FORGETS_ONE_IN) == 0 {
            self.nearest.remove(&index);
        }
        if sim::random_below(SEEKS_ONE_IN) == 0 {
            self.at.remove(&index);
        }
        let world = &self.world;
        let (process, from) = *self.at.entry(index).or_insert_with(|| (world.history().process(), 0));
        let node = self.nearest.get(&index).copied().unwrap_or_else(|| target(&self.world, index));
        let answer = self.client.call(node, VERSION, &self.request(index, from)).await;
        let answer = answer.filter(|answer| answer.error_code == 0);
        let told = answer.as_ref().and_then(|answer| answer.responses.first()?.partitions.first());
        let Some(told) = told else {
            self.nearest.remove(&index);
            return;
        };
        if told.error_code != 0 {
            self.nearest.remove(&index);
        }
        if told.preferred_read_replica.0 >= 0 {
            return self.go_to(node, told);
        }
        match fetched::judge(&self.world, node, from, told) {
            Got::Nothing => {}
            Got::Deleted(upto) => drop(self.at.insert(index, (self.world.history().process(), upto))),
            Got::Records(values) => {
                self.world.history().polled(process, index, &values);
                let next = values.last().map_or(from, |(offset, _)| offset + 1);
                self.at.insert(index, (process, next));
                self.world
                    .trace(Some(index), format!("node {} gave {from}..{next} to a reader in {}", node.0, self.rack));
            }
        }
    }

    fn request(&self, index: i32, from: i64) -> FetchRequest {
        let partition = FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(from)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(40_000);
        let topic = FetchTopic::default().with_topic_id(self.world.partition(0).topic).with_partitions(vec![partition]);
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(sim::random_below(300)).unwrap_or(0))
            .with_min_bytes(1)
            .with_max_bytes(1 << 24)
            .with_session_epoch(-1)
            .with_rack_id(text(&self.rack))
            .with_topics(vec![topic])
    }

    fn go_to(&mut self, leader: SimNode, told: &PartitionData) {
        let (index, node) = (told.partition_index, SimNode(u32::try_from(told.preferred_read_replica.0).unwrap_or(0)));
        self.world.judge(reads::nearest(index, leader.0, node.0, &self.rack, &rack(node)));
        self.nearest.insert(index, node);
        self.world.trace(Some(index), format!("node {} sends a reader in {} to node {}", leader.0, self.rack, node.0));
    }
}
