//! Coordinators: decide on the leader, append through `partition`, and replay on every replica what was committed.
//!
//! `group` coordinates consumer groups and keeps their offsets; `lag` says how far behind they are.
//! May not know: sockets, wire versions, Raft.

pub mod group;
pub mod lag;
pub mod transaction;
