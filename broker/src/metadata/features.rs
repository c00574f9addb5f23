//! Decides feature levels (`levels` defines them): the initial level of a cluster, which nodes may be registered, level
//! updates.
//!
//! Pure functions of the image, as `decide` is. May not know: what depends on a level.

use std::collections::BTreeMap;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::NodeId;

use super::command::{Command, NewShard};
use super::error::MetadataError;
use super::image::{MetadataImage, NodeRecord, ShardId};
use super::requests::{FeatureUpdate, UpgradeType};
use crate::levels::{
    FEATURE, FeatureLevel, KAFKA_FEATURE, KAFKA_LEVEL, Levels, TRANSACTION_FEATURE, transaction_level,
};

/// True once the cluster has shards. Before that it has no level: its founders are still being registered.
fn is_founded(image: &MetadataImage) -> bool {
    image.shards.keys().any(|shard| *shard != ShardId::METADATA)
}

/// The levels that all of these nodes understand.
fn common<'a>(nodes: impl Iterator<Item = &'a NodeRecord>) -> Option<Levels> {
    nodes.map(|node| Some(node.levels)).reduce(|all, one| all?.common(one?)).flatten()
}

/// Fails while the cluster is below the level from which on something can be done.
pub(super) fn require(image: &MetadataImage, needed: FeatureLevel, what: &str) -> Result<(), MetadataError> {
    if image.level >= needed {
        return Ok(());
    }
    Err(MetadataError::UnsupportedVersion(format!(
        "{what} from level {needed} of {FEATURE} on, and the cluster is at level {}.",
        image.level
    )))
}

/// Checks whether a node that starts may be registered.
pub(super) fn check_node(image: &MetadataImage, node: &NodeRecord) -> Result<(), MetadataError> {
    let others = || image.nodes.values().filter(|other| other.id != node.id);
    let (id, levels, level) = (node.id.0, node.levels, image.level);
    if !is_founded(image) {
        let all = common(others().chain([node]));
        return all.map(|_| ()).ok_or_else(|| {
            MetadataError::UnsupportedVersion(format!(
                "Broker {id} understands levels {levels} of {FEATURE}, the other founders of the cluster none of them: start all with one release."
            ))
        });
    }
    let what = if levels.newest < level {
        "start it with the release that the others run, or a later one"
    } else if levels.oldest > level {
        "start it with a release that understands this level, too, and raise the level before it gets a later one"
    } else {
        return Ok(());
    };
    Err(MetadataError::UnsupportedVersion(format!(
        "Broker {id} understands levels {levels} of {FEATURE}, and the cluster is at level {level}: {what}."
    )))
}

/// Adds these shards. The first ones begin the cluster: at the newest level that all its founders understand, and as long as some are
/// not registered, since a client creates a topic that the registered nodes can hold, at the oldest one. A founder has the metadata's
/// entries before it is registered, and it could not start if the level was new to it; [`completed`] raises the level then.
pub(super) fn add_shards(
    image: &MetadataImage,
    nodes: &BTreeMap<NodeId, NodeRecord>,
    new: Vec<NewShard>,
) -> impl Iterator<Item = Command> + use<> {
    let begins = !new.is_empty() && !is_founded(image);
    let understood = common(nodes.values()).filter(|_| begins);
    let all_are_known = nodes.len() >= image.expected_nodes();
    let level = understood.map(|levels| if all_are_known { levels.newest } else { levels.oldest });
    let level = level.filter(|level| *level != image.level);
    level.map(|level| Command::SetFeatureLevel { level }).into_iter().chain(new.into_iter().map(Command::AddShard))
}

/// Raises the level of a cluster that began before all its founders were registered, once `last` is: only a founder has a replica of
/// the metadata before it is registered.
pub(super) fn completed(image: &MetadataImage, nodes: &BTreeMap<NodeId, NodeRecord>, last: NodeId) -> Option<Command> {
    let is_founder = || {
        let metadata = image.shards.get(&ShardId::METADATA);
        metadata.is_some_and(|shard| shard.replicas.iter().any(|replica| replica.node == last))
    };
    let completes = is_founded(image)
        && nodes.len() >= image.expected_nodes()
        && !image.nodes.contains_key(&last)
        && is_founder()
        && !mutants::is_on(Bug::LevelNeedsAllFounders);
    let newest = common(nodes.values()).filter(|_| completes).map(|levels| levels.newest);
    newest.filter(|newest| *newest > image.level).map(|level| Command::SetFeatureLevel { level })
}

/// Updates the level: all requested updates or none.
pub(super) fn update(image: &MetadataImage, requested: &[FeatureUpdate]) -> Result<Vec<Command>, MetadataError> {
    let mut level = image.level;
    for (place, update) in requested.iter().enumerate() {
        if requested.iter().take(place).any(|earlier| earlier.feature == update.feature) {
            return Err(MetadataError::InvalidRequest(format!("The feature {} is named twice.", update.feature)));
        }
        let checked = check(image, update).map_err(|why| {
            MetadataError::InvalidUpdateVersion(format!(
                "Invalid update version {} for feature {}. {why}",
                update.level.0, update.feature
            ))
        })?;
        level = checked.unwrap_or(level);
    }
    Ok((level != image.level).then_some(Command::SetFeatureLevel { level }).into_iter().collect())
}

/// The level of Ottla's feature that the update asks for, if it asks for one. Checks in Kafka's order and, where they fit, with
/// Kafka's messages.
fn check(image: &MetadataImage, update: &FeatureUpdate) -> Result<Option<FeatureLevel>, String> {
    let Some(kind) = update.kind else {
        return Err("The controller does not support the given upgrade type.".to_owned());
    };
    if update.level.0 < 0 {
        return Err("A feature version cannot be less than 0.".to_owned());
    }
    if update.feature == KAFKA_FEATURE {
        return match update.level == KAFKA_LEVEL {
            true => Ok(None),
            false => Err(format!("The controller only supports versions {KAFKA_LEVEL}-{KAFKA_LEVEL}")),
        };
    }
    if update.feature == TRANSACTION_FEATURE {
        return match update.level == transaction_level(image.level) {
            true => Ok(None),
            false => Err(format!("Its level follows from that of {FEATURE}.")),
        };
    }
    if update.feature != FEATURE {
        return Err("The controller does not support this feature.".to_owned());
    }
    let understands = |node: &&NodeRecord| node.levels.contains(update.level) || mutants::is_on(Bug::LevelRaisedEarly);
    if let Some(node) = image.nodes.values().find(|node| !understands(node)) {
        return Err(format!("Broker {} only supports versions {}", node.id.0, node.levels));
    }
    if !is_founded(image) {
        return Err("Not all founders of the cluster are registered yet.".to_owned());
    }
    if update.level < image.level {
        return Err(match kind {
            UpgradeType::Upgrade => "Can't downgrade the version of this feature without setting the upgrade type to \
                                     either safe or unsafe downgrade."
                .to_owned(),
            // Formats of the higher level are in logs and checkpoints, and nothing converts them back.
            UpgradeType::SafeDowngrade => {
                "Refusing to perform the requested downgrade because it might delete metadata \
                                           information."
                    .to_owned()
            }
            UpgradeType::UnsafeDowngrade => "Unsafe metadata downgrade is not supported in this version.".to_owned(),
        });
    }
    if update.level > image.level && kind != UpgradeType::Upgrade {
        return Err("Can't downgrade to a newer version.".to_owned());
    }
    Ok(Some(update.level))
}
