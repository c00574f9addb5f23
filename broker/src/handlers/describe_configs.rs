//! DescribeConfigs (key 32, v1-v4): all settings of topics, nodes, groups and subscriptions of client metrics, with type,
//! source and, if requested, synonyms and documentation (v3, KIP-569).
//!
//! A group and a subscription have configs whether they exist or not, as in Kafka. A node is shown with its static and
//! dynamic settings, the empty name with the settings of all nodes. Unknown keys are left out, as in Kafka. A node can show
//! only its own static settings: another node's id is INVALID_REQUEST. Its loggers are shown with their levels.
//! Read after a metadata read index, so that every acknowledged change is visible.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::support::broker_loggers;
use super::support::config_resource::{BROKER_LOGGER, owner};
use super::support::text;
use crate::config::Source;
use crate::config::describe::{
    Described, describe_all_nodes, describe_client_metrics, describe_group, describe_node, describe_topic,
    describe_unknown,
};
use crate::handlers::context::Context;
use crate::metadata::{ConfigOwner, MetadataError, MetadataImage, is_valid_topic_name};

/// What the response shows of each setting.
struct Detail {
    version: i16,
    synonyms: bool,
    documentation: bool,
}

pub(super) async fn handle(ctx: &Context, version: i16, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    // Without a leader to confirm it, the local image is used: the settings help to find out why there is none. Only
    // that a topic does not exist is not reported then.
    let unconfirmed = ctx.metadata.read_index().await.err();
    let image = ctx.metadata.image();
    let detail = Detail {
        version,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation && version >= 3,
    };
    let results =
        request.resources.iter().map(|resource| result(ctx, &image, &detail, resource, unconfirmed.as_ref())).collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn result(
    ctx: &Context,
    image: &MetadataImage,
    detail: &Detail,
    resource: &DescribeConfigsResource,
    unconfirmed: Option<&MetadataError>,
) -> DescribeConfigsResult {
    let answer = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_message(None);
    let found = match resource.resource_type {
        BROKER_LOGGER => broker_loggers::describe(ctx, &resource.resource_name),
        kind => owner(kind, &resource.resource_name).and_then(|owner| describe(ctx, image, &owner)),
    };
    match found {
        Ok(all) => {
            let wanted = |described: &Described| match &resource.configuration_keys {
                Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == described.name),
                _ => true,
            };
            answer.with_configs(all.into_iter().filter(wanted).map(|described| shown(detail, described)).collect())
        }
        Err(error) => {
            let error = unconfirmed.filter(|_| error == MetadataError::UnknownTopic).unwrap_or(&error);
            answer.with_error_code(error.code().code()).with_error_message(Some(text(&error.to_string())))
        }
    }
}

fn describe(ctx: &Context, image: &MetadataImage, owner: &ConfigOwner) -> Result<Vec<Described>, MetadataError> {
    match owner {
        ConfigOwner::Topic(name) if !is_valid_topic_name(name) => {
            Err(MetadataError::InvalidTopic(format!("Topic name is invalid: {}", name.escape_debug())))
        }
        ConfigOwner::Topic(name) => {
            let topic = image.topic(name).ok_or(MetadataError::UnknownTopic)?;
            Ok(describe_topic(&image.config.values, &topic.overrides))
        }
        ConfigOwner::Node(node) if *node == ctx.config.node_id => {
            let mut all = describe_node(&image.config.values);
            let owners = [(Some(*node), Source::DynamicNode), (None, Source::DynamicDefault)];
            let sets = owners.into_iter().filter_map(|(of, source)| Some((image.broker_configs.get(&of)?, source)));
            all.extend(describe_unknown(sets));
            Ok(all)
        }
        ConfigOwner::Node(node) => Err(MetadataError::InvalidRequest(format!(
            "Unexpected broker id, expected {} or empty string, but received {}",
            ctx.config.node_id.0, node.0
        ))),
        ConfigOwner::Group(group) => Ok(describe_group(&image.config.values, image.group_configs.get(group))),
        ConfigOwner::ClientMetrics(subscription) => {
            Ok(describe_client_metrics(&image.config.values, image.client_metrics.get(subscription)))
        }
        ConfigOwner::AllNodes => Ok(image.broker_configs.get(&None).map(describe_all_nodes).unwrap_or_default()),
    }
}

fn shown(detail: &Detail, described: Described) -> DescribeConfigsResourceResult {
    let answer = DescribeConfigsResourceResult::default()
        .with_name(text(&described.name))
        .with_value(described.value.as_deref().map(text))
        .with_read_only(described.read_only)
        .with_config_source(described.source)
        .with_is_sensitive(described.sensitive);
    let answer = if detail.synonyms {
        let synonyms = described.synonyms.iter().map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value(synonym.value.as_deref().map(text))
                .with_source(synonym.source)
        });
        answer.with_synonyms(synonyms.collect())
    } else {
        answer
    };
    if detail.version < 3 {
        return answer;
    }
    let documentation = detail.documentation.then(|| text(&described.documentation));
    answer.with_config_type(described.kind).with_documentation(documentation)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::protocol::Encodable;

    use super::*;
    use crate::config::Config;

    #[test]
    fn answers_encode_in_every_version_with_and_without_details() {
        for version in 1..=4 {
            for details in [false, true] {
                let detail = Detail { version, synonyms: details, documentation: details && version >= 3 };
                let all = describe_node(&Config::default().values);
                let configs: Vec<_> = all.into_iter().map(|described| shown(&detail, described)).collect();
                assert!(version < 3 || configs.iter().all(|config| config.documentation.is_some() == details));
                let result = DescribeConfigsResult::default().with_configs(configs);
                let response = DescribeConfigsResponse::default().with_results(vec![result]);
                response.encode(&mut BytesMut::new(), version).unwrap();
            }
        }
    }
}
