//! The table of settings, and the typed configuration made from it, validated once.
//!
//! The same table is used for the file, the environment, the command line, DescribeConfigs, AlterConfigs and
//! `docs/configuration.md`.
//! May not know: anything that uses a setting.

pub mod client_metrics_table;
pub mod describe;
pub mod flags;
pub mod group_table;
pub mod listener_security;
pub mod listeners;
pub mod metrics;
pub mod name_filter;
pub mod reference;
pub mod setting;
pub mod sources;
pub mod table;
pub mod topic;
pub mod topic_table;
pub mod typed;
pub mod values;

pub use listeners::{Endpoint, Listener, SecurityProtocol};
pub use metrics::MetricsConfig;
pub use name_filter::{InvalidExpression, NameFilter};
pub use sources::{Inputs, Loaded, load};
pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
pub use typed::{
    Config, GroupConfig, LivenessConfig, LogConfig, NetworkConfig, OffsetsConfig, ReplicationConfig, TopicsConfig,
    TransactionConfig,
};
pub use values::{Source, Values};

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that a setting does not accept.
    #[error("Invalid value {value} for configuration {name}: {why}")]
    Invalid {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// No topic setting has this name.
    #[error("Unknown topic config name: {name}{}", did_you_mean(*nearest))]
    UnknownTopicConfig {
        /// What was given.
        name: String,
        /// The nearest that is known.
        nearest: Option<&'static str>,
    },
    /// No `ottla.` setting has this name.
    #[error("unknown setting {name} ({origin}){}", did_you_mean(nearest.as_deref()))]
    UnknownSetting {
        /// What was given.
        name: String,
        /// Where.
        origin: String,
        /// The nearest that is known.
        nearest: Option<String>,
    },
    /// No flag has this name.
    #[error("unknown flag {flag}{}", did_you_mean(nearest.as_deref()))]
    UnknownFlag {
        /// What was given.
        flag: String,
        /// The nearest that is known.
        nearest: Option<String>,
    },
    /// A flag without its value, or a word that is no flag.
    #[error("{0}")]
    Usage(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// Its path.
        path: String,
        /// The system's error, or the invalid line.
        why: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

impl From<setting::InvalidValue> for ConfigError {
    fn from(invalid: setting::InvalidValue) -> Self {
        Self::Invalid { name: invalid.name, value: invalid.value, why: invalid.why }
    }
}
