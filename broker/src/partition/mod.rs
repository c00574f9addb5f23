//! Partitions as clients see them: append, fetch, offsets and leaders. Which shard carries a partition is invisible to
//! callers.
//!
//! Callers hold a [`Partitions`] (cheap clone) and find a [`Partition`] with it (a cheap handle for one request). May
//! not know: sockets, wire versions, group logic.

mod append;
mod delayed_fetch;
mod elections;
mod fetch;
mod handle;
mod leaders;
mod list_offsets;
pub mod marker;
mod partitions;
#[cfg(test)]
mod tests;
mod types;
mod validate;

pub use crate::replicated::error::{AppendError, PartitionError, RecordError};
pub use crate::shard::ConnectionId;
pub use crate::shard::data_waiters::ChangeFeed;
pub use crate::shard::read_view::Subscription;
pub use append::{Appending, RefusedBefore};
pub use elections::{Elected, ElectionError, ElectionKind};
pub use handle::Partition;
pub use leaders::{Leader, Leaders};
pub use partitions::Partitions;
pub use types::{
    AbortedTransaction, Access, Acks, ActiveProducer, AppendOptions, Appended, EpochEnd, FetchSpec, Fetched,
    FetchedRecords, Isolation, Leadership, ListedOffset, OffsetQuery, Origin, ProducerTransaction, TopicRef,
    TransactionDecision, TransactionPart, Watermarks,
};
