//! UpdateFeatures (key 57, v0-v2): changes the level of a feature (KIP-584, KIP-778). The feature that
//! changes is `ottla.version`; `metadata.version` has one level.
//!
//! As in Kafka 4, in every version the request is applied as a whole or not at all: a top-level INVALID_UPDATE_VERSION
//! for a level that a registered node does not understand, and for a downgrade, which is never applied; v0-v1 name each
//! feature in the response of success. v0 has a flag that allows a downgrade, v1 the type of the change and a dry run.

use std::time::Duration;

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::update_features_response::UpdatableFeatureResult;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::support::text;
use crate::handlers::context::Context;
use crate::metadata::{FeatureLevel, FeatureUpdate, MetadataError, UpgradeType};

pub(super) async fn handle(ctx: &Context, version: i16, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let update = |asked: &FeatureUpdateKey| FeatureUpdate {
        feature: asked.feature.to_string(),
        level: FeatureLevel(asked.max_version_level),
        kind: kind(version, asked),
    };
    let asked = request.feature_updates.iter().map(update).collect();
    let wait = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let answer = UpdateFeaturesResponse::default().with_error_message(None);
    match ctx.metadata.update_features(asked, request.validate_only, wait).await {
        Ok(()) if version < 2 => {
            let result = |asked: &FeatureUpdateKey| {
                UpdatableFeatureResult::default().with_feature(asked.feature.clone()).with_error_message(None)
            };
            answer.with_results(request.feature_updates.iter().map(result).collect())
        }
        Ok(()) => answer,
        Err(error) => {
            let why = match &error {
                MetadataError::InvalidUpdateVersion(why) => {
                    format!("The update failed for all features since the following feature had an error: {why}")
                }
                other => other.to_string(),
            };
            answer.with_error_code(error.code().code()).with_error_message(Some(text(&why)))
        }
    }
}

fn kind(version: i16, asked: &FeatureUpdateKey) -> Option<UpgradeType> {
    match asked.upgrade_type {
        _ if version == 0 && asked.allow_downgrade => Some(UpgradeType::SafeDowngrade),
        _ if version == 0 => Some(UpgradeType::Upgrade),
        1 => Some(UpgradeType::Upgrade),
        2 => Some(UpgradeType::SafeDowngrade),
        3 => Some(UpgradeType::UnsafeDowngrade),
        _ => None,
    }
}
