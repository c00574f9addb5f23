//! Plans a partition reassignment: from the partitions of a request to the shards that are moved. A pure function of
//! the image.
//!
//! A partition is on the nodes of its shard. As long as shards cannot be split, a request moves a shard only if it
//! names all partitions that the shard carries, with the same replicas for each; otherwise the error lists the
//! partitions that belong together. May not know: which client sent the request, and how a shard is moved.

use std::collections::{BTreeMap, BTreeSet};

use ottla_protocol::ids::NodeId;

use super::error::MetadataError;
use super::image::{MetadataImage, ShardId, ShardRecord};
use super::requests::Reassignment;

/// The most partitions that an error names.
const NAMED_MAX: usize = 20;

/// The plan for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// For each requested partition, in order: the shard that is moved for it, or why none is.
    pub(super) outcomes: Vec<Result<ShardId, MetadataError>>,
    /// The nodes to which each shard is moved, preferred leader first.
    pub(super) moves: BTreeMap<ShardId, Vec<NodeId>>,
}

/// What a request contains for one shard.
#[derive(Default)]
struct Requested<'a> {
    partitions: BTreeSet<(&'a str, i32)>,
    /// The requested nodes: more than one value if the request contradicts itself.
    wanted: Vec<&'a Option<Vec<NodeId>>>,
}

/// Plans all partitions of a request together.
pub(super) fn plan(image: &MetadataImage, requested: &[Reassignment], may_change_factor: bool) -> Plan {
    let mut by_shard: BTreeMap<ShardId, Requested<'_>> = BTreeMap::new();
    let shard_of = |one: &Reassignment| image.topic(&one.topic)?.route(one.index).map(|route| route.shard);
    for one in requested {
        let Some(shard) = shard_of(one) else { continue };
        let of_shard = by_shard.entry(shard).or_default();
        of_shard.partitions.insert((&one.topic, one.index));
        if !of_shard.wanted.contains(&&one.nodes) {
            of_shard.wanted.push(&one.nodes);
        }
    }
    let decided: BTreeMap<ShardId, Result<Vec<NodeId>, MetadataError>> = by_shard
        .iter()
        .map(|(shard, requested)| (*shard, decide(image, *shard, requested, may_change_factor)))
        .collect();
    let outcome = |one: &Reassignment| {
        let shard = shard_of(one).ok_or(MetadataError::UnknownTopic)?;
        match decided.get(&shard) {
            Some(Ok(_)) => Ok(shard),
            Some(Err(error)) => Err(error.clone()),
            None => Err(MetadataError::UnknownTopic),
        }
    };
    let outcomes = requested.iter().map(outcome).collect();
    let moves = decided.into_iter().filter_map(|(shard, nodes)| Some((shard, nodes.ok()?))).collect();
    Plan { outcomes, moves }
}

fn decide(
    image: &MetadataImage,
    shard: ShardId,
    requested: &Requested<'_>,
    may_change_factor: bool,
) -> Result<Vec<NodeId>, MetadataError> {
    let record = image.shard(shard).ok_or(MetadataError::UnknownTopic)?;
    let [wanted] = requested.wanted.as_slice() else {
        return Err(MetadataError::InvalidReplicaAssignment(format!(
            "These partitions lie in one shard ({shard}) and are moved together: name the same replicas for all of them."
        )));
    };
    if let Some(nodes) = wanted {
        check(image, record, nodes, may_change_factor)?;
    }
    let carried = carried(image, shard);
    let missing: Vec<_> = carried.iter().filter(|partition| !requested.partitions.contains(*partition)).collect();
    if !missing.is_empty() {
        return Err(incomplete(shard, &missing));
    }
    match wanted {
        Some(nodes) => Ok(nodes.clone()),
        None if record.is_moving() => Ok(record.nodes_before()),
        None => Err(MetadataError::NoReassignmentInProgress),
    }
}

/// The partitions that a shard carries.
fn carried(image: &MetadataImage, shard: ShardId) -> BTreeSet<(&str, i32)> {
    let topics =
        image.topics.values().flat_map(|topic| topic.routed_to(shard).map(|(index, _)| (topic.name.as_ref(), index)));
    topics.collect()
}

fn incomplete(shard: ShardId, missing: &[&(&str, i32)]) -> MetadataError {
    let named = missing.iter().take(NAMED_MAX).map(|(topic, index)| format!("{topic}-{index}"));
    let more = missing.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    MetadataError::InvalidReplicaAssignment(format!(
        "The partition shares a shard ({shard}) with {}{more}: name all of them with the same replicas in one request; \
         a part of a shard cannot be moved.",
        named.collect::<Vec<_>>().join(", ")
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
