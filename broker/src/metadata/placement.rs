//! Places replicas of shards on nodes and partitions in shards: pure functions of the image.
//!
//! - The default pool has two shards per node (replication factor min(3, nodes)) and carries all partitions whose topic
//!   requests no other factor or nodes.
//! - A pool for another factor is created on first use, one shard per node.
//! - `__consumer_offsets` and `__transaction_state` are in min(nodes, 3) shards of their own.
//!
//! So a node holds at most 16 Raft groups of the default pool, internal topics and metadata, whatever the number of
//! partitions (tested below). May not know: clocks, randomness, requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::command::NewShard;
use super::image::{MetadataImage, NodeRecord, ReplicaRecord, ShardId, ShardKind, ShardRecord};

/// The replication factor where none is requested, given enough nodes.
const FACTOR: usize = 3;
/// Shards of the default pool for each node.
const DEFAULT_POOL_SHARDS_PER_NODE: usize = 2;
/// The most replicas of one pool on a node. Where a zone has few nodes, each shard needs one of them: there the pool
/// has fewer shards, since a zone's loss must not cost a majority.
const POOL_REPLICAS_PER_NODE_MAX: usize = 9;
/// The most groups on a node: one for the metadata, one pool, two internal topics.
const GROUPS_PER_NODE_MAX: usize = 16;
const _: () = assert!(1 + POOL_REPLICAS_PER_NODE_MAX + 2 * INTERNAL_SHARDS_MAX <= GROUPS_PER_NODE_MAX);
/// The most shards of an internal topic.
const INTERNAL_SHARDS_MAX: usize = 3;

/// The shards of partitions, and the shards that must be created for that first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Shards to be created first.
    pub new_shards: Vec<NewShard>,
    /// The shard of each partition.
    pub shards: Vec<ShardId>,
}

/// The replication factor where none is requested: three, or as many as there are nodes.
#[must_use]
pub fn default_factor(nodes: usize) -> i16 {
    i16::try_from(nodes.clamp(1, FACTOR)).unwrap_or(1)
}

/// The replication factor in force for a requested one: two is raised to three where three nodes exist, since a
/// majority of two is both and the third costs no availability. `None` when there are not enough nodes.
#[must_use]
pub fn factor_in_force(requested: i16, nodes: usize) -> Option<i16> {
    let enough = usize::try_from(requested).is_ok_and(|requested| requested >= 1 && requested <= nodes);
    enough.then_some(if requested == 2 && nodes >= FACTOR { 3 } else { requested })
}

/// Shards of a cluster from which on none is made because an assignment wants another one of the same nodes to lead.
const ORDERED_SHARDS_MAX: usize = 1_024;

/// The load of nodes and directories: counted once, updated as shards are added.
struct Planner<'a> {
    image: &'a MetadataImage,
    replicas: BTreeMap<NodeId, usize>,
    leaders: BTreeMap<NodeId, usize>,
    directories: BTreeMap<Uuid, u64>,
    next_shard_id: u64,
    next_replica_id: u64,
}

impl<'a> Planner<'a> {
    fn new(image: &'a MetadataImage) -> Self {
        let mut planner = Self {
            image,
            replicas: image.nodes.keys().map(|node| (*node, 0)).collect(),
            leaders: image.nodes.keys().map(|node| (*node, 0)).collect(),
            directories: BTreeMap::new(),
            next_shard_id: image.next_shard_id.max(1),
            next_replica_id: image.next_replica_id.max(1),
        };
        for shard in image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata) {
            planner.count(&shard.replicas);
        }
        planner
    }

    fn count(&mut self, replicas: &[ReplicaRecord]) {
        for replica in replicas {
            *self.replicas.entry(replica.node).or_default() += 1;
            *self.directories.entry(replica.directory).or_default() += 1;
        }
        if let Some(first) = replicas.first() {
            *self.leaders.entry(first.node).or_default() += 1;
        }
    }

    /// The directory of `node` with most free bytes for each replica it would then hold.
    fn directory(&self, node: NodeId) -> Uuid {
        let directories = self.image.nodes.get(&node).map(|record| record.directories.as_slice()).unwrap_or_default();
        directories
            .iter()
            .map(|directory| {
                let replicas = self.directories.get(&directory.id).copied().unwrap_or(0);
                if mutants::is_on(Bug::FullestDirectoryTaken) {
                    return (directory.free_bytes, replicas, directory.id);
                }
                (directory.free_bytes / (replicas + 1), u64::MAX - replicas, directory.id)
            })
            .max()
            .map_or_else(Uuid::nil, |(_, _, id)| id)
    }

    fn led_by(&self, node: &NodeRecord) -> usize {
        self.leaders.get(&node.id).copied().unwrap_or(0)
    }

    /// Number of shards that nodes of its zone are to lead.
    fn led_in_zone(&self, node: &NodeRecord) -> usize {
        let in_same_zone =
            |other: &&NodeRecord| other.id == node.id || (node.rack.is_some() && other.rack == node.rack);
        self.image.nodes.values().filter(in_same_zone).map(|node| self.led_by(node)).sum()
    }

    /// `factor` nodes: leaders spread evenly over nodes and zones, replicas in different zones while there are enough,
    /// then evenly.
    fn choose_nodes(&self, factor: usize) -> Vec<NodeId> {
        let factor = factor - usize::from(factor > 1 && mutants::is_on(Bug::PlacedOnOneLess));
        let mut chosen: Vec<NodeId> = Vec::new();
        let mut zones: BTreeSet<Option<&str>> = BTreeSet::new();
        while chosen.len() < factor {
            let best = self.image.nodes.values().filter(|node| !chosen.contains(&node.id)).min_by_key(|node| {
                let leaders = if chosen.is_empty() { (self.led_by(node), self.led_in_zone(node)) } else { (0, 0) };
                let zone_used = node.rack.is_some() && zones.contains(&node.rack.as_deref());
                (!node.takes_replicas(), zone_used, leaders, self.replicas.get(&node.id).copied().unwrap_or(0), node.id)
            });
            let Some(node) = best else { break };
            zones.insert(node.rack.as_deref());
            chosen.push(node.id);
        }
        chosen
    }

    /// A new replica on the node. One of the metadata is in the first directory that the node has registered: that is where
    /// the node looks for it, before it has any metadata.
    fn replica(&mut self, kind: ShardKind, node: NodeId) -> ReplicaRecord {
        let first = || Some(self.image.nodes.get(&node)?.directories.first()?.id);
        let of_metadata = if kind == ShardKind::Metadata { first() } else { None };
        let directory = of_metadata.unwrap_or_else(|| self.directory(node));
        let replica = ReplicaRecord { id: ReplicaId(self.next_replica_id), node, directory };
        self.next_replica_id += 1;
        *self.replicas.entry(node).or_default() += 1;
        *self.directories.entry(replica.directory).or_default() += 1;
        replica
    }

    fn add(&mut self, kind: ShardKind, nodes: &[NodeId]) -> NewShard {
        let id = ShardId(self.next_shard_id);
        self.next_shard_id += 1;
        let replicas: Vec<_> = nodes.iter().map(|node| self.replica(kind, *node)).collect();
        if let Some(first) = nodes.first() {
            *self.leaders.entry(*first).or_default() += 1;
        }
        NewShard { id, kind, replicas }
    }
}

/// True if a replica's directory is registered for its node.
fn has_registered_directory(image: &MetadataImage, replica: &ReplicaRecord) -> bool {
    let node = image.nodes.get(&replica.node);
    let has = |node: &NodeRecord| node.directories.iter().any(|directory| directory.id == replica.directory);
    node.is_some_and(has) || mutants::is_on(Bug::WipedReplicaVotes)
}

/// A shard's replicas once they are on these nodes: replicas that are there stay, also those that were about to leave;
/// the others are new.
#[must_use]
pub fn moved(image: &MetadataImage, shard: &ShardRecord, nodes: &[NodeId]) -> Vec<ReplicaRecord> {
    let mut planner = Planner::new(image);
    let stays = |node: &NodeId| {
        let here = |replica: &&ReplicaRecord| replica.node == *node && has_registered_directory(image, replica);
        let newest = shard.leaving.iter().filter(here).max_by_key(|replica| replica.id);
        shard.replicas.iter().find(here).or(newest)
    };
    nodes.iter().map(|node| stays(node).copied().unwrap_or_else(|| planner.replica(shard.kind, *node))).collect()
}

/// A shard's replicas once the one on `node` is in `directory`: a new one in its place, or one that was about to leave. `None` if it has
/// none there.
#[must_use]
pub fn in_directory(
    image: &MetadataImage,
    shard: &ShardRecord,
    node: NodeId,
    directory: Uuid,
) -> Option<Vec<ReplicaRecord>> {
    let mut replicas = shard.replicas.clone();
    let own = replicas.iter_mut().find(|replica| replica.node == node)?;
    if own.directory != directory {
        let here = |replica: &&ReplicaRecord| (replica.node, replica.directory) == (node, directory);
        let back = shard.leaving.iter().filter(here).max_by_key(|replica| replica.id);
        let new = ReplicaRecord { id: ReplicaId(image.next_replica_id.max(1)), node, directory };
        *own = back.copied().unwrap_or(new);
    }
    Some(replicas)
}

/// The nodes of a shard without those that are drained, each replaced by the best node: another zone, few replicas.
/// `None` if the shard has no replica on a drained node, or no other node can take it.
#[must_use]
pub fn drained(image: &MetadataImage, shard: &ShardRecord) -> Option<Vec<NodeId>> {
    if shard.replicas.iter().all(|replica| image.takes_replicas(replica.node)) {
        return None;
    }
    let planner = Planner::new(image);
    let before: Vec<NodeId> = shard.replicas.iter().map(|replica| replica.node).collect();
    let mut nodes = before.clone();
    for place in 0..nodes.len() {
        if image.takes_replicas(before[place]) {
            continue;
        }
        let others = nodes.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, node)| node);
        let zones: BTreeSet<Option<&str>> =
            others.filter_map(|node| image.nodes.get(node)).map(|node| node.rack.as_deref()).collect();
        let free = image.nodes.values().filter(|node| node.takes_replicas() && !nodes.contains(&node.id));
        let best = free.min_by_key(|node| {
            let zone_used = node.rack.is_some() && zones.contains(&node.rack.as_deref());
            (zone_used, planner.replicas.get(&node.id).copied().unwrap_or(0), node.id)
        });
        if let Some(best) = best {
            nodes[place] = best.id;
        }
    }
    if nodes == before {
        return None;
    }
    // The replaced node was preferred leader of several shards: the node with the fewest preferred leaderships leads
    // this one.
    if nodes.first() != before.first() {
        let leaders = |place: &usize| (planner.leaders.get(&nodes[*place]).copied().unwrap_or(0), *place);
        let staying = (0..nodes.len()).filter(|place| image.takes_replicas(nodes[*place]));
        let first = staying.min_by_key(leaders).unwrap_or(0);
        nodes[..=first].rotate_right(1);
    }
    Some(nodes)
}

/// Shards whose replica on a node is gone, with its directory or because it is `lost`, and their replicas with a new
/// one in its place. The metadata group gets a replica on a node that has none. A shard of fewer than three replicas
/// has no majority from which one could be rebuilt.
#[must_use]
pub fn rebuilt(image: &MetadataImage, node: NodeId, lost: &[ReplicaId]) -> Vec<(Arc<ShardRecord>, Vec<ReplicaRecord>)> {
    let mut planner = Planner::new(image);
    let mut rebuilt = Vec::new();
    for shard in image.shards.values() {
        let mut replicas = shard.replicas.clone();
        let own = replicas.iter_mut().find(|replica| replica.node == node);
        match own {
            Some(own) if has_registered_directory(image, own) && !lost.contains(&own.id) => continue,
            Some(_) if shard.replicas.len() < 3 => continue,
            Some(own) => *own = planner.replica(shard.kind, node),
            None if shard.kind == ShardKind::Metadata => replicas.push(planner.replica(shard.kind, node)),
            None => continue,
        }
        rebuilt.push((Arc::clone(shard), replicas));
    }
    rebuilt
}

/// True when every replica's directory is still registered, and no other shard takes it over: only such a shard takes new
/// partitions.
fn is_whole(image: &MetadataImage, shard: &ShardRecord) -> bool {
    shard.merge.is_none() && shard.replicas.iter().all(|replica| has_registered_directory(image, replica))
}

fn whole_shards(image: &MetadataImage, kind: ShardKind) -> Vec<ShardId> {
    image.shards.values().filter(|shard| shard.kind == kind && is_whole(image, shard)).map(|shard| shard.id).collect()
}

/// The shards that a pool of `factor` lacks: it has two for each node if it is the default pool, else one.
#[must_use]
pub fn missing_pool_shards(image: &MetadataImage, factor: i16) -> Vec<NewShard> {
    let nodes = image.nodes.len();
    let per_node = if factor == default_factor(nodes) { DEFAULT_POOL_SHARDS_PER_NODE } else { 1 };
    let kind = ShardKind::Pool { factor, pinned: false };
    let existing = whole_shards(image, kind);
    let mut on_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    for shard in existing.iter().filter_map(|shard| image.shards.get(shard)) {
        for replica in &shard.replicas {
            *on_node.entry(replica.node).or_default() += 1;
        }
    }
    let mut new_shards = missing(image, kind, factor, (nodes * per_node).saturating_sub(existing.len()));
    let mut has_room = |shard: &NewShard| {
        shard.replicas.iter().all(|replica| {
            let count = on_node.entry(replica.node).or_default();
            *count += 1;
            *count <= POOL_REPLICAS_PER_NODE_MAX
        })
    };
    let room = new_shards.iter().take_while(|shard| has_room(shard)).count();
    new_shards.truncate(room);
    new_shards
}

fn missing(image: &MetadataImage, kind: ShardKind, factor: i16, count: usize) -> Vec<NewShard> {
    let mut planner = Planner::new(image);
    let factor = usize::try_from(factor).unwrap_or(1);
    (0..count)
        .map(|_| {
            let nodes = planner.choose_nodes(factor);
            planner.add(kind, &nodes)
        })
        .collect()
}

/// Assigns each of `count` partitions to the candidate that carries the fewest.
fn spread(image: &MetadataImage, candidates: impl Iterator<Item = ShardId>, count: usize) -> Vec<ShardId> {
    let mut by_load: BTreeSet<(u64, ShardId)> =
        candidates.map(|shard| (image.partitions_by_shard.get(&shard).copied().unwrap_or(0), shard)).collect();
    let mut shards = Vec::with_capacity(count);
    while shards.len() < count {
        let Some((load, shard)) = by_load.pop_first() else { break };
        by_load.insert((load + 1, shard));
        shards.push(shard);
    }
    shards
}

/// Places `count` partitions in the pool of `factor`.
#[must_use]
pub fn place_in_pool(image: &MetadataImage, factor: i16, count: usize) -> Placement {
    let new_shards = missing_pool_shards(image, factor);
    let existing = whole_shards(image, ShardKind::Pool { factor, pinned: false });
    let candidates = existing.into_iter().chain(new_shards.iter().map(|shard| shard.id));
    let shards = spread(image, candidates, count);
    Placement { new_shards, shards }
}

/// Places the partitions of an internal topic in shards of their own, round robin: those of one that was deleted, if there are enough
/// replicas of them.
#[must_use]
pub fn place_internal(image: &MetadataImage, kind: ShardKind, factor: i16, count: usize) -> Placement {
    let wanted = image.nodes.len().clamp(1, INTERNAL_SHARDS_MAX);
    let replicas = |shard: ShardId| image.shard(shard).map_or(0, |record| record.replicas.len());
    let mut existing = whole_shards(image, kind);
    existing.retain(|shard| replicas(*shard) >= usize::try_from(factor).unwrap_or(1));
    let new_shards = missing(image, kind, factor, wanted.saturating_sub(existing.len()));
    let all: Vec<_> = existing.into_iter().chain(new_shards.iter().map(|shard| shard.id)).collect();
    Placement { shards: all.iter().cycle().take(count).copied().collect(), new_shards }
}

/// Places partitions on the nodes assigned to each: in a shard with exactly these nodes and the same first one, which is the preferred
/// leader, created where there is none; in one with the same order if there is one. A cluster that has [`ORDERED_SHARDS_MAX`] shards gets
/// none for another first node alone. One that was split off has been made for what it carries, and takes nothing more.
#[must_use]
pub fn place_assigned(image: &MetadataImage, assignments: &[Vec<NodeId>]) -> Placement {
    let mut planner = Planner::new(image);
    let mut placement = Placement::default();
    let mut pools: BTreeMap<BTreeSet<NodeId>, Vec<(ShardId, Vec<NodeId>)>> = BTreeMap::new();
    for shard in image.shards.values() {
        if matches!(shard.kind, ShardKind::Pool { .. }) && shard.split.is_none() && is_whole(image, shard) {
            let nodes: Vec<NodeId> = shard.replicas.iter().map(|replica| replica.node).collect();
            pools.entry(nodes.iter().copied().collect()).or_default().push((shard.id, nodes));
        }
    }
    let mut taken: BTreeMap<ShardId, u64> = BTreeMap::new();
    for nodes in assignments {
        let pool = pools.entry(nodes.iter().copied().collect()).or_default();
        let is_full = image.shards.len() + placement.new_shards.len() >= ORDERED_SHARDS_MAX;
        if pool.is_empty() || !is_full && !pool.iter().any(|(_, order)| order.first() == nodes.first()) {
            let factor = i16::try_from(nodes.len()).unwrap_or(i16::MAX);
            let shard = planner.add(ShardKind::Pool { factor, pinned: true }, nodes);
            pool.push((shard.id, nodes.clone()));
            placement.new_shards.push(shard);
        }
        let load = |shard: &ShardId| {
            let before = image.partitions_by_shard.get(shard).copied().unwrap_or(0);
            (before + taken.get(shard).copied().unwrap_or(0), *shard)
        };
        let rank = |(shard, order): &(ShardId, Vec<NodeId>)| {
            let (has_other_leader, has_other_order) = (order.first() != nodes.first(), order != nodes);
            (has_other_leader, has_other_order, load(shard))
        };
        if let Some((shard, _)) = pool.iter().min_by_key(|known| rank(known)) {
            *taken.entry(*shard).or_default() += 1;
            placement.shards.push(*shard);
        }
    }
    placement
}
