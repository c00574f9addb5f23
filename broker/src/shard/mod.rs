//! One Raft group carrying many partitions: commands, apply, appender, manager. Sole caller of a Raft group beside `metadata`.

pub mod clock;
mod codec;
pub mod command;
pub mod epochs;
mod group;
mod keys;
pub mod machine;
pub mod published;
mod queue;
pub mod state;
mod sticky;
