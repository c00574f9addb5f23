//! The error codes of requests about transactions, by what a client's version of the request knows.

use ottla_env::mutants::{self, Bug};
use ottla_protocol::error::ErrorCode;

use crate::coordinator::transaction::TransactionError;
use crate::handlers::context::Context;
use crate::levels::TRANSACTIONS;

/// Whether the cluster writes transactions: only once all of its nodes understand them.
///
/// Where this node's image has a lower level a read index confirms it first. A node that has just started may not have applied that the
/// level was raised, and the client may have its producer id from a node that has: an error that is final would be wrong.
///
/// # Errors
/// - TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which every client takes for final: while nodes are upgraded it is not told to retry for hours.
/// - COORDINATOR_NOT_AVAILABLE, which every client repeats: no leader of the metadata confirms the level.
pub(crate) async fn require_transactions(ctx: &Context) -> Result<(), ErrorCode> {
    let knows = || ctx.metadata.image().level >= TRANSACTIONS;
    if knows() {
        return Ok(());
    }
    if mutants::is_on(Bug::LevelNotConfirmed) {
        return Err(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    if let Err(error) = ctx.metadata.read_index().await {
        tracing::debug!("whether the cluster writes transactions is not confirmed: {error}");
        return Err(ErrorCode::CoordinatorNotAvailable);
    }
    if knows() { Ok(()) } else { Err(ErrorCode::TransactionalIdAuthorizationFailed) }
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
