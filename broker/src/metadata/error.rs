//! Why a metadata request is refused. Small causes with the messages that clients get; the mapping to Kafka's codes is
//! total.

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use thiserror::Error;

use crate::config::ConfigError;

/// Why a change was refused, or its outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// No topic of that name.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// No topic of that id.
    #[error("This server does not host this topic ID.")]
    UnknownTopicId,
    /// A topic of that name exists.
    #[error("Topic '{0}' already exists.")]
    TopicExists(String),
    /// The name is not allowed, or reserved for the broker.
    #[error("{0}")]
    InvalidTopic(String),
    /// The number of partitions is not allowed.
    #[error("{0}")]
    InvalidPartitions(String),
    /// The number of replicas is not allowed.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// The manual replica assignment is not allowed.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// There is no reassignment that could be cancelled.
    #[error("No partition reassignment is in progress.")]
    NoReassignmentInProgress,
    /// No such node.
    #[error("Broker {0} is not registered.")]
    NotRegistered(String),
    /// A configuration value is not allowed.
    #[error("{0}")]
    InvalidConfig(String),
    /// The change would exceed a limit of the cluster.
    #[error("{0}")]
    PolicyViolation(String),
    /// The request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// A feature cannot have this level.
    #[error("{0}")]
    InvalidUpdateVersion(String),
    /// The node's build does not understand the cluster's feature level.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// `delete.topic.enable` is false.
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    /// Another node leads the metadata group, or none yet.
    #[error("This is not the correct controller for this cluster.")]
    NotController {
        /// The node that leads, if it is known.
        leader: Option<NodeId>,
    },
    /// The change may or may not have been made: the client is to retry.
    #[error("The request timed out.")]
    TimedOut,
    /// Too many requests are queued: the client is to retry.
    #[error("Too many changes of the metadata are waiting.")]
    Overloaded,
    /// The metadata replica of this node has stopped.
    #[error("The metadata of this node has stopped: {0}")]
    Stopped(String),
}

/// A request that the state of the cluster does not allow.
pub(super) fn invalid(what: String) -> MetadataError {
    MetadataError::InvalidRequest(what)
}

impl MetadataError {
    /// The Kafka error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
            Self::UnknownTopicId => ErrorCode::UnknownTopicId,
            Self::TopicExists(_) => ErrorCode::TopicAlreadyExists,
            Self::InvalidTopic(_) => ErrorCode::InvalidTopic,
            Self::InvalidPartitions(_) => ErrorCode::InvalidPartitions,
            Self::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
            Self::InvalidReplicaAssignment(_) => ErrorCode::InvalidReplicaAssignment,
            Self::NoReassignmentInProgress => ErrorCode::NoReassignmentInProgress,
            Self::NotRegistered(_) => ErrorCode::BrokerIdNotRegistered,
            Self::InvalidConfig(_) => ErrorCode::InvalidConfig,
            Self::PolicyViolation(_) => ErrorCode::PolicyViolation,
            Self::InvalidRequest(_) => ErrorCode::InvalidRequest,
            Self::InvalidUpdateVersion(_) => ErrorCode::InvalidUpdateVersion,
            Self::UnsupportedVersion(_) => ErrorCode::UnsupportedVersion,
            Self::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
            Self::NotController { .. } => ErrorCode::NotController,
            Self::TimedOut | Self::Overloaded => ErrorCode::RequestTimedOut,
            Self::Stopped(_) => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<ConfigError> for MetadataError {
    fn from(error: ConfigError) -> Self {
        Self::InvalidConfig(error.to_string())
    }
}
