//! Requests of a group's members to its coordinator, and which of its answers may be judged.
//!
//! May not know: what a member does.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Request;
use ottla_broker::coordinator::partition_for;
use ottla_broker::metadata::CONSUMER_OFFSETS;
use ottla_broker::partition::TopicRef;
use ottla_env::sim::SimNode;

use super::committer::coordinator;
use crate::laws::groups::GroupAnswers;
use crate::registry::{OFFSETS_PARTITIONS, TOPIC};
use crate::wire::Client;
use crate::world::World;

pub(super) const UNKNOWN_MEMBER: i16 = 25;
pub(super) const ILLEGAL_GENERATION: i16 = 22;
pub(super) const REBALANCE: i16 = 27;
pub(super) const CONSUMER: &str = "consumer";
pub(super) const RANGE: &str = "range";

/// The coordinator that answered, and whether none of a newer epoch has answered before.
pub(super) struct Answerer {
    pub(super) node: SimNode,
    pub(super) epoch: Option<i32>,
    pub(super) newest: bool,
}

/// The subscription of a consumer of the topic; another `changes` makes it another one.
pub(super) fn subscription(changes: u64) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(i16::try_from(TOPIC.len()).unwrap_or(0));
    bytes.put_slice(TOPIC.as_bytes());
    bytes.put_i32(8);
    bytes.put_u64(changes);
    bytes.freeze()
}

/// A time as requests have it.
pub(super) fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// A client of one group.
pub(super) struct GroupClient {
    pub(super) world: World,
    pub(super) group: String,
    client: Client,
}

impl GroupClient {
    /// `name`: the client's, as it introduces itself.
    pub(super) fn new(world: World, group: &str, name: &str) -> Self {
        let client = Client::new(world.clone(), name);
        Self { world, group: group.to_owned(), client }
    }

    /// The leader epoch in which a node coordinates the group now.
    fn epoch_at(&self, node: SimNode) -> Option<i32> {
        let index = partition_for(&self.group, OFFSETS_PARTITIONS);
        let running = self.world.running_node(node)?;
        let partition = running.partitions.find_now(TopicRef::Name(CONSUMER_OFFSETS), index).ok().flatten()?;
        Some(partition.leader_epoch()?.0)
    }

    /// What the members of the group were answered.
    pub(super) fn told<T>(&self, with: impl FnOnce(&mut GroupAnswers) -> T) -> T {
        with(self.world.oracle().groups.entry(self.group.clone()).or_default())
    }

    /// Sends a request, mostly to the group's coordinator.
    pub(super) async fn request<R: Request>(&mut self, version: i16, request: &R) -> Option<(R::Response, Answerer)> {
        let node = coordinator(&self.world, &self.group);
        let before = self.epoch_at(node);
        let answer = self.client.call(node, version, request).await?;
        let epoch = before.filter(|epoch| self.epoch_at(node) == Some(*epoch));
        let newest = epoch.is_some_and(|epoch| self.told(|told| epoch >= told.epoch));
        Some((answer, Answerer { node, epoch, newest }))
    }

    /// From now on the answers of coordinators of older epochs are not judged.
    pub(super) fn heed(&self, who: &Answerer) {
        let now = self.epoch_at(who.node);
        self.told(|told| told.epoch = told.epoch.max(who.epoch.max(now).unwrap_or(0)));
    }
}
