//! Resources of the config APIs: types, names, and one result per resource, the same for all these APIs.
//!
//! May not know: which API calls.

use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;

use super::text;
use crate::handlers::context::Context;
use crate::metadata::{ConfigChange, ConfigOwner, MetadataError};

/// A topic.
pub(in crate::handlers) const TOPIC: i8 = 2;
/// A node, or all of them where the name is empty.
pub(in crate::handlers) const BROKER: i8 = 4;
/// The log levels of a node.
pub(in crate::handlers) const BROKER_LOGGER: i8 = 8;
/// Subscriptions of client metrics.
pub(in crate::handlers) const CLIENT_METRICS: i8 = 16;
/// A group.
pub(in crate::handlers) const GROUP: i8 = 32;

/// The owner of the configuration that a request names.
pub(in crate::handlers) fn owner(kind: i8, name: &str) -> Result<ConfigOwner, MetadataError> {
    match kind {
        TOPIC => Ok(ConfigOwner::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(ConfigOwner::AllNodes),
        BROKER => node(name).map(ConfigOwner::Node),
        // They are of one node, and no part of the metadata: see `broker_loggers`. AlterConfigs has none, as in Kafka.
        BROKER_LOGGER => Err(MetadataError::InvalidRequest("Unknown resource type BROKER_LOGGER".to_owned())),
        GROUP if name.is_empty() => {
            Err(MetadataError::InvalidRequest("Default group resources are not allowed.".to_owned()))
        }
        GROUP => Ok(ConfigOwner::Group(name.to_owned())),
        CLIENT_METRICS if name.is_empty() => {
            Err(MetadataError::InvalidRequest("Subscription name can't be empty".to_owned()))
        }
        CLIENT_METRICS => Ok(ConfigOwner::ClientMetrics(name.to_owned())),
        other => Err(MetadataError::InvalidRequest(format!("Unsupported resource type: {other}"))),
    }
}

/// The node that a name means.
pub(super) fn node(name: &str) -> Result<NodeId, MetadataError> {
    let no_number = |_| MetadataError::InvalidRequest(format!("Broker id must be an integer, but it is: {name}"));
    name.parse().map(NodeId).map_err(no_number)
}

/// Applies all changes that could be parsed; returns the error code and message of each, in the order of `asked`.
pub(in crate::handlers) async fn alter(
    ctx: &Context,
    asked: Vec<Result<ConfigChange, MetadataError>>,
    validate_only: bool,
) -> impl Iterator<Item = (i16, Option<StrBytes>)> {
    let (changes, merge) = in_order(asked);
    let results = merge(ctx.metadata.alter_configs(changes, validate_only).await);
    results.into_iter().map(shown)
}

/// The error code and message of a result.
pub(in crate::handlers) fn shown(result: Result<(), MetadataError>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(error) => (error.code().code(), Some(text(&error.to_string()))),
    }
}

/// The changes that could be parsed, and a function that merges their results into the order of `asked`.
fn in_order<T>(
    asked: Vec<Result<T, MetadataError>>,
) -> (Vec<T>, impl FnOnce(Vec<Result<(), MetadataError>>) -> Vec<Result<(), MetadataError>>) {
    let mut understood = Vec::new();
    let mut refused = Vec::new();
    for one in asked {
        match one {
            Ok(one) => {
                understood.push(one);
                refused.push(None);
            }
            Err(error) => refused.push(Some(error)),
        }
    }
    let merge = |results: Vec<Result<(), MetadataError>>| {
        let mut results = results.into_iter();
        refused
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                None => results.next().unwrap_or(Err(MetadataError::TimedOut)),
            })
            .collect()
    };
    (understood, merge)
}
