//! AlterConfigs (key 33, v0-v2): replaces all settings of a topic or a node; settings not in the request are removed.
//!
//! Older clients only: IncrementalAlterConfigs changes single settings. Each resource changes as a whole or not at all.

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::support::config_resource::{alter, owner};
use crate::handlers::context::Context;
use crate::metadata::{ConfigChange, ConfigOp, MetadataError};

pub(super) async fn handle(ctx: &Context, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let changes = request.resources.iter().map(change).collect();
    let results = alter(ctx, changes, request.validate_only).await;
    let answer = |(resource, (code, message)): (&AlterConfigsResource, _)| {
        AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_error_code(code)
            .with_error_message(message)
    };
    AlterConfigsResponse::default().with_responses(request.resources.iter().zip(results).map(answer).collect())
}

fn change(resource: &AlterConfigsResource) -> Result<ConfigChange, MetadataError> {
    let owner = owner(resource.resource_type, &resource.resource_name)?;
    let mut ops = Vec::with_capacity(resource.configs.len());
    for config in &resource.configs {
        let Some(value) = &config.value else {
            return Err(MetadataError::InvalidRequest(format!("Null value not supported for : {}", config.name)));
        };
        ops.push((config.name.to_string(), ConfigOp::Set(value.to_string())));
    }
    Ok(ConfigChange { owner, ops, replace: true })
}
