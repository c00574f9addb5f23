//! ApiVersions (key 18, v0-v4): the APIs and versions that this broker serves, made from the single table of versions.
//!
//! v3+: name and version of the client's software (KIP-511), INVALID_REQUEST if they are malformed; the feature levels
//! that this build understands and the finalized one (KIP-584), whose epoch is the index of the metadata. A version
//! above the table's is answered before decoding, in v0 with UNSUPPORTED_VERSION (`handlers::kafka_dispatch`).

use kafka_protocol::messages::api_versions_response::{FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::response::advertised_versions;

use crate::handlers::context::Context;
use crate::metadata::{FEATURE, Levels, MetadataImage};

pub(super) fn handle(ctx: &Context, version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let named = is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version);
    if version >= 3 && !named {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    let response = ApiVersionsResponse::default().with_api_keys(advertised_versions());
    if version >= 3 { with_features(response, ctx.metadata.levels(), &ctx.metadata.image()) } else { response }
}

/// Adds the supported levels and the finalized one; no finalized level while the node has no cluster metadata yet.
fn with_features(response: ApiVersionsResponse, levels: Levels, image: &MetadataImage) -> ApiVersionsResponse {
    let name = StrBytes::from_static_str(FEATURE);
    let supported = SupportedFeatureKey::default()
        .with_name(name.clone())
        .with_min_version(levels.oldest.0)
        .with_max_version(levels.newest.0);
    let response = response.with_supported_features(vec![supported]);
    if image.cluster_id.is_empty() {
        return response;
    }
    let level = image.level.0;
    let finalized =
        FinalizedFeatureKey::default().with_name(name).with_min_version_level(level).with_max_version_level(level);
    response
        .with_finalized_features_epoch(i64::try_from(image.index.0).unwrap_or(i64::MAX))
        .with_finalized_features(vec![finalized])
}

/// Letters, digits, `-` and `.`, beginning and ending with a letter or digit, as Kafka has it.
fn is_software_word(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    word.starts_with(plain) && word.ends_with(plain) && word.chars().all(|c| plain(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::is_software_word;

    #[test]
    fn software_words_are_kafkas() {
        assert!(["librdkafka", "4.1.0", "a", "kafka-python.x"].into_iter().all(is_software_word));
        assert!(!["", "-a", "a.", "a b", "ü"].into_iter().any(is_software_word));
    }
}
