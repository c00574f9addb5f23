//! Applies commands that change the records of registered nodes.
//!
//! May not know: topics.

use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::NodeId;

use super::{MetadataStateMachine, Refusal};
use crate::levels::FeatureLevel;
use crate::metadata::image::{NodeRecord, NodeState, ShardRecord};
use crate::metadata::liveness::Liveness;
use crate::metadata::records::{Record, RecordKey};

impl MetadataStateMachine {
    pub(super) fn set_node_state(&mut self, node: NodeId, state: NodeState) -> Result<(), Refusal> {
        let mut record = self.image.nodes.get(&node).ok_or(Refusal::NoSuchNode)?.clone();
        record.state = state;
        self.note(&Record::Node(record.clone()));
        Arc::make_mut(&mut self.image.nodes).insert(node, record);
        Ok(())
    }

    pub(super) fn set_node_liveness(&mut self, node: NodeId, liveness: Liveness) -> Result<(), Refusal> {
        let mut record = self.image.nodes.get(&node).ok_or(Refusal::NoSuchNode)?.clone();
        record.liveness = liveness;
        self.note(&Record::Node(record.clone()));
        Arc::make_mut(&mut self.image.nodes).insert(node, record);
        Ok(())
    }

    /// Sets the feature level in force, which every registered node must understand.
    pub(super) fn set_feature_level(&mut self, level: FeatureLevel) -> Result<(), Refusal> {
        let understands = |node: &NodeRecord| node.levels.contains(level) || mutants::is_on(Bug::LevelRaisedEarly);
        if level < FeatureLevel::FIRST || !self.image.nodes.values().all(understands) {
            return Err(Refusal::FeatureLevel);
        }
        self.image.level = level;
        self.note_counter(u64::from(level.0.unsigned_abs()));
        Ok(())
    }

    /// Removes a node, together with its dynamic settings.
    pub(super) fn remove_node(&mut self, node: NodeId) -> Result<(), Refusal> {
        if !self.image.nodes.contains_key(&node) {
            return Err(Refusal::NoSuchNode);
        }
        let lies_there = |shard: &Arc<ShardRecord>| shard.members().any(|replica| replica.node == node);
        if self.image.shards.values().any(lies_there) {
            return Err(Refusal::Replicas);
        }
        Arc::make_mut(&mut self.image.nodes).remove(&node);
        self.forget(RecordKey::Node(node).encode());
        if self.image.broker_configs.contains_key(&Some(node)) {
            Arc::make_mut(&mut self.image.broker_configs).remove(&Some(node));
            self.forget(RecordKey::BrokerConfig(Some(node)).encode());
        }
        Ok(())
    }
}
