//! Applies commands that set configurations: of nodes, groups, subscriptions of client metrics.
//!
//! May not know: which settings there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::{MetadataStateMachine, Refusal, topic_record};
use crate::metadata::records::{Record, RecordKey};

type Values = BTreeMap<String, String>;

/// The values of one node or of all; empty if the map has no such entry.
fn values_of(configs: &BTreeMap<Option<NodeId>, Values>, node: Option<NodeId>) -> Values {
    configs.get(&node).cloned().unwrap_or_default()
}

/// What has no values is not there.
fn put(configs: &mut Arc<BTreeMap<String, Values>>, name: &str, values: &Values) {
    let configs = Arc::make_mut(configs);
    if values.is_empty() {
        configs.remove(name);
    } else {
        configs.insert(name.to_owned(), values.clone());
    }
}

impl MetadataStateMachine {
    pub(super) fn set_group_config(&mut self, group: String, values: Values) {
        put(&mut self.image.group_configs, &group, &values);
        if values.is_empty() {
            self.forget(RecordKey::GroupConfig(group).encode());
        } else {
            self.note(&Record::GroupConfig(group, values));
        }
    }

    pub(super) fn set_client_metrics(&mut self, subscription: String, values: Values) {
        put(&mut self.image.client_metrics, &subscription, &values);
        if values.is_empty() {
            self.forget(RecordKey::ClientMetrics(subscription).encode());
        } else {
            self.note(&Record::ClientMetrics(subscription, values));
        }
    }

    pub(super) fn set_broker_config(&mut self, node: Option<NodeId>, values: Values) -> Result<(), Refusal> {
        if node.is_some_and(|node| !self.image.nodes.contains_key(&node)) {
            return Err(Refusal::NoSuchNode);
        }
        if values.is_empty() {
            self.forget(RecordKey::BrokerConfig(node).encode());
            Arc::make_mut(&mut self.image.broker_configs).remove(&node);
        } else {
            self.note(&Record::BrokerConfig(node, values.clone()));
            Arc::make_mut(&mut self.image.broker_configs).insert(node, values);
        }
        self.derive_config();
        let topics: Vec<_> = self.image.topics.values().map(|topic| topic_record(topic)).collect();
        for topic in topics {
            let topic = self.derive_topic(topic);
            self.put_topic(topic);
        }
        Ok(())
    }

    /// Computes the node's configuration with dynamic settings in force.
    pub(super) fn derive_config(&mut self) {
        let for_all = values_of(&self.image.broker_configs, None);
        let for_node = values_of(&self.image.broker_configs, Some(self.base.node_id));
        self.image.config = if for_all.is_empty() && for_node.is_empty() {
            Arc::clone(&self.base)
        } else {
            Arc::new(self.base.with_dynamic(&for_all, &for_node))
        };
    }
}
