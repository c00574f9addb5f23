//! A shard: one Raft group that carries many partitions. Appender, apply of entries, leadership, and the manager of a
//! node's shards.
//!
//! Beside `metadata` the only caller of Raft groups. May not know: topics' names, clients.

pub(crate) mod answer;
pub(crate) mod append_queue;
mod appender;
pub mod clock;
mod closed_replicas;
mod cut_points;
pub(crate) mod data_waiters;
#[cfg(test)]
pub(crate) mod fake;
mod former_leader;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod group;
mod handle;
mod handover;
pub(crate) mod idempotence_fence;
mod lag_request;
pub(crate) mod leader_clock;
mod leadership;
pub mod manager;
mod merge_partners;
pub mod metadata_view;
mod min_isr;
mod node_clocks;
mod partition_ends;
mod peer_services;
mod proposal_window;
pub(crate) mod queued;
mod read_barrier;
pub mod read_view;
mod rpc;
mod rpc_service;
mod seeded_children;
mod set_clock;
mod siblings;
pub mod state_machine;
mod state_machine_view;
pub(crate) mod tasks;
mod traffic;
mod unsafe_recovery;

pub use crate::codec::CodecError;
pub use closed_replicas::ClosedReplica;
pub use handle::Shard;
pub use idempotence_fence::ConnectionId;
#[cfg(test)]
pub(crate) use lag_request::PartitionEnds;
pub(crate) use lag_request::{CommittedPosition, ControlCount, EndsAnswer, TopicPositions};
pub use leader_clock::ShardTime;
pub(crate) use manager::leader_known_to;
pub use manager::{OpenError, Shards, creation_of};
pub use metadata_view::MetadataView;
pub(crate) use peer_services::transactions_request;
pub(crate) use rpc::PeerService;
pub use rpc::{ElectionOutcome, SetClockOutcome};
pub use tasks::LeaderTaskSettings;
pub use unsafe_recovery::recovery_state_machine;
