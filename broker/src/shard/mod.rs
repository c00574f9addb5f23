//! One Raft group carrying many partitions: commands, apply, appender, manager. Sole caller of a Raft group beside `metadata`.

pub mod clock;
mod codec;
pub mod command;
mod creation;
pub mod epochs;
mod group;
mod keys;
pub mod machine;
pub mod published;
mod queue;
#[allow(clippy::module_inception)]
mod shard;
pub mod state;
mod sticky;

pub use codec::CodecError;
pub use creation::ShardCreation;
pub use shard::Shard;
