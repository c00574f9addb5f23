//! Decides merges of shards: one shard takes over all that another one carries (design section 8).
//!
//! Both logs carry a merge out, step by step; what an operator or a leader requests or reports is decided here, on the record
//! that the absorbed shard has of it. Pure functions of the image. May not know: how a state is taken over, and why.

use super::command::Command;
use super::error::{MetadataError, invalid};
use super::features;
use super::image::{MetadataImage, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use super::merge_record::{MergePhase, MergeRecord, MergeReplica, MergeStep};
use super::splits::at_rest;

/// Fails below the feature level from which on shards are merged.
pub(super) fn check_level(image: &MetadataImage) -> Result<(), MetadataError> {
    features::require(image, MergeRecord::LEVEL, "Shards can be merged")
}

/// The command for a step; none where it changes nothing, since it was recorded before or is not due any more.
///
/// # Errors
/// When the shards cannot be merged.
pub(super) fn decide(image: &MetadataImage, step: &MergeStep) -> Result<Option<Command>, MetadataError> {
    match step {
        MergeStep::Begin { survivor, absorbed } => begin(image, *survivor, *absorbed)?,
        MergeStep::Cancel { absorbed, .. } => {
            let merge = image.shard(*absorbed).and_then(|record| record.merge.as_ref());
            match merge.map(|merge| merge.phase) {
                None => return Err(invalid(format!("Shard {absorbed} is not being merged."))),
                Some(MergePhase::Absorb | MergePhase::Drain) => {
                    return Err(invalid(format!("The merge of shard {absorbed} cannot be cancelled any more.")));
                }
                Some(MergePhase::Seal | MergePhase::Cancel) => {}
            }
        }
        _ => {}
    }
    Ok(is_due(image, step).then_some(Command::Merge(*step)))
}

/// True if a step changes the record as it is.
pub(super) fn is_due(image: &MetadataImage, step: &MergeStep) -> bool {
    let merge = image.shard(step.absorbed()).and_then(|record| record.merge.as_ref());
    let is_at = |intent: &_, phases: &[MergePhase]| {
        merge.is_some_and(|merge| merge.intent == *intent && phases.contains(&merge.phase))
    };
    match step {
        MergeStep::Begin { survivor, absorbed } => begin(image, *survivor, *absorbed).is_ok(),
        MergeStep::Sealed { intent, .. } | MergeStep::Cancel { intent, .. } => is_at(intent, &[MergePhase::Seal]),
        MergeStep::Cancelled { intent, .. } => is_at(intent, &[MergePhase::Cancel]),
        MergeStep::Absorbed { intent, .. } => is_at(intent, &[MergePhase::Absorb]),
        MergeStep::TakenOver { replica, .. } => merge.is_some_and(|merge| {
            merge.phase == MergePhase::Drain && merge.replicas.iter().any(|pair| pair.survivor == *replica)
        }),
    }
}

fn begin(image: &MetadataImage, survivor: ShardId, absorbed: ShardId) -> Result<(), MetadataError> {
    check_level(image)?;
    let (into, from) = (at_rest(image, survivor)?, at_rest(image, absorbed)?);
    if survivor == absorbed {
        return Err(invalid(format!("Shard {survivor} cannot be merged with itself.")));
    }
    // A replica of it that is behind could not come to the merge that ends it.
    if let Some((drained, _)) = image.merges().find(|(_, merge)| merge.survivor == absorbed) {
        return Err(invalid(format!("Shard {absorbed} is taking over shard {}: try again.", drained.id)));
    }
    if !are_alike(into.kind, from.kind) {
        return Err(invalid(format!("Shard {absorbed} carries other topics than shard {survivor} may carry.")));
    }
    if matches!(from.kind, ShardKind::Pool { pinned: false, .. }) {
        return Err(invalid(format!("Shard {absorbed} belongs to the default pool, which keeps its shards.")));
    }
    if pairs(into, from).is_none() {
        let what = format!(
            "Shards {absorbed} and {survivor} do not have their replicas in the same data directories of the same nodes: move shard {absorbed} first."
        );
        return Err(invalid(what));
    }
    Ok(())
}

/// True if one shard may carry what the other one carries.
fn are_alike(into: ShardKind, from: ShardKind) -> bool {
    match (into, from) {
        (ShardKind::Pool { factor: into, .. }, ShardKind::Pool { factor: from, .. }) => into == from,
        _ => into == from,
    }
}

/// For each replica of the absorbed shard that of the survivor in its directory; `None` if they do not lie side by side.
pub(super) fn pairs(into: &ShardRecord, from: &ShardRecord) -> Option<Vec<MergeReplica>> {
    let beside = |absorbed: &ReplicaRecord| {
        let place = (absorbed.node, absorbed.directory);
        let survivor = into.replicas.iter().find(|replica| (replica.node, replica.directory) == place)?;
        Some(MergeReplica { survivor: survivor.id, absorbed: absorbed.id })
    };
    let pairs: Option<Vec<_>> = from.replicas.iter().map(beside).collect();
    pairs.filter(|pairs| pairs.len() == into.replicas.len())
}

/// True if the record of a shard is to be removed: it was absorbed and no replica needs it any more, or it was made for
/// partitions that are all gone, and no other one that is here was split off it: after a crash it alone may give that its state.
pub(super) fn is_spent(image: &MetadataImage, record: &ShardRecord) -> bool {
    if image.level < MergeRecord::LEVEL || image.partitions_by_shard.get(&record.id).is_some_and(|count| *count > 0) {
        return false;
    }
    match &record.merge {
        Some(merge) => {
            let members = image.shard(merge.survivor).map(|survivor| survivor.members().map(|replica| replica.id));
            let members: Vec<_> = members.into_iter().flatten().collect();
            merge.phase == MergePhase::Drain && merge.replicas.iter().all(|pair| !members.contains(&pair.survivor))
        }
        None => {
            matches!(record.kind, ShardKind::Pool { pinned: true, .. })
                && !record.is_moving()
                && !image.is_resizing(record.id)
                && image.first_intent_of(record.id).is_none()
                && !image
                    .shards
                    .values()
                    .any(|child| child.split.as_ref().is_some_and(|split| split.parent == record.id))
        }
    }
}

/// The shards that are to be removed now.
pub(super) fn spent(image: &MetadataImage) -> Vec<Command> {
    let spent = image.shards.values().filter(|record| is_spent(image, record));
    spent.map(|record| Command::DropShard { shard: record.id }).collect()
}
