//! One Raft group carrying many partitions: commands, apply, appender, manager. Sole caller of a Raft group beside `metadata`.

mod codec;
pub mod command;
