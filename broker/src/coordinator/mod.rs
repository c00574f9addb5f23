//! Coordinators: decide on the leader, append through `partition`, and replay on every replica what was committed.
//!
//! `group` coordinates consumer groups and keeps their offsets; `lag` says how far behind they are.
//! May not know: sockets, wire versions, Raft.

mod by_leadership;
#[cfg(test)]
mod fake_topic;
pub mod group;
pub mod lag;
mod partition_writer;
mod topic_log;
pub mod transaction;

pub use partition_writer::PartitionWriter;
pub use topic_log::{AppendFuture, Conditions, Leadership, PartitionClock, TopicLog, partition_for};
