//! Feature levels as an administrator sees them: supported by brokers, and finalized.
//!
//! May not know: what a feature is for.

use std::collections::BTreeMap;

use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{ApiVersionsRequest, UpdateFeaturesRequest};
use kafka_protocol::protocol::StrBytes;

use super::cluster::Cluster;
use super::connection::{CLIENT_ID, REQUEST_TIMEOUT_MS};
use super::error::ClientError;

const UPGRADE: i8 = 1;

/// A feature as an ApiVersions response describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureView {
    /// The lowest and the highest level that the broker understands.
    pub supported: Option<(i16, i16)>,
    /// The finalized level.
    pub level: Option<i16>,
}

impl Cluster {
    /// The features of the broker that responds, by name.
    ///
    /// # Errors
    /// When no broker responds.
    pub async fn features(&mut self) -> Result<BTreeMap<String, FeatureView>, ClientError> {
        let make = |_| {
            ApiVersionsRequest::default()
                .with_client_software_name(StrBytes::from_static_str(CLIENT_ID))
                .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
        };
        let answer = self.brokers.send_any(3..=4, make).await?;
        ClientError::check(answer.error_code, None, || "features".to_owned())?;
        let mut features: BTreeMap<String, FeatureView> = BTreeMap::new();
        for one in answer.supported_features {
            features.entry(one.name.to_string()).or_default().supported = Some((one.min_version, one.max_version));
        }
        for one in answer.finalized_features {
            features.entry(one.name.to_string()).or_default().level = Some(one.max_version_level);
        }
        Ok(features)
    }

    /// Raises the finalized levels of features, all or none.
    ///
    /// # Errors
    /// When a broker does not support a level, or no broker responds.
    pub async fn upgrade_features(&mut self, levels: &[(String, i16)], validate_only: bool) -> Result<(), ClientError> {
        let update = |(name, level): &(String, i16)| {
            FeatureUpdateKey::default()
                .with_feature(StrBytes::from_string(name.clone()))
                .with_max_version_level(*level)
                .with_upgrade_type(UPGRADE)
        };
        let make = |_| {
            UpdateFeaturesRequest::default()
                .with_timeout_ms(REQUEST_TIMEOUT_MS)
                .with_feature_updates(levels.iter().map(update).collect())
                .with_validate_only(validate_only)
        };
        let answer = self.brokers.send_any(1..=2, make).await?;
        ClientError::check(answer.error_code, answer.error_message.as_deref(), || "features".to_owned())?;
        // Up to Kafka 3 each feature has its own error.
        for one in answer.results {
            ClientError::check(one.error_code, one.error_message.as_deref(), || format!("feature {}", &*one.feature))?;
        }
        Ok(())
    }
}
