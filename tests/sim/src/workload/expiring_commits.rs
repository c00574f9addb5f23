//! Clients of old versions, over the wire, that commit each offset with a retention time: they commit again about when
//! it is over, so that commits meet the expiration of the offsets that they replace.

use std::time::Duration;

use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName};
use ottla_broker::metadata::{CONSUMER_OFFSETS, ShardId, ShardKind};
use ottla_env::sim;

use super::committer::coordinator;
use super::pause;
use crate::laws::i9_commits;
use crate::registry::{PARTITIONS, TOPIC};
use crate::wire::{Client, text};
use crate::world::World;

/// How often expiration runs, at the least.
const SWEEP_MS: u64 = 1_000;

/// The client's state of one partition.
#[derive(Debug, Clone, Default)]
struct Slot {
    offset: i64,
    places: Option<Places>,
    /// The last acknowledged commit cannot expire before.
    kept_until: Duration,
    next_at: Duration,
}

struct ExpiringCommitter {
    world: World,
    client: Client,
    group: String,
    slots: Vec<Slot>,
}

/// Commits and fetches until the workload ends.
pub(crate) async fn expiring_commits(world: World, number: u64) {
    // The coordinator's partition follows from the name: another name is another run of the seed.
    let group = format!("forgetful-{number}");
    let client = Client::new(world.clone(), &group);
    let slots = vec![Slot::default(); usize::try_from(PARTITIONS).unwrap_or(0)];
    let mut committer = ExpiringCommitter { world, client, group, slots };
    while committer.world.workload_runs() {
        let index = usize::try_from(sim::random_below(committer.slots.len() as u64)).unwrap_or(0);
        let (slot, now) = (committer.slots[index].clone(), sim::elapsed());
        if now >= slot.next_at {
            committer.commit(index).await;
        } else if now < slot.kept_until {
            committer.look(index).await;
        }
        pause(20).await;
    }
}

/// Where the group partitions are, under which epoch bases; `None` while a shard is being merged. A merge may move the clock on of both
/// shards: by what it was behind that of the other one, and so behind the wall clock that most nodes agree with. A shard that
/// was taken over is gone afterwards.
fn places(world: &World) -> Option<Places> {
    let image = world.image()?;
    let topic = image.topic(CONSUMER_OFFSETS)?;
    let routes = topic.partitions.iter().map(|route| (route.shard, route.epoch_base)).collect();
    let shards = image.shards.values().filter(|record| record.kind == ShardKind::ConsumerOffsets);
    image.merges().next().is_none().then(|| Places { routes, shards: shards.map(|record| record.id).collect() })
}

/// See [`places`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Places {
    routes: Vec<(ShardId, i32)>,
    shards: Vec<ShardId>,
}

impl ExpiringCommitter {
    /// The name of the partition's commits in the oracle.
    fn name(&self, index: usize) -> String {
        format!("{}/{index}", self.group)
    }

    async fn commit(&mut self, index: usize) {
        let (began, name, places) = (sim::elapsed(), self.name(index), places(&self.world));
        let kept_ms = 700 + sim::random_below(800);
        let offset = self.slots[index].offset + 1;
        self.slots[index].offset = offset;
        self.world.oracle().commits.entry(name.clone()).or_default().attempted = offset;
        let version = 2 + i16::try_from(sim::random_below(3)).unwrap_or(0);
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(i32::try_from(index).unwrap_or(0))
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC)));
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(-1)
            .with_retention_time_ms(i64::try_from(kept_ms).unwrap_or(0))
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        let node = coordinator(&self.world, &self.group);
        let answer = self.client.call(node, version, &request).await;
        let code = answer.and_then(|answer| Some(answer.topics.first()?.partitions.first()?.error_code));
        let mut oracle = self.world.oracle();
        let commits = oracle.commits.entry(name).or_default();
        let slot = &mut self.slots[index];
        if code == Some(0) {
            commits.acknowledged = offset;
            slot.places = places;
            // The cluster does not trust a clock that jumps, and one that is behind catches up by an eighth.
            slot.kept_until = began + Duration::from_millis(kept_ms * 8 / 9 - 5);
            slot.next_at = sim::elapsed() + Duration::from_millis(kept_ms + sim::random_below(SWEEP_MS));
        } else {
            commits.unanswered.insert(offset);
        }
        drop(oracle);
        if code == Some(0) {
            let line = format!("node {} committed {offset} of {}/{index} for {kept_ms} ms", node.0, self.group);
            self.world.trace(None, line);
        }
    }

    async fn look(&mut self, index: usize) {
        let (node, name) = (coordinator(&self.world, &self.group), self.name(index));
        let before = self.world.oracle().commits.get(&name).cloned().unwrap_or_default();
        let asked = OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_partition_indexes(vec![i32::try_from(index).unwrap_or(0)]);
        let request =
            OffsetFetchRequest::default().with_group_id(GroupId(text(&self.group))).with_topics(Some(vec![asked]));
        let Some(answer) = self.client.call(node, 5, &request).await else { return };
        let told = answer.topics.first().and_then(|topic| topic.partitions.first());
        let Some(told) = told.filter(|told| answer.error_code == 0 && told.error_code == 0) else { return };
        let slot = &self.slots[index];
        if sim::elapsed() >= slot.kept_until || slot.places.is_none() || slot.places != places(&self.world) {
            return;
        }
        let told = Some(told.committed_offset).filter(|offset| *offset >= 0);
        let after = self.world.oracle().commits.get(&name).cloned().unwrap_or_default();
        self.world.trace(None, format!("node {} says {told:?} for {name}", node.0));
        self.world.judge(i9_commits::fetched(&name, &before, &after, told));
    }
}
