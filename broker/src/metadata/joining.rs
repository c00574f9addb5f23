//! What a node that starts makes of the metadata: registered, its lost replicas rebuilt, the pool as large as it is to be.
//!
//! A pure function of the image, as `decide` is.

use std::sync::Arc;

use ottla_storage::ids::ReplicaId;

use super::command::{Command, NewShard};
use super::error::MetadataError;
use super::features;
use super::image::{MetadataImage, NodeRecord, ReplicaRecord, ShardId, ShardKind, ShardRecord};
use super::placement::{self, default_factor};

/// A node that starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) node: NodeRecord,
    /// The id of a cluster that has none yet.
    pub(super) cluster_id: String,
    /// The metadata group's first members, as far as the node knows them: made before there was metadata.
    pub(super) founders: Vec<ReplicaRecord>,
    /// Replicas on its disks that may have lost what they acknowledged: they never take part again.
    pub(super) lost: Vec<ReplicaId>,
}

/// Registers the node; the first one also mints the cluster's id and records the metadata group; what lay in directories
/// that are gone, and what was lost, is to be rebuilt under new ids; then the default pool gets the shards that it lacks.
///
/// # Errors
/// When its build does not understand the cluster's feature level, the founders are not known, or the node is being forgotten.
pub(super) fn join_cluster(image: &MetadataImage, join: &Join) -> Result<Vec<Command>, MetadataError> {
    features::check_node(image, &join.node)?;
    // A place that it is given now would be taken from it again, and that would go on as long as it asks.
    if image.is_going(join.node.id) {
        return Err(MetadataError::InvalidRequest(format!("Broker {} is being forgotten.", join.node.id.0)));
    }
    let mut commands = Vec::new();
    if image.cluster_id.is_empty() {
        commands.push(Command::Bootstrap { cluster_id: join.cluster_id.clone() });
    }
    commands.push(Command::RegisterNode(join.node.clone()));
    let mut after = image.clone();
    let mut nodes = after.nodes.as_ref().clone();
    nodes.insert(join.node.id, join.node.clone());
    after.nodes = Arc::new(nodes);
    let mut expected = after.expected_nodes();
    if image.shards.contains_key(&ShardId::METADATA) {
        for (record, replicas) in placement::rebuilt(&after, join.node.id, &join.lost) {
            let last = replicas.iter().map(|replica| replica.id.0.saturating_add(1)).max();
            after.next_replica_id = after.next_replica_id.max(last.unwrap_or(0));
            let whole = ShardRecord { replicas: replicas.clone(), ..record.as_ref().clone() };
            Arc::make_mut(&mut after.shards).insert(record.id, Arc::new(whole));
            let before = record.replicas.iter().map(|replica| replica.id).collect();
            commands.push(Command::SetReplicas { shard: record.id, before, replicas });
        }
    } else {
        // Whoever does not know the founders asks again when one of them has joined.
        let Some(last) = join.founders.iter().map(|founder| founder.id.0).max() else {
            return Err(MetadataError::NotController { leader: None });
        };
        after.next_replica_id = last.saturating_add(1);
        after.next_shard_id = after.next_shard_id.max(1);
        expected = expected.max(join.founders.len());
        let replicas = join.founders.clone();
        commands.push(Command::AddShard(NewShard { id: ShardId::METADATA, kind: ShardKind::Metadata, replicas }));
    }
    // Shards are made for all that found the cluster, not for whoever came first.
    if after.nodes.len() >= expected {
        let missing = placement::missing_pool_shards(&after, default_factor(after.nodes.len()));
        commands.extend(features::add_shards(image, &after.nodes, missing));
    }
    Ok(commands)
}
