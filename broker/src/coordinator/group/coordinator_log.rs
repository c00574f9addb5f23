//! What the coordinator of groups needs of `__consumer_offsets` and of the metadata about topics.
//!
//! A trait, so that the runtime can be tested without shards. [`OffsetsLog`](super::OffsetsLog) is the real one.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ottla_env::watch;
use parking_lot::Mutex;
use uuid::Uuid;

use super::error::GroupError;
use crate::coordinator::topic_log::{TopicLog, Unavailable, unavailable};
use crate::metadata::FeatureLevel;
use crate::replicated::error::{AppendError, PartitionError};
use crate::replicated::group::store::GroupStore;

/// The log of the coordinator: `__consumer_offsets`, and the metadata about topics.
pub trait CoordinatorLog: Debug + Send + Sync + 'static {
    /// `__consumer_offsets`.
    fn topic(&self) -> &dyn TopicLog;

    /// The feature level in force: which formats may be written.
    fn level(&self) -> FeatureLevel;

    /// Changes whenever a topic was deleted.
    fn topic_deletions(&self) -> watch::Receiver<u64>;

    /// The replicated groups of a partition; none where this node has no replica.
    fn store(&self, partition: i32) -> Option<Arc<Mutex<GroupStore>>>;

    /// Those of `topics` that are certainly deleted (under that id, unless it is nil).
    fn deleted_topics(&self, topics: Vec<(Arc<str>, Uuid)>) -> BoxFuture<'static, Vec<(Arc<str>, Uuid)>>;
}

impl From<Unavailable> for GroupError {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::NotLed => Self::NotCoordinator,
            Unavailable::NotNow => Self::CoordinatorNotAvailable,
        }
    }
}

/// The group error for a failed append.
pub(super) fn append_refusal(error: &AppendError) -> GroupError {
    if let Some(why) = unavailable(error) {
        return why.into();
    }
    match error {
        AppendError::MessageTooLarge | AppendError::EntryTooLarge { .. } => GroupError::CommitTooLarge,
        AppendError::Group(code) => GroupError::from_apply(*code),
        AppendError::InvalidProducerEpoch => GroupError::InvalidProducerEpoch,
        AppendError::InvalidTransactionState | AppendError::TransactionEnded => GroupError::TransactionEnded,
        _ => GroupError::Internal,
    }
}

/// The group error for a refusal of the partition.
pub(super) fn partition_refusal(error: &PartitionError) -> GroupError {
    Unavailable::from(error).into()
}
