//! Leaders spread as placement spread the preferred replicas: whoever leads in another's place hands over, a little at a time.
//!
//! Nodes look at different times, one shard after the other, and never at a shard whose leader has just changed: a cluster in
//! trouble is left alone. May not know: where replicas are to lie.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::NodeId;
use ottla_storage::env::critical::Owner;
use ottla_storage::env::rt;

use super::metadata_view::MetadataView;
use super::notices::Election;
use super::shard::Shard;
use super::succession;
use crate::metadata::{MetadataImage, ShardId, ShardKind};

/// Whoever has led for less is left alone.
const QUIET: Duration = Duration::from_secs(10);
/// Between two hand-overs of a node.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two looks at what a node that is being emptied still leads.
const EMPTYING_PAUSE: Duration = Duration::from_secs(1);

/// What a node needs to hand over what others are to lead.
pub(super) struct Balancer {
    pub(super) own: NodeId,
    pub(super) metadata: Arc<dyn MetadataView>,
    /// The shards here; `None` when they are gone.
    pub(super) shards: Box<dyn Fn() -> Option<Vec<Arc<Shard>>> + Send + Sync>,
    /// Who leads a shard, as far as is known.
    pub(super) leader_of: Box<dyn Fn(ShardId) -> Option<NodeId> + Send + Sync>,
}

/// Half of it, and up to as much again: nodes that started together do not look together.
fn some_time(interval: Duration) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    interval / 2 + Duration::from_nanos(rt::random_u64() % nanos)
}

/// What shards weigh: their partitions, and one for themselves.
fn weight(image: &MetadataImage, shard: ShardId) -> u64 {
    1 + image.partitions_by_shard.get(&shard).copied().unwrap_or(0)
}

/// Nodes that do not lead more than so many hundredths of what they are preferred for: all of it is counted, wherever it is led.
fn imbalanced(
    image: &MetadataImage,
    percentage: u64,
    leader_of: &dyn Fn(ShardId) -> Option<NodeId>,
) -> BTreeMap<NodeId, u64> {
    let mut missing: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
    for shard in image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata) {
        let Some(preferred) = image.preferred_leader(shard) else { continue };
        let (not_led, all) = missing.entry(preferred.node).or_default();
        *all += weight(image, shard.id);
        if leader_of(shard.id) != Some(preferred.node) {
            *not_led += weight(image, shard.id);
        }
    }
    let is_above = |(_, (not_led, all)): &(NodeId, (u64, u64))| not_led * 100 > all * percentage;
    missing.into_iter().filter(is_above).map(|(node, (not_led, _))| (node, not_led)).collect()
}

impl Balancer {
    /// Looks from now on, as long as the node has shards.
    pub(super) fn start(self) {
        rt::spawn_critical("leader-balancer", Owner::process(), self.run());
    }

    /// True while this node is to lead nothing.
    fn is_emptied(&self) -> bool {
        self.metadata.image().nodes.get(&self.own).is_some_and(|node| !node.takes_replicas())
    }

    async fn run(self) {
        let mut images = self.metadata.changes();
        loop {
            let config = self.metadata.image().config.clone();
            let looks_at = rt::now() + some_time(config.replication.leader_check_interval);
            while !self.is_emptied() {
                tokio::select! {
                    biased;
                    changed = images.changed() => if changed.is_err() { return },
                    () = rt::sleep_until(looks_at) => break,
                }
            }
            let Some(shards) = (self.shards)() else { return };
            if self.is_emptied() {
                self.hand_over_all(shards).await;
                rt::sleep(some_time(EMPTYING_PAUSE)).await;
            } else if config.replication.leader_rebalance {
                self.balance(shards, config.replication.leader_imbalance_percentage).await;
            }
        }
    }

    /// Gives up what another can lead.
    async fn hand_over_all(&self, shards: Vec<Arc<Shard>>) {
        for shard in shards.into_iter().filter(|shard| shard.leading().is_some()) {
            if succession::lead_preferred(&shard, &*self.metadata).await == Election::Done {
                tracing::info!("shard={}: handed over, since this node is being drained", shard.creation.shard);
            }
        }
    }

    async fn balance(&self, mut shards: Vec<Arc<Shard>>, percentage: u64) {
        if !shards.is_empty() {
            let first = usize::try_from(rt::random_u64() % shards.len() as u64).unwrap_or(0);
            shards.rotate_left(first);
        }
        for shard in shards {
            if shard.led_for().is_none_or(|led_for| led_for < QUIET) {
                continue;
            }
            let image = self.metadata.image();
            let id = shard.creation.shard;
            let Some(preferred) = image.shard(id).and_then(|record| image.preferred_leader(record)) else { continue };
            let is_missed = || imbalanced(&image, percentage, &*self.leader_of).contains_key(&preferred.node);
            if preferred.node == self.own || !is_missed() {
                continue;
            }
            if succession::lead_preferred(&shard, &*self.metadata).await == Election::Done {
                tracing::info!("shard={id}: handed over to its preferred leader on node {}", preferred.node.0);
                rt::sleep(some_time(PAUSE)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_storage::env::sim;
    use ottla_storage::ids::{RaftIndex, ReplicaId};
    use uuid::Uuid;

    use super::*;
    use crate::config::Config;
    use crate::metadata::{ReplicaRecord, ShardRecord};
    use crate::shard::fake::{FakeGroup, FakeMetadata, NODE, SHARD};

    const POOL: ShardKind = ShardKind::Pool { factor: 2, pinned: false };
    const OTHER: NodeId = NodeId(2);

    /// Shards, each with the nodes of its replicas, preferred leader first; a replica's id is 10 x shard + node.
    fn image(shards: &[(u64, [i32; 2])]) -> MetadataImage {
        let record = |(id, nodes): &(u64, [i32; 2])| {
            let replicas = nodes.map(|node| ReplicaRecord {
                id: if (*id, node) == (SHARD.0, NODE.0) {
                    crate::shard::fake::REPLICA
                } else {
                    ReplicaId(10 * id + u64::from(node.unsigned_abs()))
                },
                node: NodeId(node),
                directory: Uuid::nil(),
            });
            let record = ShardRecord {
                id: ShardId(*id),
                kind: POOL,
                replicas: replicas.to_vec(),
                adding: Vec::new(),
                leaving: Vec::new(),
                founders: Vec::new(),
                created: RaftIndex(1),
            };
            (record.id, Arc::new(record))
        };
        let mut config = Config::default();
        config.replication.leader_check_interval = Duration::from_secs(60);
        MetadataImage {
            shards: Arc::new(shards.iter().map(record).collect()),
            config: Arc::new(config),
            ..MetadataImage::default()
        }
    }

    #[test]
    fn a_node_is_missed_by_what_it_does_not_lead_of_what_it_is_to_lead() {
        let mut image = image(&[(1, [1, 2]), (2, [1, 2]), (3, [2, 1])]);
        image.partitions_by_shard = Arc::new([(ShardId(1), 8), (ShardId(3), 5)].into_iter().collect());
        let led = |by: [Option<i32>; 3]| move |shard: ShardId| by[usize::try_from(shard.0).unwrap() - 1].map(NodeId);
        assert!(imbalanced(&image, 0, &led([Some(1), Some(1), Some(2)])).is_empty());
        // Shard 2 is one tenth of what node 1 is preferred for.
        let two_is_missing = led([Some(1), Some(2), Some(2)]);
        assert_eq!(imbalanced(&image, 9, &two_is_missing), BTreeMap::from([(NodeId(1), 1)]));
        assert!(imbalanced(&image, 10, &two_is_missing).is_empty());
        assert_eq!(
            imbalanced(&image, 10, &led([Some(1), None, Some(1)])),
            BTreeMap::from([(NodeId(2), 6)]),
            "10 is not above 10"
        );
    }

    #[test]
    fn who_leads_in_anothers_place_hands_over_when_it_has_led_for_a_while() {
        sim::run_twice(3, || async {
            let (group, shard) = FakeGroup::leading(POOL);
            let metadata = FakeMetadata::new(image(&[(SHARD.0, [OTHER.0, NODE.0])]));
            let heir = ReplicaId(10 * SHARD.0 + 2);
            let leads = shard.clone();
            let balancer = Balancer {
                own: NODE,
                metadata: Arc::new(metadata.clone()),
                shards: Box::new({
                    let shard = shard.clone();
                    move || Some(vec![shard.clone()])
                }),
                leader_of: Box::new(move |_| leads.leading().map(|_| NODE)),
            };
            balancer.start();
            rt::sleep(Duration::from_secs(200)).await;
            assert!(shard.leading().is_some(), "the preferred replica could not lead");
            group.heirs.lock().insert(heir);
            rt::sleep(Duration::from_secs(100)).await;
            assert_eq!(shard.role().leader, Some(heir));
            // A leader that changes all the time is left alone.
            for term in 10..40 {
                group.set_role(term, true);
                rt::sleep(Duration::from_secs(7)).await;
                assert!(shard.leading().is_some(), "it has led for 7 s only");
            }
            rt::sleep(Duration::from_secs(100)).await;
            assert_eq!(shard.role().leader, Some(heir));
        });
    }
}
