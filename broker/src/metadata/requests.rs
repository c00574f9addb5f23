//! The words in which the metadata is asked for changes, and what it answers.
//!
//! May not know: the wire.

use std::collections::BTreeMap;

use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use super::levels::FeatureLevel;

/// A topic to be made.
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
    /// What is set for it.
    pub configs: BTreeMap<String, String>,
}

/// A topic as made, or as it would be made.
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
    /// What is set for it, in plain form.
    pub overrides: BTreeMap<String, String>,
}

/// Names a topic.
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
    /// Number of partitions it is to have.
    pub count: i32,
    /// Nodes of each new partition; `None`: the broker chooses.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// What a configuration belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigOwner {
    /// A topic.
    Topic(String),
    /// One node.
    Node(NodeId),
    /// All nodes.
    AllNodes,
}

/// What is to become of one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    /// It takes this value.
    Set(String),
    /// It is no longer set.
    Delete,
    /// These words join the list.
    Append(String),
    /// These words leave the list.
    Subtract(String),
}

/// A change of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Whose.
    pub owner: ConfigOwner,
    /// What, by name.
    pub ops: Vec<(String, ConfigOp)>,
    /// True when all that is not named is no longer set.
    pub replace: bool,
}

/// The broker's own topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InternalTopic {
    /// `__consumer_offsets`.
    ConsumerOffsets,
    /// `__transaction_state`.
    TransactionState,
}

impl InternalTopic {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ConsumerOffsets => super::CONSUMER_OFFSETS,
            Self::TransactionState => super::TRANSACTION_STATE,
        }
    }
}

/// The metadata group as its leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataQuorum {
    /// The node that leads it.
    pub leader: NodeId,
    /// Its term.
    pub term: u64,
    /// The end of what is committed.
    pub high_watermark: i64,
    /// Those that vote.
    pub voters: Vec<QuorumMember>,
    /// Those that only learn.
    pub observers: Vec<QuorumMember>,
}

/// A member of the metadata group. Times are in milliseconds since 1970, -1 if unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumMember {
    /// Where it lives.
    pub node: NodeId,
    /// The data directory it is bound to.
    pub directory: Uuid,
    /// The end of what it is known to have, -1 if nothing is known.
    pub end: i64,
    /// When what it answered last was sent.
    pub heard_ms: i64,
    /// When it last had everything.
    pub caught_up_ms: i64,
}

/// A partition that is to have other replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// Its topic's name.
    pub topic: String,
    /// Its number.
    pub index: i32,
    /// Where its replicas are to lie, preferred leader first; `None`: where they did, before what is under way.
    pub nodes: Option<Vec<NodeId>>,
}

/// Names nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    /// One.
    One(NodeId),
    /// All of a zone.
    Zone(String),
}

/// What a change of a feature's level is allowed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    /// Higher.
    Upgrade,
    /// Lower, where nothing is lost by it.
    SafeDowngrade,
    /// Lower, whatever is lost.
    UnsafeDowngrade,
}

/// A feature that is to have another level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// Its name.
    pub feature: String,
    /// The level.
    pub level: FeatureLevel,
    /// `None`: a kind that is not known.
    pub kind: Option<UpgradeType>,
}
