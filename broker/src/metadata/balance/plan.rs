//! Which replicas and leaderships go elsewhere: a pure function of the image, the load, and what was done lately.
//!
//! Each node has three shares: replicas that it holds, shards that it is to lead, and bytes a second that it takes in and sends out.
//! The cluster's unevenness is the sum over all nodes and shares of (share / mean)^2. A step is taken if it lowers that, and if one
//! of the shares of the two nodes differs by more than a fifth of the mean: load that varies moves nothing, and as each step lowers
//! the unevenness none is ever taken back for the same load. A leadership costs less to move than a replica and goes first.
//!
//! What stays where it is:
//! - shards that are being moved or resized, that have a replica on a node that is down or drained, or that rest, as do those of a topic
//!   that was given or that lost a shard;
//! - a replica does not come back within an hour to a node that it left, whatever the load;
//! - shards that were assigned by hand, unless their topics ask for a number of shards (`ottla.shard.count`).
//!
//! A replica goes to no zone where the shard has one while it leaves one where it has none, and to no directory that is nearly full.
//! May not know: clocks, how often it is asked, how a shard is moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::history::Recent;
use super::load::{ClusterLoad, rate};
use super::on_demand;
use crate::codec::record;
use crate::metadata::action::{Action, Change};
use crate::metadata::image::{MetadataImage, NodeRecord, ShardId, ShardKind, ShardRecord};
use crate::metadata::{moves, placement, topic_shards};

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
pub(super) fn plan(image: &MetadataImage, load: &ClusterLoad, recent: &Recent) -> Vec<Action> {
    let mut after = image.clone();
    let managed = topic_shards::managed(image);
    let stays = |shard: &ShardRecord| recent.resting.contains(&shard.id) || !may_move(image, &managed, shard);
    let mut resting: BTreeSet<_> = image.shards.values().filter(|shard| stays(shard)).map(|shard| shard.id).collect();
    // What is moved cannot be split: the shards of a topic that grows stay where they are until it has what it needs.
    let topics = recent.topics.iter().filter_map(|topic| image.topic_by_id(topic));
    resting.extend(topics.flat_map(|topic| on_demand::splits_soon(image, load, topic)));
    let mut actions = Vec::new();
    while actions.len() < STEPS_MAX {
        let Some(step) = best_step(&after, load, recent, &resting) else { break };
        let Some(record) = after.shard(step.shard.id).cloned() else { break };
        let replicas = placement::moved(&after, &record, &step.nodes);
        drop(moves::set_replicas(&mut after, &record, replicas));
        // Its replicas have other ids once this is carried out.
        resting.insert(record.id);
        actions.push(step.action());
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

/// A step that could be taken.
struct Step {
    gain: f64,
    shard: Arc<ShardRecord>,
    nodes: Vec<NodeId>,
    from: NodeShare,
    to: NodeShare,
    why: Why,
}

/// What a step is for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    Election,
    Move,
    ToNewZone,
    /// The part of its directory that is free.
    FromFullDisk(f64),
}

impl Step {
    fn action(&self) -> Action {
        let (shard, from, to) = (self.shard.id, self.from.node, self.to.node);
        let (from_has, to_has) = (told(&self.from), told(&self.to));
        let goes = || format!("a replica of shard {shard} goes to node {to} ({to_has}) from node {from} ({from_has})");
        let reason = match self.why {
            Why::Election => format!("shard {shard} is led by node {to} ({to_has}) and not by {from} ({from_has})"),
            Why::Move => goes(),
            Why::ToNewZone => format!("{}, into a zone that has none", goes()),
            Why::FromFullDisk(free) => format!("{}, whose disk has {:.0} % free", goes(), free * 100.0),
        };
        let before = self.shard.replicas.iter().map(|replica| replica.id).collect();
        Action { change: Change::Replicas { shard, before, nodes: self.nodes.clone() }, reason }
    }
}

fn best_step(image: &MetadataImage, load: &ClusterLoad, recent: &Recent, resting: &BTreeSet<ShardId>) -> Option<Step> {
    let shares = Shares::of(image, load);
    let means = Means {
        replicas: shares.mean(|share| share.replicas).max(1.0),
        leads: shares.mean(|share| share.leads).max(1.0),
        bytes: shares.mean(|share| share.bytes).max(IDLE_BELOW),
    };
    let planner = Planner { image, load, recent, shares: &shares.0, means };
    let movable: Vec<_> = image.shards.values().filter(|shard| !resting.contains(&shard.id)).collect();
    let best = |steps: Vec<Step>| {
        let worth = steps.into_iter().filter(|step| step.gain >= GAIN_MIN);
        // The first of equals, so that the outcome does not depend on the order of floating point.
        worth.reduce(|best, other| if other.gain > best.gain { other } else { best })
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
    recent: &'a Recent,
    shares: &'a BTreeMap<NodeId, NodeShare>,
    means: Means,
}

impl Planner<'_> {
    /// How much less uneven the cluster is if `give` goes from one node to another.
    fn gain(&self, from: &NodeShare, to: &NodeShare, give: &NodeShare) -> f64 {
        let with = |share: &NodeShare, change: fn(u64, u64) -> u64| {
            self.means.unevenness(NodeShare {
                replicas: change(share.replicas, give.replicas),
                leads: change(share.leads, give.leads),
                bytes: change(share.bytes, give.bytes),
                ..*share
            })
        };
        let before = self.means.unevenness(*from) + self.means.unevenness(*to);
        before - with(from, u64::saturating_sub) - with(to, u64::saturating_add)
    }

    /// The other replicas that might lead the shard.
    fn elections(&self, shard: &Arc<ShardRecord>) -> Vec<Step> {
        let nodes = shard.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>();
        let Some(from) = nodes.first().and_then(|node| self.shares.get(node)) else { return Vec::new() };
        let more = bytes(self.load, shard, true) - bytes(self.load, shard, false);
        let step = |place: usize| {
            let to = self.shares.get(&nodes[place]).filter(|to| self.means.differ(from, to, false))?;
            let gain = self.gain(from, to, &NodeShare { replicas: 0, leads: 1, bytes: more, ..*from });
            let mut nodes = nodes.clone();
            nodes[..=place].rotate_right(1);
            Some(Step { gain, shard: Arc::clone(shard), nodes, from: *from, to: *to, why: Why::Election })
        };
        (1..nodes.len()).filter_map(step).collect()
    }

    /// The other nodes that might take one of its replicas.
    fn moves(&self, shard: &Arc<ShardRecord>) -> Vec<Step> {
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
                let why = match (free, zones) {
                    (Some(free), _) => Why::FromFullDisk(free),
                    (None, Zones::More) => Why::ToNewZone,
                    (None, Zones::AsMany) => Why::Move,
                };
                let returns = self.recent.left.contains(&(shard.id, to.node));
                if why == Why::Move && (returns || !self.means.differ(from, to, true)) {
                    continue;
                }
                let relief = if why == Why::Move { 0.0 } else { MISPLACED_COST };
                let gain = self.gain(from, to, &give) + relief;
                let mut nodes = nodes.clone();
                nodes[place] = to.node;
                steps.push(Step { gain, shard: Arc::clone(shard), nodes, from: *from, to: *to, why });
            }
        }
        steps
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
