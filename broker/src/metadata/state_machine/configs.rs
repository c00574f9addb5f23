//! Applies commands that set configurations: of nodes, groups, subscriptions of client metrics.
//!
//! May not know: which settings there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;

use super::{MetadataStateMachine, Refusal, topic_record};
use crate::metadata::records::Record;

type Values = BTreeMap<String, String>;

/// The values of one node or of all; empty if the map has no such entry.
fn values_of(configs: &BTreeMap<Option<NodeId>, Values>, node: Option<NodeId>) -> Values {
    configs.get(&node).cloned().unwrap_or_default()
}

/// What has no values is not there.
fn put<K: Ord + Clone>(configs: &mut Arc<BTreeMap<K, Values>>, owner: &K, values: &Values) {
    let configs = Arc::make_mut(configs);
    if values.is_empty() {
        configs.remove(owner);
    } else {
        configs.insert(owner.clone(), values.clone());
    }
}

impl MetadataStateMachine {
    pub(super) fn set_group_config(&mut self, group: String, values: Values) {
        put(&mut self.image.group_configs, &group, &values);
        let is_set = !values.is_empty();
        self.record_values(&Record::GroupConfig(group, values), is_set);
    }

    pub(super) fn set_client_metrics(&mut self, subscription: String, values: Values) {
        put(&mut self.image.client_metrics, &subscription, &values);
        let is_set = !values.is_empty();
        self.record_values(&Record::ClientMetrics(subscription, values), is_set);
    }

    fn record_values(&mut self, record: &Record, is_set: bool) {
        if is_set { self.note(record) } else { self.forget(record.key()) }
    }

    pub(super) fn set_broker_config(&mut self, node: Option<NodeId>, values: Values) -> Result<(), Refusal> {
        if node.is_some_and(|node| !self.image.nodes.contains_key(&node)) {
            return Err(Refusal::NoSuchNode);
        }
        put(&mut self.image.broker_configs, &node, &values);
        let is_set = !values.is_empty();
        self.record_values(&Record::BrokerConfig(node, values), is_set);
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
