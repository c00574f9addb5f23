//! The types of requests to the metadata and of their results.
//!
//! May not know: the wire.

use std::collections::BTreeMap;

use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use crate::levels::FeatureLevel;

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Number of partitions; `None`: `num.partitions`.
    pub partitions: Option<i32>,
    /// Number of replicas; `None`: `default.replication.factor`.
    pub factor: Option<i16>,
    /// Nodes of each partition, by its number; empty: the broker chooses.
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    /// Its config overrides.
    pub configs: BTreeMap<String, String>,
}

/// A topic as created, or as it would be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// Number of partitions.
    pub partitions: i32,
    /// Number of replicas.
    pub factor: i16,
    /// Its config overrides, with normalised values.
    pub overrides: BTreeMap<String, String>,
}

/// The name or id of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicName {
    /// By its name.
    Name(String),
    /// By its id.
    Id(Uuid),
}

/// Partitions to be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewPartitions {
    /// The topic's name.
    pub topic: String,
    /// The new number of partitions.
    pub count: i32,
    /// Nodes of each new partition; `None`: the broker chooses.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// The feature level from which on groups have configs.
pub const GROUP_CONFIGS: FeatureLevel = FeatureLevel(5);

/// The feature level from which on there are subscriptions of client metrics.
pub const CLIENT_METRICS: FeatureLevel = FeatureLevel(6);

/// The resource that a configuration belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigOwner {
    /// A topic.
    Topic(String),
    /// One node.
    Node(NodeId),
    /// All nodes.
    AllNodes,
    /// A group, whether it exists or not. From feature level 5 on.
    Group(String),
    /// A subscription of client metrics, which exists as long as it says something. From feature level 6 on.
    ClientMetrics(String),
}

/// The change of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    /// It gets this value.
    Set(String),
    /// Its value is removed.
    Delete,
    /// These elements are appended to the list.
    Append(String),
    /// These elements are removed from the list.
    Subtract(String),
}

/// A change of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// The resource.
    pub owner: ConfigOwner,
    /// The changes, by name of the setting.
    pub ops: Vec<(String, ConfigOp)>,
    /// True if the values of all other settings are removed.
    pub replace: bool,
}

/// The internal topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InternalTopic {
    /// `__consumer_offsets`.
    ConsumerOffsets,
    /// `__transaction_state`.
    TransactionState,
}

impl InternalTopic {
    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::ConsumerOffsets, Self::TransactionState].into_iter().find(|topic| topic.name() == name)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsumerOffsets => super::CONSUMER_OFFSETS,
            Self::TransactionState => super::TRANSACTION_STATE,
        }
    }
}

/// The metadata group as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataQuorum {
    /// The node that leads it.
    pub leader: NodeId,
    /// Its term.
    pub term: u64,
    /// The end of the committed entries.
    pub high_watermark: i64,
    /// The voters.
    pub voters: Vec<QuorumMember>,
    /// The learners.
    pub observers: Vec<QuorumMember>,
}

/// A member of the metadata group. Times are in milliseconds since 1970, -1 if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its node.
    pub node: NodeId,
    /// The data directory it is bound to.
    pub directory: Uuid,
    /// The end of its log as far as the leader knows it, -1 if unknown.
    pub log_end: i64,
    /// When the request was sent that it acknowledged last.
    pub last_fetch_ms: i64,
    /// When it last was fully caught up.
    pub last_caught_up_ms: i64,
}

/// A partition to be reassigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// Its topic's name.
    pub topic: String,
    /// Its number.
    pub index: i32,
    /// The nodes of its new replicas, preferred leader first; `None`: cancels the reassignment in progress.
    pub nodes: Option<Vec<NodeId>>,
}

/// Selects nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// One.
    One(NodeId),
    /// All of a zone.
    Zone(String),
}

/// Which changes of a feature's level are allowed (KIP-584).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    /// Higher.
    Upgrade,
    /// Lower, if that loses no metadata.
    SafeDowngrade,
    /// Lower, even if that loses metadata.
    UnsafeDowngrade,
}

/// The update of a feature's level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Its name.
    pub feature: String,
    /// The level.
    pub level: FeatureLevel,
    /// `None`: an unknown type.
    pub kind: Option<UpgradeType>,
}
