//! Which replicas and leaderships go elsewhere: a pure function of the image, the load, and the shards that rest.
//!
//! Each node has three shares: replicas that it holds, shards that it is to lead, and bytes a second that it takes in and sends out.
//! The cluster's unevenness is the sum over all nodes and shares of (share / mean)^2. A step is taken if it lowers that, and if one
//! of the shares of the two nodes differs by more than a fifth of the mean: load that varies moves nothing, and as each step lowers
//! the unevenness none is ever taken back for the same load. A leadership costs less to move than a replica and goes first.
//!
//! What stays where it is:
//! - shards that are being moved or resized, that have a replica on a node that is down or drained, or that rest;
//! - shards that were assigned by hand, unless their topics ask for a number of shards (`ottla.shard.count`).
//!
//! A replica goes to no zone where the shard has one while it leaves one where it has none, and to no directory that is nearly full.
//! May not know: clocks, how often it is asked, how a shard is moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::action::{Action, Change, rate};
use super::load::ClusterLoad;
use crate::codec::record;
use crate::metadata::image::{MetadataImage, NodeRecord, ShardId, ShardKind, ShardRecord};
use crate::metadata::{placement, topic_shards};

/// The most steps of one plan.
const STEPS_MAX: usize = 64;
/// The part of the mean by which two nodes have to differ.
const TOLERANCE: f64 = 0.2;
/// A cluster whose nodes have less to do on average is taken for idle, bytes a second.
const IDLE_BELOW: f64 = 4_194_304.0;
/// A step that lowers the unevenness by less is not worth it.
const GAIN_MIN: f64 = 0.002;
/// A directory with less free space gives replicas away, and one with less than twice as much takes none.
const FREE_MIN: f64 = 0.05;
/// What a replica in a directory that is nearly full adds to the unevenness, and one in a zone in which its shard has another while
/// there is a zone without.
const MISPLACED_COST: f64 = 1.0;

/// What one node has of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeShare {
    /// The node.
    pub node: NodeId,
    /// Replicas that it holds.
    pub replicas: u64,
    /// Shards that it is to lead.
    pub leads: u64,
    /// Bytes a second that it takes in and sends out.
    pub bytes: u64,
}

record! {
    NodeShare { node, replicas, leads, bytes }
}

/// The shares of all nodes.
pub(super) fn shares(image: &MetadataImage, load: &ClusterLoad) -> Vec<NodeShare> {
    Shares::of(image, load).0.into_values().collect()
}

/// The steps that are due, in their order.
pub(super) fn plan(image: &MetadataImage, load: &ClusterLoad, resting: &BTreeSet<ShardId>) -> Vec<Action> {
    let mut after = image.clone();
    let managed = topic_shards::managed(image);
    let stays = |shard: &ShardRecord| resting.contains(&shard.id) || !may_move(image, &managed, shard);
    let mut resting: BTreeSet<_> = image.shards.values().filter(|shard| stays(shard)).map(|shard| shard.id).collect();
    let mut actions = Vec::new();
    while actions.len() < STEPS_MAX {
        let Some(step) = best_step(&after, load, &resting) else { break };
        let Change::Replicas { shard, nodes, .. } = &step.change else { break };
        let Some(record) = after.shard(*shard).cloned() else { break };
        let replicas = placement::moved(&after, &record, nodes);
        let last = replicas.iter().map(|replica| replica.id.0.saturating_add(1)).max();
        after.next_replica_id = after.next_replica_id.max(last.unwrap_or(0));
        Arc::make_mut(&mut after.shards).insert(*shard, Arc::new(ShardRecord { replicas, ..(*record).clone() }));
        // Its replicas have other ids once this is carried out.
        resting.insert(*shard);
        actions.push(step);
    }
    actions
}

struct Shares(BTreeMap<NodeId, NodeShare>);

impl Shares {
    fn of(image: &MetadataImage, load: &ClusterLoad) -> Self {
        let none = |node: NodeId| NodeShare { node, replicas: 0, leads: 0, bytes: 0 };
        let mut shares: BTreeMap<_, _> = image.nodes.keys().map(|node| (*node, none(*node))).collect();
        for shard in image.shards.values().filter(|shard| shard.kind != ShardKind::Metadata) {
            let leader = image.preferred_leader(shard).map(|replica| replica.id);
            for replica in &shard.replicas {
                let Some(share) = shares.get_mut(&replica.node) else { continue };
                let leads = Some(replica.id) == leader;
                share.replicas += 1;
                share.leads += u64::from(leads);
                share.bytes += bytes(load, shard, leads);
            }
        }
        Self(shares)
    }

    fn mean(&self, share: impl Fn(&NodeShare) -> u64) -> f64 {
        let all: u64 = self.0.values().map(share).sum();
        all as f64 / self.0.len().max(1) as f64
    }
}

/// What a replica of the shard has its node take in and send out, bytes a second.
fn bytes(load: &ClusterLoad, shard: &ShardRecord, leads: bool) -> u64 {
    let load = load.of(shard.id);
    let followers = shard.replicas.len().saturating_sub(1) as u64;
    if leads { load.bytes_in.saturating_mul(followers + 1).saturating_add(load.bytes_out) } else { load.bytes_in }
}

/// The means, below which nothing is divided.
struct Means {
    replicas: f64,
    leads: f64,
    bytes: f64,
}

impl Means {
    fn unevenness(&self, share: NodeShare) -> f64 {
        let square = |share: u64, mean: f64| (share as f64 / mean).powi(2);
        square(share.replicas, self.replicas) + square(share.leads, self.leads) + square(share.bytes, self.bytes)
    }

    /// True if the first node has so much more than the other that something should go.
    fn differ(&self, more: &NodeShare, less: &NodeShare, replicas: bool) -> bool {
        let counts = |more: u64, less: u64, mean: f64| {
            let by = more.saturating_sub(less);
            by >= 2 && by as f64 > TOLERANCE * mean
        };
        let replicas = replicas && counts(more.replicas, less.replicas, self.replicas);
        let bytes = more.bytes.saturating_sub(less.bytes) as f64 > TOLERANCE * self.bytes;
        replicas || bytes || counts(more.leads, less.leads, self.leads)
    }
}

fn best_step(image: &MetadataImage, load: &ClusterLoad, resting: &BTreeSet<ShardId>) -> Option<Action> {
    let shares = Shares::of(image, load);
    let means = Means {
        replicas: shares.mean(|share| share.replicas).max(1.0),
        leads: shares.mean(|share| share.leads).max(1.0),
        bytes: shares.mean(|share| share.bytes).max(IDLE_BELOW),
    };
    let planner = Planner { image, load, shares: &shares.0, means };
    let movable: Vec<_> = image.shards.values().filter(|shard| !resting.contains(&shard.id)).collect();
    let best = |steps: Vec<(f64, Action)>| {
        let worth = steps.into_iter().filter(|(gain, _)| *gain >= GAIN_MIN);
        // The first of equals, so that the outcome does not depend on the order of floating point.
        worth.reduce(|best, other| if other.0 > best.0 { other } else { best }).map(|(_, action)| action)
    };
    let elections = movable.iter().flat_map(|shard| planner.elections(shard)).collect();
    best(elections).or_else(|| best(movable.iter().flat_map(|shard| planner.moves(shard)).collect()))
}

/// See the head of the file.
fn may_move(image: &MetadataImage, managed: &BTreeSet<ShardId>, shard: &ShardRecord) -> bool {
    let at_rest = shard.kind != ShardKind::Metadata && !shard.is_moving() && !image.is_resizing(shard.id);
    let serves = |node: NodeId| image.takes_replicas(node) && !image.is_fenced(node);
    let by_hand = matches!(shard.kind, ShardKind::Pool { pinned: true, .. }) && !managed.contains(&shard.id);
    at_rest && !by_hand && shard.replicas.iter().all(|replica| serves(replica.node))
}

struct Planner<'a> {
    image: &'a MetadataImage,
    load: &'a ClusterLoad,
    shares: &'a BTreeMap<NodeId, NodeShare>,
    means: Means,
}

impl Planner<'_> {
    /// How much less uneven the cluster is if `give` goes from one node to another.
    fn gain(&self, from: &NodeShare, to: &NodeShare, give: &NodeShare) -> f64 {
        let less = |share: &NodeShare| NodeShare {
            replicas: share.replicas.saturating_sub(give.replicas),
            leads: share.leads.saturating_sub(give.leads),
            bytes: share.bytes.saturating_sub(give.bytes),
            ..*share
        };
        let more = |share: &NodeShare| NodeShare {
            replicas: share.replicas + give.replicas,
            leads: share.leads + give.leads,
            bytes: share.bytes + give.bytes,
            ..*share
        };
        let of = |share: NodeShare| self.means.unevenness(share);
        of(*from) + of(*to) - of(less(from)) - of(more(to))
    }

    /// The other replicas that might lead the shard.
    fn elections(&self, shard: &ShardRecord) -> Vec<(f64, Action)> {
        let nodes = shard.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>();
        let Some(from) = nodes.first().and_then(|node| self.shares.get(node)) else { return Vec::new() };
        let more = bytes(self.load, shard, true) - bytes(self.load, shard, false);
        let step = |place: usize| {
            let to = self.shares.get(&nodes[place]).filter(|to| self.means.differ(from, to, false))?;
            let gain = self.gain(from, to, &NodeShare { replicas: 0, leads: 1, bytes: more, ..*from });
            let mut nodes = nodes.clone();
            nodes[..=place].rotate_right(1);
            let (to_has, from_has) = (told(to), told(from));
            let reason = format!(
                "shard {} is led by node {} ({to_has}) and not by {} ({from_has})",
                shard.id, to.node, from.node
            );
            Some((gain, self.action(shard, nodes, reason)))
        };
        (1..nodes.len()).filter_map(step).collect()
    }

    /// The other nodes that might take one of its replicas.
    fn moves(&self, shard: &ShardRecord) -> Vec<(f64, Action)> {
        let nodes = shard.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>();
        let mut steps = Vec::new();
        for (place, replica) in shard.replicas.iter().enumerate() {
            let Some(from) = self.shares.get(&replica.node) else { continue };
            let free = self.load.free_part(replica.directory).filter(|free| *free < FREE_MIN);
            let leads = place == 0;
            let give =
                NodeShare { replicas: 1, leads: u64::from(leads), bytes: bytes(self.load, shard, leads), ..*from };
            for to in self.shares.values() {
                let Some(zones) = self.takes(&nodes, place, to.node) else { continue };
                let misplaced = free.is_some() || zones == Zones::More;
                if !misplaced && !self.means.differ(from, to, true) {
                    continue;
                }
                let mut nodes = nodes.clone();
                nodes[place] = to.node;
                let why = match (free, zones) {
                    (Some(free), _) => format!(", whose disk has {:.0} % free", free * 100.0),
                    (None, Zones::More) => ", into a zone that has none".to_owned(),
                    (None, Zones::AsMany) => String::new(),
                };
                let (to_has, from_has) = (told(to), told(from));
                let reason = format!(
                    "a replica of shard {} goes to node {} ({to_has}) from node {} ({from_has}){why}",
                    shard.id, to.node, from.node
                );
                let relief = if misplaced { MISPLACED_COST } else { 0.0 };
                steps.push((self.gain(from, to, &give) + relief, self.action(shard, nodes, reason)));
            }
        }
        steps
    }

    fn action(&self, shard: &ShardRecord, nodes: Vec<NodeId>, reason: String) -> Action {
        let before = shard.replicas.iter().map(|replica| replica.id).collect();
        Action { change: Change::Replicas { shard: shard.id, before, nodes }, reason }
    }

    /// What becomes of the shard's zones if a node has the replica at this place instead; `None` if it may not have it.
    fn takes(&self, nodes: &[NodeId], place: usize, to: NodeId) -> Option<Zones> {
        let record = |node: &NodeId| self.image.nodes.get(node);
        let serves = |node: &&NodeRecord| node.takes_replicas() && !node.is_fenced() && !nodes.contains(&node.id);
        let node = record(&to).filter(serves)?;
        let free = |directory| self.load.free_part(directory).unwrap_or(1.0);
        node.directories.iter().find(|directory| free(directory.id) >= 2.0 * FREE_MIN)?;
        let others = nodes.iter().filter(|other| **other != nodes[place]).filter_map(record);
        let others: BTreeSet<Option<&str>> = others.map(|other| other.rack.as_deref()).collect();
        let is_new = |rack: &Option<String>| rack.is_some() && !others.contains(&rack.as_deref());
        match (record(&nodes[place]).is_some_and(|from| is_new(&from.rack)), is_new(&node.rack)) {
            (true, false) => None,
            (false, true) => Some(Zones::More),
            (true, true) | (false, false) => Some(Zones::AsMany),
        }
    }
}

/// The zones in which a shard has replicas, after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zones {
    AsMany,
    More,
}

/// A node's shares, for people.
fn told(share: &NodeShare) -> String {
    let NodeShare { replicas, leads, bytes, .. } = share;
    format!("replicas: {replicas}, leads: {leads}, {}", rate(*bytes))
}
