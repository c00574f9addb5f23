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

/// The code for an error. `knows_fenced`: the client knows PRODUCER_FENCED, else it is told INVALID_PRODUCER_EPOCH.
pub(crate) fn code(error: TransactionError, knows_fenced: bool) -> ErrorCode {
    match error {
        TransactionError::ProducerFenced if !knows_fenced => ErrorCode::InvalidProducerEpoch,
        error => error.code(),
    }
}
