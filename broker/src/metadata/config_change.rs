//! Decides configuration changes: SET, DELETE, APPEND, SUBTRACT, or a replacement of all values. Pure.
//!
//! May not know: which client sent the request.

use std::collections::{BTreeMap, BTreeSet};

use super::command::Command;
use super::error::MetadataError;
use super::features;
use super::image::{MetadataImage, Topic};
use super::merges;
use super::requests::{CLIENT_METRICS, ConfigChange, ConfigOp, ConfigOwner, GROUP_CONFIGS};
use super::topic_shards::SHARD_COUNT;
use crate::config::ConfigError;
use crate::config::client_metrics_table::{INTERVAL_MS, MATCH, client_metrics_setting, illegal_pattern, is_interval};
use crate::config::group_table::group_setting;
use crate::config::listener_security::{is_of_a_listener, names_no_listener};
use crate::config::setting::{Dynamic, Kind, Setting};
use crate::config::table::{is_read_only, nearest, setting, settings};
use crate::config::topic::check_overrides;
use crate::config::topic_table::{PROVISIONED, ResourceSetting, SHARD_MODE, TOPIC_SETTINGS, topic_setting};

/// Checks that each name stands once.
///
/// # Errors
/// When one is named twice.
pub fn check_names(ops: &[(String, ConfigOp)]) -> Result<(), MetadataError> {
    let names: BTreeSet<_> = ops.iter().map(|(name, _)| name).collect();
    if names.len() == ops.len() {
        return Ok(());
    }
    Err(MetadataError::InvalidRequest("Error due to duplicate config keys".to_owned()))
}

/// Decides a change. No command: nothing changes.
///
/// # Errors
/// When the owner does not exist or a value is not allowed.
pub(super) fn decide(image: &MetadataImage, change: &ConfigChange) -> Result<Vec<Command>, MetadataError> {
    check_level(image, &change.owner)?;
    check_names(&change.ops)?;
    match &change.owner {
        ConfigOwner::Topic(name) => {
            let topic = image.topic(name).ok_or(MetadataError::UnknownTopic)?;
            let before = topic.overrides.as_ref();
            let lookup = |name: &str| topic_setting(name).map(|entry| &entry.setting);
            let after = check_overrides(&changed(before, change, lookup, unknown_topic_setting)?)?;
            if topic.internal && after.get("cleanup.policy") != before.get("cleanup.policy") {
                return Err(must_stay_compacted(name));
            }
            if [SHARD_COUNT, SHARD_MODE].iter().any(|name| after.get(*name) != before.get(*name)) {
                check_shard_count(image, topic, &after)?;
            }
            let command = Command::SetTopicConfig { id: topic.id, overrides: after.clone() };
            Ok(if after == *before { Vec::new() } else { vec![command] })
        }
        ConfigOwner::Node(node) if !image.nodes.contains_key(node) => {
            Err(MetadataError::InvalidRequest(format!("Unexpected broker id {}: no such broker is registered", node.0)))
        }
        ConfigOwner::Node(node) => broker_config(image, change, Some(*node)),
        ConfigOwner::AllNodes => broker_config(image, change, None),
        ConfigOwner::Group(group) => group_config(image, change, group),
        ConfigOwner::ClientMetrics(subscription) => client_metrics(image, change, subscription),
    }
}

/// The refusal of another `cleanup.policy` for an internal topic.
pub(super) fn must_stay_compacted(topic: &str) -> MetadataError {
    MetadataError::InvalidConfig(format!("Topic '{topic}' is internal: it must stay compacted"))
}

/// Fails below the feature level from which on the owner has configs.
pub(super) fn check_level(image: &MetadataImage, owner: &ConfigOwner) -> Result<(), MetadataError> {
    match owner {
        ConfigOwner::Group(_) => features::require(image, GROUP_CONFIGS, "Groups have configs"),
        ConfigOwner::ClientMetrics(_) => {
            features::require(image, CLIENT_METRICS, "There are subscriptions of client metrics")
        }
        ConfigOwner::Topic(_) | ConfigOwner::Node(_) | ConfigOwner::AllNodes => Ok(()),
    }
}

/// Any group may have configs, also one that does not exist yet.
fn group_config(image: &MetadataImage, change: &ConfigChange, group: &str) -> Result<Vec<Command>, MetadataError> {
    let unknown = |name: &str| MetadataError::InvalidConfig(format!("Unknown group config name: {name}"));
    if let Some((name, _)) = change.ops.iter().find(|(name, _)| group_setting(name).is_none()) {
        return Err(unknown(name));
    }
    let before = image.group_configs.get(group);
    let group = group.to_owned();
    let values = changed_if_allowed(before, change, group_setting, unknown)?;
    Ok(values.map(|values| Command::SetGroupConfig { group, values }).into_iter().collect())
}

/// A subscription exists as long as it says something. Errors are Kafka's, in its words.
fn client_metrics(
    image: &MetadataImage,
    change: &ConfigChange,
    subscription: &str,
) -> Result<Vec<Command>, MetadataError> {
    let unknown = |name: &str| MetadataError::InvalidRequest(format!("Unknown client metrics configuration: {name}"));
    let before = image.client_metrics.get(subscription);
    let Some(values) = changed_if_allowed(before, change, client_metrics_setting, unknown)? else {
        return Ok(Vec::new());
    };
    if let Some(value) = values.get(INTERVAL_MS).filter(|value| !is_interval(value)) {
        return Err(MetadataError::InvalidRequest(format!(
            "Invalid value {value} for {INTERVAL_MS}, interval must be between 100 and 3600000 (1 hour)"
        )));
    }
    if let Some(pattern) = values.get(MATCH).and_then(|patterns| illegal_pattern(patterns)) {
        return Err(MetadataError::InvalidConfig(format!("Illegal client matching pattern: {pattern}")));
    }
    Ok(vec![Command::SetClientMetrics { subscription: subscription.to_owned(), values }])
}

/// The values after the change, each of its type and in its range; `None`: they are as before.
fn changed_if_allowed(
    before: Option<&BTreeMap<String, String>>,
    change: &ConfigChange,
    lookup: impl Fn(&str) -> Option<&'static ResourceSetting>,
    unknown: impl Fn(&str) -> MetadataError,
) -> Result<Option<BTreeMap<String, String>>, MetadataError> {
    let empty = BTreeMap::new();
    let before = before.unwrap_or(&empty);
    let lookup = |name: &str| lookup(name).map(|entry| &entry.setting);
    let mut values = changed(before, change, lookup, &unknown)?;
    for (name, value) in &mut values {
        *value = lookup(name).ok_or_else(|| unknown(name))?.check(value).map_err(ConfigError::from)?;
    }
    Ok(Some(values).filter(|values| values != before))
}

/// Fails for more shards than the topic has partitions, and below the feature level from which on shards are merged.
fn check_shard_count(
    image: &MetadataImage,
    topic: &Topic,
    overrides: &BTreeMap<String, String>,
) -> Result<(), MetadataError> {
    let count = overrides.get(SHARD_COUNT).and_then(|count| count.parse::<i32>().ok()).unwrap_or(-1);
    let asks = count >= 0 || overrides.get(SHARD_MODE).is_some_and(|mode| mode != PROVISIONED);
    if topic.internal && asks {
        return Err(MetadataError::InvalidConfig(format!("Topic '{}' is internal: it has its shards.", topic.name)));
    }
    if count > topic.partition_count() {
        return Err(MetadataError::InvalidConfig(format!(
            "Topic '{}' has {} partitions, and a partition is not divided: {SHARD_COUNT} is at most that.",
            topic.name,
            topic.partition_count()
        )));
    }
    if asks { merges::check_level(image) } else { Ok(()) }
}

fn broker_config(
    image: &MetadataImage,
    change: &ConfigChange,
    node: Option<ottla_protocol::ids::NodeId>,
) -> Result<Vec<Command>, MetadataError> {
    let empty = BTreeMap::new();
    let before = image.broker_configs.get(&node).unwrap_or(&empty);
    check_dynamic(change, node.is_some())?;
    let mut values = changed(before, change, setting, unknown_setting)?;
    for (name, value) in &mut values {
        if let Some(known) = setting(name) {
            *value = known.check(value).map_err(ConfigError::from)?;
        }
    }
    Ok(if values == *before { Vec::new() } else { vec![Command::SetBrokerConfig { node, values }] })
}

/// Fails for what is not changed while a node runs, with Kafka's words. To delete such a setting changes nothing.
fn check_dynamic(change: &ConfigChange, is_of_a_node: bool) -> Result<(), MetadataError> {
    let refuse = |is_refused: &dyn Fn(&str) -> bool, why: &str| {
        let set = change.ops.iter().filter(|(_, op)| *op != ConfigOp::Delete);
        let names: Vec<_> = set.map(|(name, _)| name.as_str()).filter(|name| is_refused(name)).collect();
        let refusal = || MetadataError::InvalidRequest(format!("{why}: [{}]", names.join(", ")));
        if names.is_empty() { Ok(()) } else { Err(refusal()) }
    };
    refuse(&is_read_only, "Cannot update these configs dynamically")?;
    refuse(
        &names_no_listener,
        "These security configs can be dynamically updated only per-listener using the listener prefix",
    )?;
    let is_one_nodes =
        |name: &str| is_of_a_listener(name) || setting(name).is_some_and(|known| known.dynamic == Dynamic::PerNode);
    refuse(
        &|name| !is_of_a_node && is_one_nodes(name),
        "Cannot update these configs at default cluster level, broker id must be specified",
    )
}

fn unknown_topic_setting(name: &str) -> MetadataError {
    let nearest = nearest(name, TOPIC_SETTINGS.iter().map(|entry| entry.setting.name));
    ConfigError::UnknownTopicConfig { name: name.to_owned(), nearest }.into()
}

fn unknown_setting(name: &str) -> MetadataError {
    let nearest = nearest(name, settings().map(|setting| setting.name));
    let hint = nearest.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    MetadataError::InvalidConfig(format!("Unknown broker config name: {name}{hint}"))
}

/// The values after the change.
fn changed<'a>(
    before: &BTreeMap<String, String>,
    change: &ConfigChange,
    lookup: impl Fn(&str) -> Option<&'a Setting>,
    unknown: impl Fn(&str) -> MetadataError,
) -> Result<BTreeMap<String, String>, MetadataError> {
    let mut after = if change.replace { BTreeMap::new() } else { before.clone() };
    for (name, op) in &change.ops {
        match op {
            ConfigOp::Set(value) => {
                after.insert(name.clone(), value.clone());
            }
            ConfigOp::Delete => {
                after.remove(name);
            }
            ConfigOp::Append(words) | ConfigOp::Subtract(words) => {
                let setting = lookup(name).ok_or_else(|| unknown(name))?;
                let append = matches!(op, ConfigOp::Append(_));
                if setting.kind != Kind::List {
                    let verb = if append { "APPEND" } else { "SUBTRACT" };
                    return Err(MetadataError::InvalidConfig(format!(
                        "Can't {verb} to key {name} because its type is not LIST."
                    )));
                }
                let current = after.get(name).map_or_else(|| setting.default.unwrap_or(""), String::as_str);
                let list = edit_list(current, words, append);
                after.insert(name.clone(), list);
            }
        }
    }
    Ok(after)
}

fn edit_list(current: &str, words: &str, append: bool) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let mut list = split(current);
    for word in split(words) {
        if !append {
            list.retain(|known| *known != word);
        } else if !list.contains(&word) {
            list.push(word);
        }
    }
    list.join(",")
}
