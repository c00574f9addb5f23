//! Finding partitions: which shard carries one, whether this node leads it, and the wait until it is adopted.
//!
//! Before "unknown" is answered the metadata is read once more after a read index (design section 6). May not know:
//! what is done with a partition.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::{rt, watch};
use ottla_protocol::ids::{NodeId, Offset};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use uuid::Uuid;

use super::delayed_fetch;
use super::handle::Partition;
use super::leaders::Leaders;
use super::types::{Access, Isolation, Leadership, TopicRef};
use crate::metadata::{MetadataImage, ShardId, ShardKind, Topic};
use crate::replicated::error::PartitionError;
use crate::shard::ConnectionId;
use crate::shard::data_waiters::ChangeFeed;
use crate::shard::{ClosedReplica, EndsAnswer, PeerService, SetClockOutcome, Shard, Shards, TopicPositions};

/// A request for a partition that is not adopted yet waits this long, then LEADER_NOT_AVAILABLE.
const ADOPTION_WAIT: Duration = Duration::from_secs(5);
/// How long a request for leaders waits for the successor of a dead leader: an election takes less.
const SUCCESSION_WAIT: Duration = Duration::from_millis(200);
/// How long the answer to a creation waits for the first leaders at most: only nodes that are away keep them from being elected.
const FIRST_LEADERS_WAIT: Duration = Duration::from_secs(2);

/// All partitions that this node may serve; cheap to clone.
#[derive(Debug, Clone)]
pub struct Partitions {
    pub(super) shards: Shards,
}

impl Partitions {
    /// Partitions over the shards of this node.
    #[must_use]
    pub fn new(shards: Shards) -> Self {
        Self { shards }
    }

    /// The number of this node's replicas by role: `leader`, `follower`, `learner`, `stopped`.
    #[must_use]
    pub fn replica_roles(&self) -> std::collections::BTreeMap<&'static str, usize> {
        self.shards.replica_roles()
    }

    /// Sets a shard's clock: see [`Shards::set_clock`].
    pub async fn set_clock(&self, shard: ShardId, to_ms: Option<i64>, wait: std::time::Duration) -> SetClockOutcome {
        self.shards.set_clock(shard, to_ms, wait).await
    }

    /// The metadata image of this node.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.shards.metadata().image()
    }

    /// The metadata index of the image that [`Self::find_now`] uses.
    #[must_use]
    pub fn image_index(&self) -> RaftIndex {
        self.image().index
    }

    /// A partition, from the image as it is. `None`: the partition exists, but its shard is not here yet.
    /// A partition that its shard has not adopted yet is returned too: appends to it wait in order.
    pub fn find_now(&self, topic: TopicRef<'_>, index: i32) -> Result<Option<Partition>, PartitionError> {
        let image = self.image();
        let topic = resolve(&image, topic)?;
        let route = topic.route(index).ok_or(PartitionError::UnknownTopicOrPartition)?;
        let Some(shard) = self.shards.get(route.shard) else {
            let placed_here = image
                .shard(route.shard)
                .is_some_and(|record| record.replicas.iter().any(|replica| replica.node == self.shards.node()));
            return match placed_here {
                true if self.shards.is_closed(route.shard) => match self.shards.remote_leader_of(route.shard) {
                    Some(_) => Err(PartitionError::NotLeaderOrFollower),
                    None => Err(PartitionError::Storage),
                },
                true => Ok(None),
                false => Err(PartitionError::NotLeaderOrFollower),
            };
        };
        Ok(Some(Partition { id: topic.partition(index), topic: topic.clone(), shard, known_adopted: false }))
    }

    /// The partition on each replica of its shard here, as far as this node knows it: the one that serves first, and one that is to take its
    /// place in another data directory.
    #[must_use]
    pub fn on_replicas_here(&self, topic: TopicRef<'_>, index: i32) -> Vec<(ReplicaId, Partition)> {
        let Ok(Some(serving)) = self.find_now(topic, index) else { return Vec::new() };
        let first = serving.shard.replica;
        let others = self.shards.replicas_of(serving.shard.creation.shard).into_iter();
        let others = others.filter(|shard| shard.replica != first);
        let other = |shard: Arc<Shard>| (shard.replica, Partition { shard, known_adopted: false, ..serving.clone() });
        [(first, serving.clone())].into_iter().chain(others.map(other)).collect()
    }

    /// A partition that this node leads; waits for its adoption, which goes before others.
    pub async fn find(&self, topic: TopicRef<'_>, index: i32) -> Result<Partition, PartitionError> {
        self.find_for(topic, index, Access::Leader).await
    }

    /// A partition that may be read here.
    pub async fn find_for(&self, topic: TopicRef<'_>, index: i32, access: Access) -> Result<Partition, PartitionError> {
        if let Ok(Some(partition)) = self.find_now(topic, index)
            && matches!(readiness(&partition, access), Readiness::Ready)
        {
            return Ok(partition);
        }
        let deadline = rt::now() + ADOPTION_WAIT;
        let mut asked_metadata = false;
        let mut shards = self.shards.leadership_changes();
        let mut images = self.shards.metadata().changes();
        loop {
            let _seen = (*shards.borrow_and_update(), images.borrow_and_update().index);
            match self.find_now(topic, index) {
                Ok(Some(partition)) => match readiness(&partition, access) {
                    Readiness::Ready => return Ok(partition),
                    Readiness::NotHere => return Err(PartitionError::NotLeaderOrFollower),
                    Readiness::NotYet => partition.shard.request_adoption(partition.id),
                },
                Ok(None) => {}
                Err(PartitionError::UnknownTopicOrPartition | PartitionError::UnknownTopicId) if !asked_metadata => {
                    asked_metadata = true;
                    if !self.shards.metadata().read_index().await {
                        // This node's image may be behind.
                        return Err(PartitionError::LeaderNotAvailable);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            }
            if rt::now() >= deadline {
                return Err(PartitionError::LeaderNotAvailable);
            }
            tokio::select! {
                biased;
                _ = shards.changed() => {}
                _ = images.changed() => {}
                () = rt::sleep_until(deadline) => {}
            }
        }
    }

    /// The leader of a partition, as far as this node knows.
    #[must_use]
    pub fn leadership(&self, topic: &Topic, index: i32) -> Leadership {
        self.leaders().of(topic, index).into()
    }

    /// The same for many partitions.
    #[must_use]
    pub fn leaders(&self) -> Leaders {
        Leaders::new(self.shards.clone())
    }

    /// The nodes that clients see: those that are not fenced, this one, and those that still lead a shard. A client
    /// must find each leader of an answer among its brokers.
    #[must_use]
    pub fn visible_nodes(&self, image: &MetadataImage) -> BTreeSet<NodeId> {
        let mut visible: BTreeSet<NodeId> =
            image.nodes.values().filter(|node| !node.is_fenced()).map(|node| node.id).collect();
        if visible.len() < image.nodes.len() {
            let shards = image.shards.keys().filter(|shard| **shard != ShardId::METADATA);
            visible.extend(shards.filter_map(|shard| self.shards.leader_of(*shard)).chain([self.node()]));
            visible.retain(|node| image.nodes.contains_key(node));
        }
        visible
    }

    /// Pings the nodes that lead these topics, so that [`Self::leaders`] does not name one whose process has just died;
    /// if one has, waits a moment for its successor: a client that is answered without a leader may retry only a second
    /// later.
    pub async fn ping_leaders<'a>(&self, topics: impl Iterator<Item = &'a Topic>) {
        let carrying: BTreeSet<ShardId> =
            topics.flat_map(|topic| topic.partitions.iter().map(|route| route.shard)).collect();
        self.shards.ping(carrying.iter().filter_map(|shard| self.shards.leader_of(*shard)).collect()).await;
        let is_settled = || !carrying.iter().any(|shard| self.shards.is_between_leaders(*shard));
        self.shards.wait_for_leadership(rt::now() + SUCCESSION_WAIT, is_settled).await;
    }

    /// Returns when this node knows a leader of every partition of these topics, which have just been created or extended; at
    /// the deadline, or after [`FIRST_LEADERS_WAIT`], if that comes first. Some clients keep the first metadata that they are
    /// given of a topic, also where it names no leader.
    pub async fn wait_for_first_leaders(&self, topics: &[&str], deadline: Option<rt::Instant>) {
        let are_led = || {
            let (image, mut leaders) = (self.image(), self.leaders());
            let mut found = topics.iter().filter_map(|name| image.topic(name));
            found.all(|topic| (0..topic.partition_count()).all(|index| leaders.of(topic, index).node.is_some()))
        };
        let longest = rt::now() + FIRST_LEADERS_WAIT;
        self.shards.wait_for_leadership(deadline.map_or(longest, |deadline| deadline.min(longest)), are_led).await;
    }

    /// Returns when `min_bytes` can be read from the offsets together, when a leadership changes, or at the deadline.
    pub async fn wait_for_data(
        &self,
        waits: &[(Partition, Offset)],
        reader: (Isolation, Access),
        min_bytes: usize,
        deadline: rt::Instant,
    ) {
        delayed_fetch::wait(waits, reader, min_bytes, deadline).await;
    }

    /// The same for the partitions of a change feed: reads none of them.
    pub async fn wait_for_change(
        &self,
        feed: &ChangeFeed,
        missing_bytes: usize,
        isolation: Isolation,
        deadline: rt::Instant,
    ) {
        delayed_fetch::wait_for_change(feed, missing_bytes, isolation, deadline).await;
    }

    /// Drops the refusals of a connection that is closed.
    pub fn connection_closed(&self, connection: ConnectionId) {
        self.shards.connection_closed(connection);
    }

    /// The partitions of a topic that this node leads and serves, in order.
    #[must_use]
    pub fn led_partitions(&self, topic: Uuid) -> Vec<i32> {
        let image = self.image();
        let Some(topic) = image.topic_by_id(&topic) else { return Vec::new() };
        let led = |index: &i32| {
            let partition = self.find_now(TopicRef::Id(topic.id), *index);
            partition.is_ok_and(|partition| partition.is_some_and(|partition| partition.leader_epoch().is_some()))
        };
        (0..topic.partition_count()).filter(led).collect()
    }

    /// Changes whenever the outcome of [`Partition::leader_epoch`] may have changed for some partition.
    #[must_use]
    pub fn leadership_changes(&self) -> watch::Receiver<u64> {
        self.shards.leadership_changes()
    }

    /// Replicas of this node that could not be opened, and why.
    #[must_use]
    pub fn closed(&self) -> Vec<(ReplicaId, ClosedReplica)> {
        self.shards.closed()
    }

    /// Waits until this node knows the leader of each shard, except those whose replica here could not be opened; false if it
    /// does not at the deadline.
    pub async fn wait_until_led(&self, deadline: rt::Instant) -> bool {
        self.shards.wait_for_leadership(deadline, || self.all_are_led()).await
    }

    fn all_are_led(&self) -> bool {
        let image = self.image();
        let mut shards = image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata);
        shards.all(|record| match self.shards.get(record.id) {
            Some(shard) => shard.role().leader.is_some(),
            None => self.shards.remote_leader_of(record.id).is_some() || self.shards.is_closed(record.id),
        })
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shards.node()
    }

    /// The leader of a shard of which this node has no replica, and the term, if it has sent an update.
    #[must_use]
    pub fn leader_elsewhere(&self, shard: ShardId) -> Option<(NodeId, u64)> {
        self.shards.remote_leader_of(shard).map(|(node, led)| (node, led.term))
    }

    /// The node that leads a shard, as far as this node knows.
    #[must_use]
    pub fn leader_of(&self, shard: ShardId) -> Option<NodeId> {
        self.shards.leader_of(shard)
    }

    /// The ends of partitions from the node that leads them, this one or another: an answer for each position in order.
    pub(crate) async fn ends(&self, node: NodeId, topics: Vec<TopicPositions>) -> Option<Vec<EndsAnswer>> {
        self.shards.ends(node, topics).await
    }

    /// Serves other nodes' requests for the groups that are coordinated here with `service` from now on.
    pub(crate) fn serve_groups(&self, service: PeerService) {
        self.shards.serve_groups(service);
    }

    /// The response of another node to a request for the groups that it coordinates, or if it does not understand that
    /// to the `older` one.
    pub(crate) async fn ask_groups(&self, node: NodeId, request: Bytes, older: Bytes) -> Option<Bytes> {
        self.shards.ask_groups(node, request, older).await
    }

    /// Serves other nodes' requests about transactions with `service` from now on.
    pub(crate) fn serve_transactions(&self, service: PeerService) {
        self.shards.serve_transactions(service);
    }

    /// The response of another node to a request about transactions.
    pub(crate) async fn ask_transactions(
        &self,
        node: NodeId,
        request: Bytes,
        wait: std::time::Duration,
    ) -> Option<Bytes> {
        self.shards.ask_transactions(node, request, wait).await
    }

    /// The shards of this node, for metrics.
    #[must_use]
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.all()
    }
}

fn resolve<'a>(image: &'a MetadataImage, topic: TopicRef<'_>) -> Result<&'a Arc<Topic>, PartitionError> {
    match topic {
        TopicRef::Name(name) => image.topic(name).ok_or(PartitionError::UnknownTopicOrPartition),
        TopicRef::Id(id) => image.topic_by_id(&id).ok_or(PartitionError::UnknownTopicId),
    }
}

enum Readiness {
    Ready,
    /// Another node leads, or the replica has stopped.
    NotHere,
    /// No leader yet, or not adopted yet.
    NotYet,
}

fn readiness(partition: &Partition, access: Access) -> Readiness {
    let role = partition.shard.role();
    if partition.shard.leading().is_some() {
        return if partition.is_adopted() { Readiness::Ready } else { Readiness::NotYet };
    }
    if partition.is_readable(access) {
        return Readiness::Ready;
    }
    let other = role.leader.is_some_and(|leader| leader != partition.shard.replica);
    if other || role.stopped { Readiness::NotHere } else { Readiness::NotYet }
}
