//! Placement against a model: every choice is checked by itself, on counts computed anew from the image, and no other
//! choice may have been better by the rules.

use std::collections::{BTreeMap, BTreeSet};

use ottla_model::{Random, lives};
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use crate::metadata::command::{Command, NewShard};
use crate::metadata::image::{MetadataImage, NodeRecord, ReplicaRecord, ShardId, ShardKind};
use crate::metadata::placement::{Placement, default_factor, place_assigned, place_in_pool, place_internal};
use crate::metadata::state_machine::MetadataStateMachine;
use crate::metadata::tests::placement::{apply, cluster, node};

/// A shard as the model sees it.
#[derive(Clone)]
struct Seen {
    id: ShardId,
    kind: ShardKind,
    replicas: Vec<ReplicaRecord>,
}

/// The cluster after the choices that were checked.
struct Referee<'a> {
    image: &'a MetadataImage,
    shards: Vec<Seen>,
    given: BTreeMap<ShardId, u64>,
}

impl<'a> Referee<'a> {
    fn new(image: &'a MetadataImage) -> Self {
        let seen = image.shards.values().map(|s| Seen { id: s.id, kind: s.kind, replicas: s.replicas.clone() });
        Self { image, shards: seen.collect(), given: BTreeMap::new() }
    }

    fn replicas(&self) -> impl Iterator<Item = &ReplicaRecord> {
        self.shards.iter().filter(|shard| shard.kind != ShardKind::Metadata).flat_map(|shard| &shard.replicas)
    }

    fn on_node(&self, node: NodeId) -> usize {
        self.replicas().filter(|replica| replica.node == node).count()
    }

    fn led_by(&self, node: NodeId) -> usize {
        let carrying = self.shards.iter().filter(|shard| shard.kind != ShardKind::Metadata);
        carrying.filter(|shard| shard.replicas.first().is_some_and(|first| first.node == node)).count()
    }

    fn in_directory(&self, directory: Uuid) -> u64 {
        self.replicas().filter(|replica| replica.directory == directory).count() as u64
    }

    fn is_whole(&self, shard: &Seen) -> bool {
        shard.replicas.iter().all(|replica| {
            let node = self.image.nodes.get(&replica.node);
            node.is_some_and(|node| node.directories.iter().any(|directory| directory.id == replica.directory))
        })
    }

    /// Partitions of all topics in a shard, and those that this placement gave it.
    fn load(&self, shard: ShardId) -> u64 {
        let routes = self.image.topics.values().flat_map(|topic| topic.partitions.iter());
        let before = routes.filter(|route| route.shard == shard).count() as u64;
        before + self.given.get(&shard).copied().unwrap_or(0)
    }

    /// `id` is new, and each replica is in the emptiest directory of its node.
    fn check_shard(&mut self, new: &NewShard) {
        let newest = self.shards.iter().map(|shard| shard.id.0).max().unwrap_or(0);
        assert!(new.id.0 > newest, "shard {} after {newest}", new.id);
        for replica in &new.replicas {
            let taken = self.replicas().any(|known| known.id >= replica.id);
            assert!(!taken, "replica id {:?} is not new", replica.id);
            let directories = &self.image.nodes[&replica.node].directories;
            let share = |id: Uuid, free_bytes: u64| free_bytes / (self.in_directory(id) + 1);
            let chosen = directories.iter().find(|directory| directory.id == replica.directory).unwrap();
            let best = directories.iter().map(|directory| share(directory.id, directory.free_bytes)).max();
            assert_eq!(Some(share(chosen.id, chosen.free_bytes)), best, "free bytes per replica on {:?}", replica.node);
            // Counted one by one: a shard has at most one replica on a node.
        }
        let nodes: BTreeSet<NodeId> = new.replicas.iter().map(|replica| replica.node).collect();
        assert_eq!(nodes.len(), new.replicas.len(), "two replicas on one node");
        self.shards.push(Seen { id: new.id, kind: new.kind, replicas: new.replicas.clone() });
    }

    /// The nodes of a shard that is not yet counted: fewest led first, then zones that have none yet, then fewest held.
    fn check_nodes(&self, new: &NewShard) {
        let mut chosen: Vec<&NodeRecord> = Vec::new();
        for replica in &new.replicas {
            let candidate = &self.image.nodes[&replica.node];
            let others = self.image.nodes.values().filter(|node| chosen.iter().all(|taken| taken.id != node.id));
            let shares_zone = |node: &NodeRecord| node.rack.is_some() && chosen.iter().any(|c| c.rack == node.rack);
            for other in others {
                let (mine, theirs) = (shares_zone(candidate), shares_zone(other));
                assert!(!mine || theirs, "{:?} shares a zone, {:?} would not", candidate.id, other.id);
                if mine == theirs && chosen.is_empty() {
                    assert!(self.led_by(candidate.id) <= self.led_by(other.id), "{:?} leads more", candidate.id);
                } else if mine == theirs {
                    assert!(self.on_node(candidate.id) <= self.on_node(other.id), "{:?} holds more", candidate.id);
                }
            }
            chosen.push(candidate);
        }
    }

    /// One partition goes to `shard`: none of the candidates carries fewer.
    fn check_partition(&mut self, shard: ShardId, is_candidate: impl Fn(&Seen) -> bool) {
        let candidates: Vec<&Seen> = self.shards.iter().filter(|s| is_candidate(s) && self.is_whole(s)).collect();
        assert!(candidates.iter().any(|candidate| candidate.id == shard), "shard {shard} is no candidate");
        let least = candidates.iter().map(|candidate| self.load(candidate.id)).min();
        assert_eq!(Some(self.load(shard)), least, "shard {shard} was not the emptiest");
        *self.given.entry(shard).or_default() += 1;
    }
}

fn check_pool(image: &MetadataImage, factor: i16, count: usize, placement: &Placement) {
    let kind = ShardKind::Pool { factor, pinned: false };
    let mut referee = Referee::new(image);
    let nodes = image.nodes.len();
    let wanted = nodes * if factor == default_factor(nodes) { 2 } else { 1 };
    let existing = referee.shards.iter().filter(|shard| shard.kind == kind && referee.is_whole(shard)).count();
    assert!(placement.new_shards.len() <= wanted.saturating_sub(existing));
    for new in &placement.new_shards {
        assert_eq!((new.kind, new.replicas.len()), (kind, usize::try_from(factor).unwrap()));
        referee.check_nodes(new);
        referee.check_shard(new);
    }
    for added in placement.new_shards.iter().flat_map(|shard| &shard.replicas) {
        let in_pool = |shard: &&Seen| shard.kind == kind && referee.is_whole(shard);
        let held = referee.shards.iter().filter(in_pool).flat_map(|shard| &shard.replicas);
        assert!(held.filter(|replica| replica.node == added.node).count() <= 9, "too many on {:?}", added.node);
    }
    assert_eq!(placement.shards.len(), count);
    placement.shards.iter().for_each(|shard| referee.check_partition(*shard, |seen| seen.kind == kind));
}

fn check_internal(image: &MetadataImage, kind: ShardKind, factor: i16, count: usize, placement: &Placement) {
    let mut referee = Referee::new(image);
    for new in &placement.new_shards {
        assert_eq!(new.kind, kind);
        referee.check_nodes(new);
        referee.check_shard(new);
    }
    let enough = |seen: &&Seen| seen.replicas.len() >= usize::try_from(factor).unwrap();
    let of_kind = referee.shards.iter().filter(|s| s.kind == kind && referee.is_whole(s));
    let whole: Vec<ShardId> = of_kind.filter(enough).map(|s| s.id).collect();
    let wanted = image.nodes.len().min(3);
    assert!(whole.len() == wanted || (whole.len() > wanted && placement.new_shards.is_empty()));
    assert_eq!(placement.shards.len(), count);
    for (number, shard) in placement.shards.iter().enumerate() {
        assert_eq!(*shard, whole[number % whole.len()]);
    }
}

fn check_assigned(image: &MetadataImage, assignments: &[Vec<NodeId>], placement: &Placement) {
    let mut referee = Referee::new(image);
    let mut made = placement.new_shards.iter();
    assert_eq!(placement.shards.len(), assignments.len());
    for (nodes, shard) in assignments.iter().zip(&placement.shards) {
        let named: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let is_of_these = |seen: &Seen| {
            matches!(seen.kind, ShardKind::Pool { .. })
                && seen.replicas.iter().map(|replica| replica.node).collect::<BTreeSet<_>>() == named
        };
        let order_of = |seen: &Seen| seen.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>();
        let rank = |seen: &Seen| (order_of(seen).first() != nodes.first(), order_of(seen) != *nodes);
        let best = |referee: &Referee<'_>| {
            let fitting = referee.shards.iter().filter(|seen| is_of_these(seen) && referee.is_whole(seen));
            fitting.map(rank).min()
        };
        if best(&referee).is_none_or(|(has_other_leader, _)| has_other_leader) {
            let new = made.next().unwrap();
            let factor = i16::try_from(nodes.len()).unwrap();
            assert_eq!(new.kind, ShardKind::Pool { factor, pinned: true });
            assert!(new.replicas.iter().map(|replica| replica.node).eq(nodes.iter().copied()), "in the order named");
            referee.check_shard(new);
        }
        let best = best(&referee);
        referee.check_partition(*shard, |seen| is_of_these(seen) && Some(rank(seen)) == best);
    }
    assert_eq!(made.count(), 0, "shards that nobody asked for");
}

fn a_node(random: &mut Random) -> NodeRecord {
    let rack = [None, Some("a"), Some("b"), Some("c")][random.index(4)];
    let free: Vec<u64> = (0..random.between(1, 3)).map(|_| random.below(1_000)).collect();
    let mut node = node(i32::try_from(random.between(1, 6)).unwrap(), rack, &free);
    if random.once_in(6) {
        // Its disk was replaced: the shards that had a replica on it are not whole any more.
        node.directories[0].id = Uuid::from_u128(u128::from(random.any()) << 8);
    }
    node
}

fn take(machine: &mut MetadataStateMachine, placement: Placement, topic: u64) {
    let mut commands: Vec<_> = placement.new_shards.into_iter().map(Command::AddShard).collect();
    if !placement.shards.is_empty() {
        commands.push(Command::CreateTopic {
            name: format!("t{topic}"),
            id: Uuid::from_u128(u128::from(topic) + 1),
            internal: false,
            overrides: BTreeMap::new(),
            shards: placement.shards,
        });
    }
    apply(machine, &commands);
}

fn step(random: &mut Random, machine: &mut MetadataStateMachine, topic: u64) {
    let image = machine.image().clone();
    let nodes: Vec<NodeId> = image.nodes.keys().copied().collect();
    let count = random.index(12);
    let placement = match random.below(10) {
        0 | 1 => return apply(machine, &[Command::RegisterNode(a_node(random))]),
        2 => {
            let ids: Vec<Uuid> = image.topics_by_id.keys().copied().collect();
            let gone = random.pick(&ids).map(|id| Command::DeleteTopic { id: *id });
            return gone.into_iter().for_each(|gone| apply(machine, &[gone]));
        }
        3 => {
            let kind = [ShardKind::ConsumerOffsets, ShardKind::TransactionState][random.index(2)];
            let factor = default_factor(nodes.len());
            let placement = place_internal(&image, kind, factor, count);
            check_internal(&image, kind, factor, count, &placement);
            placement
        }
        4 | 5 => {
            let some = |random: &mut Random| {
                let mut left = nodes.clone();
                let wanted = 1 + random.index(nodes.len().min(3));
                (0..wanted).map(|_| left.remove(random.index(left.len()))).collect::<Vec<_>>()
            };
            let assignments: Vec<_> = (0..count).map(|_| some(random)).collect();
            let placement = place_assigned(&image, &assignments);
            check_assigned(&image, &assignments, &placement);
            placement
        }
        _ => {
            let factor = i16::try_from(1 + random.index(nodes.len().min(3))).unwrap();
            let placement = place_in_pool(&image, factor, count);
            check_pool(&image, factor, count, &placement);
            placement
        }
    };
    take(machine, placement, topic);
}

#[test]
fn no_choice_of_placement_could_have_been_better() {
    lives(1_500, 30, |random, steps| {
        let mut machine = cluster(vec![node(1, None, &[100])]);
        (0..steps).for_each(|topic| step(random, &mut machine, topic));
    });
}
