//! Plans a partition reassignment: from the partitions of a request to the shards that are moved, and what is split off
//! before that. A pure function of the image.
//!
//! A partition is on the nodes of its shard. Where a request gives all partitions of a shard the same nodes, the shard is moved;
//! a part of it is split off first, for each list of nodes one shard, and the request is planned anew then. Below the feature
//! level that knows splits a part is refused, and the error lists the partitions that belong together. May not know: which
//! client sent the request, and how a shard is split or moved.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::ids::NodeId;

use super::error::MetadataError;
use super::image::{MetadataImage, ShardId, ShardRecord};
use super::move_plan::{self, Named, PartitionMove, Parts, by_shard, carried, with_ids};
use super::requests::Reassignment;
use super::splits;

/// The most partitions that an error names.
const NAMED_MAX: usize = 20;

/// A plan of moves, each to nodes, preferred leader first.
pub(super) type Plan = move_plan::Plan<Vec<NodeId>>;

/// The requested nodes; `None`: the move is cancelled.
pub(super) type Wanted = Option<Vec<NodeId>>;

impl PartitionMove for Reassignment {
    type Place = Wanted;

    fn partition(&self) -> Named<'_> {
        (&self.topic, self.index)
    }

    fn place(&self) -> &Wanted {
        &self.nodes
    }
}

/// The partitions of a shard that are to go to the same nodes.
struct Part<'a, 'b> {
    nodes: &'a Wanted,
    partitions: &'b BTreeSet<Named<'a>>,
    target: Vec<NodeId>,
}

/// What is decided for one shard.
#[derive(Default)]
struct Decided<'a> {
    /// The same of all partitions of a list.
    refused: BTreeMap<&'a Wanted, MetadataError>,
    moved_to: Option<Vec<NodeId>>,
    split_off: Option<BTreeSet<Named<'a>>>,
}

/// Plans all partitions of a request together.
pub(super) fn plan(image: &MetadataImage, requested: &[Reassignment], may_change_factor: bool) -> Plan {
    let requested_of = by_shard(image, requested);
    let decided: BTreeMap<ShardId, Decided<'_>> =
        requested_of.iter().map(|(shard, parts)| (*shard, decide(image, *shard, parts, may_change_factor))).collect();
    let outcomes =
        move_plan::outcomes(image, requested, |shard, nodes| decided.get(&shard)?.refused.get(nodes).cloned());
    let (mut moves, mut splits) = (BTreeMap::new(), BTreeMap::new());
    for (shard, Decided { moved_to, split_off, .. }) in decided {
        moves.extend(moved_to.map(|nodes| (shard, nodes)));
        splits.extend(split_off.map(|partitions| (shard, with_ids(image, &partitions))));
    }
    Plan { outcomes, moves, splits }
}

fn decide<'a>(
    image: &MetadataImage,
    shard: ShardId,
    requested: &Parts<'a, Wanted>,
    may_change_factor: bool,
) -> Decided<'a> {
    let mut decided = Decided::default();
    let Some(record) = image.shard(shard) else { return decided };
    let carried = carried(image, shard);
    let is_whole = |partitions: &BTreeSet<Named<'_>>| partitions.len() == carried.len();
    // What is left to do: lists that are sound, and say something new.
    let mut wanted: Vec<Part<'_, '_>> = Vec::new();
    for (nodes, partitions) in requested {
        let target = match nodes {
            Some(_) if named_twice(requested, partitions) => Err(contradiction()),
            None if record.is_moving() && !is_whole(partitions) => Err(together(shard, &carried, partitions)),
            _ => target(image, record, nodes, may_change_factor),
        };
        match target {
            Err(error) => _ = decided.refused.insert(nodes, error),
            Ok(target) if !record.is_moving() && target == record.nodes_before() => {}
            Ok(target) => wanted.push(Part { nodes, partitions, target }),
        }
    }
    match wanted.as_mut_slice() {
        [whole] if is_whole(whole.partitions) => decided.moved_to = Some(std::mem::take(&mut whole.target)),
        _ => split_off(image, record, &carried, wanted, &mut decided),
    }
    decided
}

/// Where a shard is to be moved: to these nodes, or back.
pub(super) fn target(
    image: &MetadataImage,
    record: &ShardRecord,
    nodes: &Wanted,
    may_change_factor: bool,
) -> Result<Vec<NodeId>, MetadataError> {
    match nodes {
        Some(nodes) => check(image, record, nodes, may_change_factor).map(|()| nodes.clone()),
        None if record.is_moving() => Ok(record.nodes_before()),
        None => Err(MetadataError::NoReassignmentInProgress),
    }
}

/// Several lists, or one for a part of the shard.
fn split_off<'a>(
    image: &MetadataImage,
    record: &ShardRecord,
    carried: &BTreeSet<Named<'_>>,
    mut wanted: Vec<Part<'a, '_>>,
    decided: &mut Decided<'a>,
) {
    // The largest part comes last, and stays where nothing else does.
    wanted.sort_by_key(|part| part.partitions.len());
    let Some(Part { partitions: first, .. }) = wanted.first() else { return };
    let refused = |error: MetadataError| wanted.iter().map(move |part| (part.nodes, error.clone()));
    if splits::check_level(image).is_err() {
        let error = together(record.id, carried, first);
        decided.refused.extend(refused(error));
    } else if record.is_moving() {
        decided.refused.extend(refused(MetadataError::InvalidReplicaAssignment(format!(
            "The partition is a part of a shard ({}) whose replicas are being moved: it can be moved on its own after that.",
            record.id
        ))));
    } else {
        decided.split_off = Some(first.iter().take(splits::PARTITIONS_MAX).copied().collect());
    }
}

fn named_twice(requested: &Parts<'_, Wanted>, partitions: &BTreeSet<Named<'_>>) -> bool {
    partitions.iter().any(|one| requested.values().filter(|other| other.contains(one)).count() > 1)
}

fn contradiction() -> MetadataError {
    MetadataError::InvalidReplicaAssignment("The partition is named twice, with different replicas.".to_owned())
}

/// These partitions are moved, or stay, with all that the shard carries.
fn together(shard: ShardId, carried: &BTreeSet<Named<'_>>, named: &BTreeSet<Named<'_>>) -> MetadataError {
    let missing: Vec<_> = carried.difference(named).collect();
    let listed = missing.iter().take(NAMED_MAX).map(|(topic, index)| format!("{topic}-{index}"));
    let more = missing.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    MetadataError::InvalidReplicaAssignment(format!(
        "The partition shares a shard ({shard}) with {}{more}: name all of them with the same replicas in one request.",
        listed.collect::<Vec<_>>().join(", ")
    ))
}

fn check(
    image: &MetadataImage,
    record: &ShardRecord,
    nodes: &[NodeId],
    may_change_factor: bool,
) -> Result<(), MetadataError> {
    let invalid = |why: String| Err(MetadataError::InvalidReplicaAssignment(why));
    if nodes.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut seen = BTreeSet::new();
    for node in nodes {
        if !seen.insert(node) {
            return invalid(format!("The manual partition assignment includes the broker {} more than once.", node.0));
        }
        if !image.nodes.contains_key(node) {
            return invalid(format!(
                "The manual partition assignment includes broker {}, but no such broker is registered.",
                node.0
            ));
        }
        if !image.takes_replicas(*node) && record.members().all(|replica| replica.node != *node) {
            return invalid(format!(
                "The manual partition assignment includes broker {}, which is being drained.",
                node.0
            ));
        }
    }
    let before = record.nodes_before().len();
    if !may_change_factor && before != nodes.len() {
        return Err(MetadataError::InvalidReplicationFactor(format!(
            "The replication factor is changed from {before} to {}",
            nodes.len()
        )));
    }
    Ok(())
}
