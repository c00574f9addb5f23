//! ApiVersions (key 18, v0-v5): the APIs and versions that this broker serves, made from the single table of versions.
//!
//! v3+: name and version of the client's software (KIP-511), INVALID_REQUEST if they are malformed; the feature levels
//! that this build understands and those in force (KIP-584), whose epoch is the index of the metadata. v5: a
//! client that means another cluster or node is told REBOOTSTRAP_REQUIRED (KIP-1242): its metadata is of nodes that have other
//! addresses now. A version above the table's is answered before decoding, in v0 with UNSUPPORTED_VERSION
//! (`handlers::kafka_dispatch`).

use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_protocol::messages::ApiVersionsRequest;
use ottla_protocol::response::advertised_versions;

use crate::handlers::context::Context;
use crate::metadata::{
    FEATURE, FeatureLevel, KAFKA_FEATURE, KAFKA_LEVEL, Levels, MetadataImage, TRANSACTION_FEATURE, transaction_level,
};

/// The node id of a client that means no particular node.
const ANY_NODE: i32 = -1;

pub(super) fn handle(ctx: &Context, version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let image = ctx.metadata.image();
    if let Some(error) = refusal(version, request, &image.cluster_id, ctx.config.node_id) {
        return ApiVersionsResponse::default().with_error_code(error.code());
    }
    let response = ApiVersionsResponse::default().with_api_keys(advertised_versions());
    if version >= 3 { with_features(response, ctx.metadata.levels(), &image) } else { response }
}

/// Why the request is refused. A node that has no cluster id yet takes any.
fn refusal(version: i16, request: &ApiVersionsRequest, cluster_id: &str, node: NodeId) -> Option<ErrorCode> {
    let named = is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version);
    let means_half = version >= 5 && request.cluster_id.is_some() != (request.node_id != ANY_NODE);
    if version >= 3 && !named || means_half {
        return Some(ErrorCode::InvalidRequest);
    }
    let meant = request.cluster_id.as_ref().filter(|_| version >= 5)?;
    let is_other_cluster = !cluster_id.is_empty() && meant.as_str() != cluster_id;
    (is_other_cluster || request.node_id != node.0).then_some(ErrorCode::RebootstrapRequired)
}

/// Adds the supported levels and the finalized one; no finalized level while the node has no cluster metadata yet.
fn with_features(response: ApiVersionsResponse, levels: Levels, image: &MetadataImage) -> ApiVersionsResponse {
    let supported = |name, levels: Levels| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_version(levels.oldest.0)
            .with_max_version(levels.newest.0)
    };
    let finalized = |(name, FeatureLevel(level))| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_version_level(level)
            .with_max_version_level(level)
    };
    let kafkas = Levels { oldest: KAFKA_LEVEL, newest: KAFKA_LEVEL };
    let transactions = Levels { oldest: FeatureLevel(0), newest: transaction_level(levels.newest) };
    let response = response.with_supported_features(vec![
        supported(FEATURE, levels),
        supported(KAFKA_FEATURE, kafkas),
        supported(TRANSACTION_FEATURE, transactions),
    ]);
    if image.cluster_id.is_empty() {
        return response;
    }
    response
        .with_finalized_features_epoch(i64::try_from(image.index.0).unwrap_or(i64::MAX))
        .with_finalized_features(finalized_features(image.level).into_iter().map(finalized).collect())
}

/// As Kafka does, a feature at level 0 is not listed.
fn finalized_features(level: FeatureLevel) -> Vec<(&'static str, FeatureLevel)> {
    let transactions = (TRANSACTION_FEATURE, transaction_level(level));
    let all = [(FEATURE, level), (KAFKA_FEATURE, KAFKA_LEVEL), transactions];
    all.into_iter().filter(|(_, level)| level.0 > 0).collect()
}

/// Letters, digits, `-` and `.`, beginning and ending with a letter or digit, as Kafka has it.
fn is_software_word(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    word.starts_with(plain) && word.ends_with(plain) && word.chars().all(|c| plain(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_are_kafkas() {
        assert!(["librdkafka", "4.1.0", "a", "kafka-python.x"].into_iter().all(is_software_word));
        assert!(!["", "-a", "a.", "a b", "ü"].into_iter().any(is_software_word));
    }

    #[test]
    fn a_client_that_means_another_cluster_or_node_is_sent_to_the_bootstrap_servers() {
        let refused = |version: i16, cluster: Option<&'static str>, node: i32, is_in: &str| {
            let word = StrBytes::from_static_str("a");
            let cluster_id = cluster.map(StrBytes::from_static_str);
            let (name, software_version) = (word.clone(), word);
            let request = ApiVersionsRequest {
                client_software_name: name,
                client_software_version: software_version,
                cluster_id,
                node_id: node,
            };
            refusal(version, &request, is_in, NodeId(3))
        };
        assert_eq!(refused(5, None, -1, "c"), None);
        assert_eq!(refused(5, Some("c"), 3, "c"), None);
        assert_eq!(refused(5, Some("d"), 3, "c"), Some(ErrorCode::RebootstrapRequired));
        assert_eq!(refused(5, Some("c"), 2, "c"), Some(ErrorCode::RebootstrapRequired));
        assert_eq!(refused(5, Some("c"), 3, ""), None, "it has not met its cluster yet");
        // One without the other says nothing.
        assert_eq!(refused(5, Some("c"), -1, "c"), Some(ErrorCode::InvalidRequest));
        assert_eq!(refused(5, None, 3, "c"), Some(ErrorCode::InvalidRequest));
        assert_eq!(refused(4, Some("d"), 2, "c"), None, "fields of version 5");
    }
}
