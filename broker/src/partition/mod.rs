//! All that a client may know of a partition; which shard carries it is invisible from here up.
//!
//! Callers hold a [`Partitions`] (cheap clone) and ask it for a [`Partition`] (a cheap handle that lives for one request).
//! May not know: sockets, wire versions, group logic. `producer_state` is pure and is run by the shard's state machine.

mod error;
pub mod producer_state;
mod types;
mod validate;

pub use error::{AppendError, PartitionError, RecordError};
pub use types::{
    AbortedTransaction, Acks, ActiveProducer, AppendOptions, Appended, ConnectionId, EpochEnd, FetchSpec, Fetched,
    Isolation, Leadership, ListedOffset, OffsetQuery, Origin, TopicRef, Watermarks,
};

// The methods that land next, in their final form:
//
// impl Partitions {   // Clone
//     /// Waits for adoption (which jumps the queue), then LEADER_NOT_AVAILABLE; does a metadata read index before "unknown".
//     pub async fn find(&self, topic: TopicRef<'_>, index: i32) -> Result<Partition, PartitionError>;
//     /// Without waiting: from the tables as they are.
//     pub fn find_now(&self, topic: TopicRef<'_>, index: i32) -> Result<Option<Partition>, PartitionError>;
//     pub fn leadership(&self, topic: &Topic, index: i32) -> Leadership;             // for Metadata, KIP-951 hints
//     /// Returns at once when the sum of new bytes reaches `min_bytes`, a leadership changes or `deadline` passes.
//     pub async fn wait_for_data(&self, waits: &[(Partition, Offset, Isolation)], min_bytes: usize, deadline: rt::Instant);
//     pub fn connection_closed(&self, connection: ConnectionId);
//     pub fn led_partitions(&self, topic: Uuid) -> Vec<i32>;                          // that this node leads
// }
// impl Partition {    // Clone
//     pub fn id(&self) -> PartitionId;  pub fn topic(&self) -> &Arc<Topic>;
//     pub fn leader_epoch(&self) -> Option<LeaderEpoch>;      // Some only where this node leads and serves
//     pub fn watermarks(&self) -> Watermarks;
//     /// Enqueueing (and validation) happen in this call, in call order; the future only waits.
//     pub fn append(&self, batch: Bytes, options: AppendOptions) -> impl Future<Output = Result<Appended, AppendError>> + Send + 'static;
//     pub async fn read(&self, spec: FetchSpec) -> Result<Fetched, PartitionError>;
//     pub async fn list_offset(&self, query: OffsetQuery, isolation: Isolation, current: Option<LeaderEpoch>) -> Result<Option<ListedOffset>, PartitionError>;
//     pub async fn epoch_end(&self, requested: LeaderEpoch, current: Option<LeaderEpoch>) -> Result<Option<EpochEnd>, PartitionError>;
//     /// `offset` -1 is the high watermark; answers the new log start.
//     pub async fn delete_records(&self, offset: i64) -> Result<Offset, PartitionError>;
//     pub fn producers(&self) -> Result<Vec<ActiveProducer>, PartitionError>;
//     pub fn size_bytes(&self) -> u64;
//     /// Partitions of __consumer_offsets: the replicated group state, read under its lock.
//     pub fn group_store(&self) -> Option<Arc<parking_lot::Mutex<GroupStore>>>;
//     /// Waits for a read index of its shard (current reads of group state).
//     pub async fn read_index(&self) -> Result<(), PartitionError>;
// }
