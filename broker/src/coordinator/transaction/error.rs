//! The errors of requests about transactional ids, in the words of Kafka's codes.
//!
//! Which code a client gets may depend on the version of its request: that is its handler's.

use ottla_protocol::error::ErrorCode;
use thiserror::Error;

use crate::coordinator::topic_log::{Unavailable, unavailable};
use crate::replicated::error::{AppendError, PartitionError};

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TransactionError {
    /// INVALID_PRODUCER_ID_MAPPING: the id has another producer, or is not known.
    #[error("the transactional id has another producer")]
    InvalidProducerIdMapping,
    /// PRODUCER_FENCED, below that INVALID_PRODUCER_EPOCH: another producer has begun with the id.
    #[error("another producer has begun with the transactional id")]
    ProducerFenced,
    /// CONCURRENT_TRANSACTIONS: something of the id is being written; ask again.
    #[error("the transactional id is being changed")]
    ConcurrentTransactions,
    /// INVALID_TXN_STATE: there is no such transaction to end.
    #[error("no such transaction to end")]
    InvalidTransactionState,
    /// TRANSACTION_ABORTABLE, below that INVALID_TXN_STATE: the partition does not belong to the transaction.
    #[error("the partition does not belong to the transaction")]
    NotInTransaction,
    /// INVALID_TRANSACTION_TIMEOUT: not positive, or above `transaction.max.timeout.ms`.
    #[error("the transaction time-out is not allowed")]
    InvalidTransactionTimeout,
    /// INVALID_REQUEST: an empty transactional id.
    #[error("an empty transactional id")]
    InvalidRequest,
    /// NOT_COORDINATOR: this node does not (any more) lead the partition of the id.
    #[error("not the coordinator of this transactional id")]
    NotCoordinator,
    /// COORDINATOR_NOT_AVAILABLE: it leads, and cannot write or does not know yet whether it has; ask again.
    #[error("coordinator not available")]
    CoordinatorNotAvailable,
    /// UNKNOWN_SERVER_ERROR: what the broker holds of the id cannot be right.
    #[error("internal error")]
    Internal,
}

impl TransactionError {
    /// The code for the newest version of a request.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::InvalidProducerIdMapping => ErrorCode::InvalidProducerIdMapping,
            Self::ProducerFenced => ErrorCode::ProducerFenced,
            Self::ConcurrentTransactions => ErrorCode::ConcurrentTransactions,
            Self::InvalidTransactionState => ErrorCode::InvalidTxnState,
            Self::NotInTransaction => ErrorCode::TransactionAbortable,
            Self::InvalidTransactionTimeout => ErrorCode::InvalidTransactionTimeout,
            Self::InvalidRequest => ErrorCode::InvalidRequest,
            Self::NotCoordinator => ErrorCode::NotCoordinator,
            Self::CoordinatorNotAvailable => ErrorCode::CoordinatorNotAvailable,
            Self::Internal => ErrorCode::UnknownServerError,
        }
    }
}

impl From<Unavailable> for TransactionError {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::NotLed => Self::NotCoordinator,
            Unavailable::NotNow => Self::CoordinatorNotAvailable,
        }
    }
}

impl From<&AppendError> for TransactionError {
    fn from(error: &AppendError) -> Self {
        unavailable(error).map_or(Self::Internal, Self::from)
    }
}

impl From<&PartitionError> for TransactionError {
    fn from(error: &PartitionError) -> Self {
        Unavailable::from(error).into()
    }
}
