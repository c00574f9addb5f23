//! Preferred-leader balance: a leader that is not its shard's preferred replica transfers leadership there, one shard
//! at a time, so that leaders are spread as placement spread the preferred replicas.
//!
//! Nodes check at different times, and skip a shard whose leader has just changed: a cluster in trouble gets no further
//! changes. A node that is being drained transfers everything it leads. May not know: where replicas are placed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::critical::Owner;
use ottla_env::rt;
use ottla_protocol::ids::NodeId;

use super::transfer;
use crate::metadata::{MetadataImage, ShardId, ShardKind};
use crate::shard::Shard;
use crate::shard::metadata_view::MetadataView;
use crate::shard::rpc::ElectionOutcome;

/// A leader that has led for less is skipped.
const LED_FOR_MIN: Duration = Duration::from_secs(10);
/// Between two transfers by one node.
const TRANSFER_INTERVAL: Duration = Duration::from_millis(500);
/// Between two rounds of a node that is being drained.
const DRAIN_INTERVAL: Duration = Duration::from_secs(1);

/// Transfers leadership of the shards that this node leads while another node is preferred.
pub(in crate::shard) struct PreferredLeaderBalancer {
    pub(in crate::shard) own: NodeId,
    pub(in crate::shard) metadata: Arc<dyn MetadataView>,
    /// The shards of this node; `None` once they are dropped.
    pub(in crate::shard) shards: Box<dyn Fn() -> Option<Vec<Arc<Shard>>> + Send + Sync>,
    /// The node that leads a shard, as far as this node knows.
    pub(in crate::shard) leader_of: Box<dyn Fn(ShardId) -> Option<NodeId> + Send + Sync>,
}

/// Half of the interval plus a random part of it: nodes that started together do not check together.
fn jittered(interval: Duration) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    interval / 2 + Duration::from_nanos(rt::random_u64() % nanos)
}

/// A shard's weight: its partitions plus one.
fn weight(image: &MetadataImage, shard: ShardId) -> u64 {
    1 + image.partitions_by_shard.get(&shard).copied().unwrap_or(0)
}

/// The nodes for which more than `percentage` of the weight for which they are preferred is led by other nodes, each
/// with that weight. All shards count, whichever node leads them.
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

impl PreferredLeaderBalancer {
    /// Runs until the node's shards are dropped.
    pub(in crate::shard) fn start(self) {
        rt::spawn_critical("leader-balancer", Owner::process(), self.run());
    }

    /// True while this node is being drained, and is to lead nothing.
    fn is_draining(&self) -> bool {
        self.metadata.image().nodes.get(&self.own).is_some_and(|node| !node.takes_replicas())
    }

    async fn run(self) {
        let mut images = self.metadata.changes();
        loop {
            let config = self.metadata.image().config.clone();
            let checks_at = rt::now() + jittered(config.replication.leader_check_interval);
            while !self.is_draining() {
                tokio::select! {
                    biased;
                    changed = images.changed() => if changed.is_err() { return },
                    () = rt::sleep_until(checks_at) => break,
                }
            }
            let Some(shards) = (self.shards)() else { return };
            if self.is_draining() {
                self.transfer_all(shards).await;
                rt::sleep(jittered(DRAIN_INTERVAL)).await;
            } else if config.replication.leader_rebalance {
                self.balance(shards, config.replication.leader_imbalance_percentage).await;
            }
        }
    }

    /// Transfers every shard that another replica can lead.
    async fn transfer_all(&self, shards: Vec<Arc<Shard>>) {
        for shard in shards.into_iter().filter(|shard| shard.leading().is_some()) {
            if transfer::elect_preferred(&shard, &*self.metadata).await == ElectionOutcome::Done {
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
            if shard.led_for().is_none_or(|led_for| led_for < LED_FOR_MIN) {
                continue;
            }
            let image = self.metadata.image();
            let id = shard.creation.shard;
            let Some(preferred) = image.shard(id).and_then(|record| image.preferred_leader(record)) else { continue };
            let is_imbalanced = || imbalanced(&image, percentage, &*self.leader_of).contains_key(&preferred.node);
            if preferred.node == self.own || !is_imbalanced() {
                continue;
            }
            if transfer::elect_preferred(&shard, &*self.metadata).await == ElectionOutcome::Done {
                tracing::info!("shard={id}: handed over to its preferred leader on node {}", preferred.node.0);
                rt::sleep(jittered(TRANSFER_INTERVAL)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ottla_env::sim;
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
                split: None,
                merge: None,
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
    fn a_node_is_imbalanced_by_the_weight_it_is_preferred_for_and_does_not_lead() {
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
    fn a_leader_that_is_not_preferred_transfers_leadership_once_it_has_led_for_a_while() {
        sim::run_twice(3, || async {
            let (group, shard) = FakeGroup::leading(POOL);
            let metadata = FakeMetadata::new(image(&[(SHARD.0, [OTHER.0, NODE.0])]));
            let target = ReplicaId(10 * SHARD.0 + 2);
            let leads = shard.clone();
            let balancer = PreferredLeaderBalancer {
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
            group.transfer_targets.lock().insert(target);
            rt::sleep(Duration::from_secs(100)).await;
            assert_eq!(shard.role().leader, Some(target));
            // A leader that changes all the time is skipped.
            for term in 10..40 {
                group.set_role(term, true);
                rt::sleep(Duration::from_secs(7)).await;
                assert!(shard.leading().is_some(), "it has led for 7 s only");
            }
            rt::sleep(Duration::from_secs(100)).await;
            assert_eq!(shard.role().leader, Some(target));
        });
    }
}
