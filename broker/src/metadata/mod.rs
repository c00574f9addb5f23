//! The land registry: one Raft group with one writer; everybody reads an immutable image swapped whole.
//!
//! `command` is what the group agrees on, `machine` applies it, `image` is what everybody reads, `placement` decides
//! where partitions go, `controller` is the one writer. May not know: partitions' contents, sockets, requests.

mod codec;
pub mod command;
pub mod image;
pub mod machine;
mod records;
pub mod shared_map;

pub use codec::DecodeError;
pub use command::IntentEnd;
pub use image::{
    CONSUMER_OFFSETS, DirectoryRecord, Intent, IntentKey, IntentKind, ListenerEndpoint, MetadataImage, NodeRecord,
    PartitionRoute, ReplicaRecord, ShardId, ShardKind, ShardRecord, TRANSACTION_STATE, Topic,
};
pub use machine::Machine;
pub use records::ShardCreation;
