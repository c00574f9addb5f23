//! The sampler: keeps the cache current with what groups have committed and with the ends from the partitions' leaders.
//!
//! A round sends each leading node requests for all its partitions, in batches, to the nodes in parallel. A leader
//! answers one byte for a partition of which neither the committed offset nor the high watermark has changed. May not
//! know: pages.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use super::Inner;
use super::cache::{AsOf, CachedGroup, CachedStore};
use crate::coordinator::group::OFFSETS_TOPIC;
use crate::metadata::ShardId;
use crate::partition::{Access, TopicRef};
use crate::shard::{CommittedPosition, EndsAnswer, TopicPositions};

/// Between two rounds: values are seldom older than this.
const INTERVAL: Duration = Duration::from_secs(1);
/// A round that takes long is followed by a pause of so many times its length: sampling takes a tenth of a core at
/// most.
const PAUSE_TIMES: u32 = 10;
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Changes of leadership that come together start one round.
const CHANGE_PAUSE: Duration = Duration::from_millis(100);
/// Of so many rounds one is for all groups that other nodes coordinate, too; the others only for what is new there.
const ROUNDS_PER_FOLLOWED: u64 = 5;
/// Positions in one request, which takes at most 64 bytes for each.
const BATCH: usize = 2_000;

/// A follower samples only if it has heard from its leader within this time: what it has applied is then nearly
/// current.
const FOLLOWER_DELAY: Duration = Duration::from_secs(3);

/// A committed offset for which the ends are requested.
struct Sample {
    group: Arc<Mutex<CachedGroup>>,
    topic_name: Arc<str>,
    topic: Uuid,
    as_of: AsOf,
    committed: i64,
    position: CommittedPosition,
}

/// Samples until the last handle is gone.
pub(super) async fn run(inner: Weak<Inner>) {
    let Some(mut changes) = inner.upgrade().map(|inner| inner.partitions.leadership_changes()) else { return };
    let (mut rounds, mut changed) = (0_u64, true);
    loop {
        let Some(kept) = inner.upgrade() else { return };
        let began = rt::now();
        drop(changes.borrow_and_update());
        kept.round(changed || rounds.is_multiple_of(ROUNDS_PER_FOLLOWED)).await;
        drop(kept);
        rounds += 1;
        let pause = (rt::now().since(began) * PAUSE_TIMES).clamp(INTERVAL, PAUSE_MAX);
        let next = rt::now() + pause;
        changed = matches!(rt::timeout_at(next, changes.changed()).await, Ok(Ok(())));
        if changed {
            let soon = rt::now() + CHANGE_PAUSE.max(rt::now().since(began));
            rt::sleep_until(soon.min(next)).await;
        } else if changes.has_changed().is_err() {
            return;
        }
    }
}

impl Inner {
    /// Samples all groups that this node coordinates; with `followed` also those of which it only has a replica, else
    /// of these only what they have committed for the first time.
    async fn round(self: &Arc<Self>, followed: bool) {
        let inner = self.clone();
        let planned = rt::spawn_blocking(move || inner.plan(followed)).await;
        let (stores, samples) = match planned {
            Ok(planned) => planned,
            Err(error) => return tracing::error!("consumer lag is not sampled: {error}"),
        };
        join_all(samples.into_iter().map(|(node, samples)| self.measure(node, samples))).await;
        for cached in stores {
            cached.write().is_measured = true;
        }
    }

    /// Reads what is committed; returns the positions to send to each node.
    fn plan(&self, followed: bool) -> (Vec<Arc<RwLock<CachedStore>>>, BTreeMap<NodeId, Vec<Sample>>) {
        let (mut stores, mut samples) = (Vec::new(), BTreeMap::new());
        let image = self.partitions.image();
        let count = image.topic(OFFSETS_TOPIC).map_or(0, |topic| topic.partition_count());
        let mut leaders = BTreeMap::new();
        self.stores.write().retain(|partition, _| *partition < count);
        for partition in 0..count {
            let Some(store) = self.groups.replicated(partition) else {
                self.stores.write().remove(&partition);
                continue;
            };
            let leads = self.groups.leads(partition);
            if !leads && !self.follows(partition) {
                continue;
            }
            let at = if leads { rt::now() } else { rt::now() - FOLLOWER_DELAY };
            let as_of = AsOf { at, clock_ms: self.groups.clock_ms(partition) };
            let cached = self.stores.write().entry(partition).or_default().clone();
            cached.write().merge(&store.lock());
            self.collect(&cached, as_of, leads || followed, &mut leaders, &mut samples);
            stores.push(cached);
        }
        (stores, samples)
    }

    /// True if this node's replica of a partition of `__consumer_offsets` hears from its leader.
    fn follows(&self, partition: i32) -> bool {
        let found = self.partitions.find_now(TopicRef::Name(OFFSETS_TOPIC), partition);
        found.is_ok_and(|found| found.is_some_and(|found| found.is_readable(Access::AnyReplica)))
    }

    /// The positions to request for the groups of one partition of `__consumer_offsets`; unless `all`, only new ones.
    fn collect(
        &self,
        cached: &RwLock<CachedStore>,
        as_of: AsOf,
        all: bool,
        leaders: &mut BTreeMap<ShardId, Option<NodeId>>,
        samples: &mut BTreeMap<NodeId, Vec<Sample>>,
    ) {
        let image = self.partitions.image();
        let groups: Vec<_> = cached.read().groups.values().cloned().collect();
        for group in groups {
            let mut locked = group.lock();
            for (name, partitions) in &mut locked.topics {
                let Some(topic) = image.topic(name) else { continue };
                for (index, partition) in partitions {
                    if !partition.is_of(topic.id) || !all && partition.measured(topic.id).is_some() {
                        continue;
                    }
                    let Some(route) = topic.route(*index) else { continue };
                    let leader = leaders.entry(route.shard).or_insert_with(|| self.partitions.leader_of(route.shard));
                    let Some(leader) = *leader else {
                        partition.give_up();
                        continue;
                    };
                    samples.entry(leader).or_default().push(Sample {
                        group: group.clone(),
                        topic_name: name.clone(),
                        topic: topic.id,
                        as_of,
                        committed: partition.committed,
                        position: partition.question(topic.id, *index),
                    });
                }
            }
        }
    }

    /// Queries one node. One that does not answer gets no further request until the next round.
    async fn measure(&self, node: NodeId, samples: Vec<Sample>) {
        let mut batches = samples.chunks(BATCH);
        for batch in batches.by_ref() {
            let Some(answers) = self.partitions.ends(node, positions(batch)).await else {
                batch.iter().chain(batches.flatten()).for_each(|sample| sample.file(&EndsAnswer::NotLeader));
                return;
            };
            batch.iter().zip(&answers).for_each(|(sample, answer)| sample.file(answer));
            rt::yield_now().await;
        }
    }
}

impl Sample {
    fn file(&self, answer: &EndsAnswer) {
        let mut group = self.group.lock();
        let isolation = group.isolation;
        let topic = group.topics.get_mut(&self.topic_name);
        let partition = topic.and_then(|partitions| partitions.get_mut(&self.position.partition));
        if let Some(partition) = partition {
            partition.file(self.topic, self.committed, answer, self.as_of, isolation);
        }
    }
}

/// The positions of a batch, in its order, neighbours of one topic together.
fn positions(batch: &[Sample]) -> Vec<TopicPositions> {
    let of_topic = |samples: &[Sample]| {
        let partitions = samples.iter().map(|sample| sample.position).collect();
        samples.first().map(|first| TopicPositions { topic: first.topic, partitions })
    };
    batch.chunk_by(|a, b| a.topic == b.topic).filter_map(of_topic).collect()
}
