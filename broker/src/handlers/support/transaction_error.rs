//! The error codes of requests about transactions, by what a client's version of the request knows.

use ottla_protocol::error::ErrorCode;

use crate::coordinator::transaction::TransactionError;
use crate::handlers::context::Context;
use crate::levels::TRANSACTIONS;

/// Whether the cluster writes transactions: only once all of its nodes understand them.
///
/// # Errors
/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes for final: while nodes are upgraded it is not told to retry for hours.
pub(crate) fn require_transactions(ctx: &Context) -> Result<(), ErrorCode> {
    let level = ctx.metadata.image().level;
    if level >= TRANSACTIONS { Ok(()) } else { Err(ErrorCode::TransactionalIdAuthorizationFailed) }
}

/// From which versions of a request on clients know a code.
pub(crate) struct KnownFrom {
    /// PRODUCER_FENCED; before that they are told INVALID_PRODUCER_EPOCH.
    pub(crate) fenced: i16,
    /// TRANSACTION_ABORTABLE; before that they are told INVALID_TXN_STATE.
    pub(crate) abortable: i16,
}

/// No version knows it.
pub(crate) const NEVER: i16 = i16::MAX;

impl KnownFrom {
    /// The code for an error in the answer to a request of this version.
    pub(crate) fn code(&self, version: i16, error: TransactionError) -> ErrorCode {
        match error {
            TransactionError::ProducerFenced if version < self.fenced => ErrorCode::InvalidProducerEpoch,
            TransactionError::NotInTransaction if version < self.abortable => ErrorCode::InvalidTxnState,
            error => error.code(),
        }
    }
}
