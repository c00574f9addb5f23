//! ListConfigResources (key 74, v0-v1): the resources that have configs (KIP-1142).
//!
//! v0 (formerly ListClientMetricsResources) lists client metrics subscriptions, v1 the requested types, all where none
//! is named: topics, nodes, log levels of nodes, subscriptions, groups that have configs.
//! UNSUPPORTED_VERSION for other types.

use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use ottla_protocol::error::ErrorCode;

use super::support::config_resource::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::MetadataImage;

pub(super) async fn handle(
    ctx: &Context,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let all = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];
    if request.resource_types.iter().any(|kind| !all.contains(kind)) {
        return ListConfigResourcesResponse::default().with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let _ = ctx.metadata.read_index().await;
    let image = ctx.metadata.image();
    let wanted = |kind: &i8| match request.resource_types.as_slice() {
        [] if version == 0 => *kind == CLIENT_METRICS,
        [] => true,
        types => types.contains(kind),
    };
    let resources = all.into_iter().filter(wanted).flat_map(|kind| of_kind(&image, kind)).collect();
    ListConfigResourcesResponse::default().with_config_resources(resources)
}

fn of_kind(image: &MetadataImage, kind: i8) -> Vec<ConfigResource> {
    let resource = |name: &str| ConfigResource::default().with_resource_type(kind).with_resource_name(text(name));
    match kind {
        TOPIC => image.topics.keys().map(|name| resource(name)).collect(),
        BROKER | BROKER_LOGGER => image.nodes.keys().map(|node| resource(&node.0.to_string())).collect(),
        CLIENT_METRICS => image.client_metrics.keys().map(|subscription| resource(subscription)).collect(),
        GROUP => image.group_configs.keys().map(|group| resource(group)).collect(),
        _ => Vec::new(),
    }
}
