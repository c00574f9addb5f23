//! The one table of settings and the typed configuration made from it, validated once.
//!
//! The table serves the file, the environment, the command line, DescribeConfigs, AlterConfigs and `docs/configuration.md`.
//! May not know: anything that uses a setting.

pub mod listeners;
pub mod topic;
pub mod typed;

pub use listeners::{Endpoint, Listener, SecurityProtocol};
pub use topic::{CleanupPolicy, CompressionType, TimestampType, TopicConfig};
pub use typed::{Config, GroupConfig, LogConfig, NetworkConfig, OffsetsConfig, TopicsConfig, TransactionConfig};
