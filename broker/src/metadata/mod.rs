//! The cluster's metadata: one Raft group with one writer. All other modules read an immutable image that is swapped
//! whole.
//!
//! - State: `command` is the content of an entry, `state_machine` applies it, `image` is the result, `records` its
//!   checkpoint.
//! - Controller: `controller` is the one writer, `decide` its decisions, `placement` assigns partitions to shards,
//!   `handle` and `controller_client` lead to it from any node.
//! - Discovery: `bootstrap_service`, `discovery`, `peer_table`, `registration`, `removal_detector`.
//! - Tasks of the leader: `balancer` (`moves`, `topic_shards` and `balance` say what is due), `heartbeats`, `membership_reconciler`.
//!
//! May not know: partitions' contents, sockets, requests of clients.

mod action;
pub mod balance;
mod balancer;
pub mod bootstrap_service;
mod clock;
pub mod command;
mod config_change;
mod controller;
mod controller_client;
mod decide;
mod discovery;
mod error;
mod features;
mod fencing;
mod fields;
mod first_epochs;
mod forward_codec;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod handle;
mod heartbeats;
pub mod image;
mod leader_locator;
mod liveness;
mod log_dir_mover;
mod log_dirs;
pub(crate) mod membership_reconciler;
mod merge_record;
mod merges;
mod move_executor;
mod move_plan;
mod moves;
pub mod names;
mod nodes;
mod peer_table;
pub mod placement;
mod quorum;
mod reassign;
mod reassigner;
mod records;
mod registration;
mod removal_detector;
mod replica;
pub mod requests;
mod sessions;
pub mod shard_id;
mod single_flight;
mod splits;
pub mod start;
pub mod state_machine;
#[cfg(test)]
mod tests;
mod topic_shards;

pub use crate::codec::CodecError;
pub use crate::levels::{
    FEATURE, FeatureLevel, KAFKA_FEATURE, KAFKA_LEVEL, Levels, TRANSACTION_FEATURE, TRANSACTION_LEVEL,
    transaction_level,
};
pub use bootstrap_service::{bootstrap_address, node_rpc_address};
pub use command::IntentEnd;
pub use config_change::check_names;
pub use discovery::{SeedNodes, Seeds};
pub use error::MetadataError;
pub use handle::MetadataHandle;
pub use image::{
    CLUSTER_LISTENER, CONSUMER_OFFSETS, DirectoryRecord, Intent, IntentKey, IntentKind, ListenerEndpoint,
    MetadataImage, NodeRecord, NodeState, PartitionRoute, ReplicaRecord, ShardId, ShardKind, ShardRecord, SplitRecord,
    SplitReplica, TRANSACTION_STATE, Topic,
};
pub use liveness::{FenceReason, Liveness};
pub use log_dirs::DirectoryChange;
pub use merge_record::{MergePhase, MergeRecord, MergeReplica, MergeStep, SealReport, merged_epoch_base};
pub use names::{is_internal, is_valid_topic_name};
pub use peer_table::PeerTable;
pub use records::ShardCreation;
pub use replica::recovery_state_machine;
pub use requests::{
    ConfigChange, ConfigOp, ConfigOwner, CreatedTopic, FeatureUpdate, InternalTopic, MetadataQuorum, NewPartitions,
    NewTopic, Nodes, QuorumMember, Reassignment, TopicName, UpgradeType,
};
pub use start::{LocalNode, StartError, is_metadata, metadata_among, newest_image};
pub use state_machine::MetadataStateMachine;
