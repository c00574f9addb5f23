//! IncrementalAlterConfigs (key 44, v0-v1): sets, deletes, appends to or subtracts from single settings (KIP-339).
//!
//! Each resource changes as a whole or not at all: one bad value leaves the other settings of that resource unchanged,
//! and does not affect other resources. APPEND and SUBTRACT are for lists only (INVALID_CONFIG). A resource or key
//! named twice: INVALID_REQUEST. Loggers of this node are changed here and now; they are in no metadata.

use std::collections::BTreeMap;

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::support::broker_loggers;
use super::support::config_resource::{BROKER_LOGGER, alter, owner, shown};
use crate::handlers::context::Context;
use crate::metadata::{ConfigChange, ConfigOp, MetadataError};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) async fn handle(ctx: &Context, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let mut times: BTreeMap<(i8, &str), usize> = BTreeMap::new();
    for resource in &request.resources {
        *times.entry((resource.resource_type, resource.resource_name.as_str())).or_default() += 1;
    }
    let once = |resource: &AlterConfigsResource| {
        times.get(&(resource.resource_type, resource.resource_name.as_str())) == Some(&1)
    };
    let checked = |resource: &AlterConfigsResource| match once(resource) {
        true => resource.configs.iter().map(op).collect::<Result<Vec<_>, _>>(),
        false => Err(MetadataError::InvalidRequest("Each resource must appear at most once.".to_owned())),
    };
    let change = |resource: &AlterConfigsResource| {
        let owner = owner(resource.resource_type, &resource.resource_name)?;
        Ok(ConfigChange { owner, ops: checked(resource)?, replace: false })
    };
    let in_metadata = request.resources.iter().filter(|resource| resource.resource_type != BROKER_LOGGER);
    let mut results = alter(ctx, in_metadata.map(change).collect(), request.validate_only).await;
    let answer = |resource: &AlterConfigsResource| {
        let (code, message) = if resource.resource_type == BROKER_LOGGER {
            let levels = checked(resource);
            shown(
                levels.and_then(|ops| broker_loggers::alter(ctx, &resource.resource_name, ops, request.validate_only)),
            )
        } else {
            results.next().unwrap_or_else(|| shown(Err(MetadataError::TimedOut)))
        };
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(code)
            .with_error_message(message)
    };
    let responses = request.resources.iter().map(answer).collect();
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn op(config: &AlterableConfig) -> Result<(String, ConfigOp), MetadataError> {
    let value = || {
        let null = || MetadataError::InvalidRequest(format!("Null value not supported for : {}", config.name));
        config.value.as_ref().map(ToString::to_string).ok_or_else(null)
    };
    let op = match config.config_operation {
        SET => ConfigOp::Set(value()?),
        DELETE => ConfigOp::Delete,
        APPEND => ConfigOp::Append(value()?),
        SUBTRACT => ConfigOp::Subtract(value()?),
        other => return Err(MetadataError::InvalidRequest(format!("Unknown config operation type: {other}"))),
    };
    Ok((config.name.to_string(), op))
}
