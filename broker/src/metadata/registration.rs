//! Registration of a node that starts: what it changes in the metadata. The node is recorded, its lost replicas are
//! rebuilt, the pool is extended to its intended size.
//!
//! A pure function of the image, as `decide` is.

use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_storage::ids::ReplicaId;

use super::command::{Command, NewShard};
use super::error::MetadataError;
use super::features;
use super::image::{MetadataImage, NodeRecord, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use super::placement::{self, default_factor};

/// What a node that starts registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeRegistration {
    pub(super) node: NodeRecord,
    /// The cluster's id, used if it has none yet.
    pub(super) cluster_id: String,
    /// The metadata group's first members, if the node knows them: they were chosen before there was metadata.
    pub(super) founders: Vec<ReplicaRecord>,
    /// Replicas on its disks that may have lost entries that they acknowledged: they never vote or serve again.
    pub(super) lost: Vec<ReplicaId>,
}

/// Registers the node:
/// - the first one also sets the cluster's id and records the metadata group;
/// - replicas in directories that are gone, and lost replicas, are rebuilt under new ids;
/// - then the default pool gets the shards that it lacks.
///
/// # Errors
/// When its build does not understand the cluster's feature level, the founders are not known, or the node is being
/// removed.
pub(super) fn register(image: &MetadataImage, registration: &NodeRegistration) -> Result<Vec<Command>, MetadataError> {
    features::check_node(image, &registration.node)?;
    // A replica that it gets now would be removed again, and that would repeat with each of its requests.
    if image.is_decommissioned(registration.node.id) && !mutants::is_on(Bug::RegisteredWhileLeaving) {
        return Err(MetadataError::InvalidRequest(format!("Broker {} is being forgotten.", registration.node.id.0)));
    }
    let mut commands = Vec::new();
    if image.cluster_id.is_empty() {
        commands.push(Command::Bootstrap { cluster_id: registration.cluster_id.clone() });
    }
    commands.push(Command::RegisterNode(registration.node.clone()));
    let mut after = image.clone();
    let mut nodes = after.nodes.as_ref().clone();
    nodes.insert(registration.node.id, registration.node.clone());
    after.nodes = Arc::new(nodes);
    let mut expected = after.expected_nodes();
    if image.shards.contains_key(&ShardId::METADATA) {
        let rebuilt = placement::rebuilt(&after, registration.node.id, &registration.lost);
        // Until a split is done the replicas stay as they are; the node reports what it has lost again.
        for (record, replicas) in rebuilt.into_iter().filter(|(record, _)| !image.is_resizing(record.id)) {
            let last = replicas.iter().map(|replica| replica.id.0.saturating_add(1)).max();
            after.next_replica_id = after.next_replica_id.max(last.unwrap_or(0));
            let whole = ShardRecord { replicas: replicas.clone(), ..record.as_ref().clone() };
            Arc::make_mut(&mut after.shards).insert(record.id, Arc::new(whole));
            let before = record.replicas.iter().map(|replica| replica.id).collect();
            commands.push(Command::SetReplicas { shard: record.id, before, replicas });
        }
    } else {
        // A node that does not know the founders retries; it succeeds once one of them is registered.
        let Some(last) = registration.founders.iter().map(|founder| founder.id.0).max() else {
            return Err(MetadataError::NotController { leader: None });
        };
        after.next_replica_id = last.saturating_add(1);
        after.next_shard_id = after.next_shard_id.max(1);
        expected = expected.max(registration.founders.len());
        let replicas = registration.founders.clone();
        commands.push(Command::AddShard(NewShard { id: ShardId::METADATA, kind: ShardKind::Metadata, replicas }));
    }
    // Shards are created once all founders are registered, not for the first of them alone.
    if after.nodes.len() >= expected {
        let missing = placement::missing_pool_shards(&after, default_factor(after.nodes.len()));
        commands.extend(features::add_shards(image, &after.nodes, missing));
        commands.extend(features::completed(image, &after.nodes, registration.node.id));
    }
    Ok(commands)
}
