//! Batches that open a transaction (KIP-890): before the leader of a partition proposes one it asks the coordinator of the
//! transaction, once for all partitions of a request.
//!
//! The number of the producer's last marker is read before the question, and apply refuses the batch if there has been another since: the
//! answer was about a transaction that has ended (design section 7.2). Then the coordinator is asked once more: for all partitions
//! together where the leader sees that before it proposes, as it does right behind a commit, whose markers the coordinator waits for;
//! for each by itself where apply finds out. Produce 12 adds the partitions to the transaction; clients before it have done so with
//! AddPartitionsToTxn.

use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::batch::{BatchHeader, RawHeader};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::ProducerId;

use crate::coordinator::transaction::{Producer, TransactionError};
use crate::handlers::context::Context;
use crate::handlers::support::transaction_error::{KnownFrom, NEVER, require_transactions};
use crate::partition::{
    AppendError, AppendOptions, Appended, Appending, Origin, Partition, ProducerTransaction, TransactionDecision,
    TransactionPart,
};

/// From here on the partitions of a request are added to the transaction.
const ADDS_FROM: i16 = 12;
const KNOWN_FROM: KnownFrom = KnownFrom { fenced: NEVER, abortable: 11 };
/// What `transaction.version` clients follow that add partitions so.
const ADDED_BY: i16 = 2;
/// How often a batch is tried whose transaction ends meanwhile.
const ATTEMPTS_MAX: usize = 3;

/// Whose transactions the batches of a request belong to.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) version: i16,
    pub(super) transactional_id: Option<Arc<str>>,
}

/// A batch whose partition is found and that may open a transaction.
pub(super) struct Opening {
    partition: Partition,
    header: BatchHeader,
    marker_number: u64,
    pub(super) batch: Bytes,
}

/// What becomes of a batch of which nothing is known but its partition.
pub(super) enum Begin {
    /// It can be enqueued at once: with what its transaction has to do with it, if it has one.
    Enqueue(Bytes, Option<TransactionPart>),
    /// The coordinator is asked first.
    Ask(Box<Opening>),
}

impl Opening {
    /// Reads the number of the last marker again; true if there has been one since.
    fn has_marker_since(&mut self) -> bool {
        let producer = ProducerId(self.header.producer_id);
        let now = self.partition.transaction_of(producer, self.header.producer_epoch);
        let Ok(ProducerTransaction::None { marker_number }) = now else { return false };
        std::mem::replace(&mut self.marker_number, marker_number) != marker_number
    }
}

/// True for a batch of a transaction.
fn is_transactional(batch: &[u8]) -> bool {
    RawHeader::of(batch).is_some_and(|header| header.attributes().is_transactional())
}

/// Looks at the transaction of a batch.
pub(super) fn begin(client: &Client, partition: &Partition, batch: Bytes) -> Begin {
    // Without an id there is no coordinator that the leader could ask: the append refuses the batch.
    if !is_transactional(&batch) || client.transactional_id.is_none() {
        return Begin::Enqueue(batch, None);
    }
    let Some(header) = BatchHeader::parse(&batch) else { return Begin::Enqueue(batch, None) };
    match partition.transaction_of(ProducerId(header.producer_id), header.producer_epoch) {
        Ok(ProducerTransaction::Open) => Begin::Enqueue(batch, Some(TransactionPart::Continues)),
        Ok(ProducerTransaction::None { marker_number }) => {
            Begin::Ask(Box::new(Opening { partition: partition.clone(), header, marker_number, batch }))
        }
        // The append says that this node does not lead; where it does by then, apply tells whether one is open.
        Err(_) => Begin::Enqueue(batch, Some(TransactionPart::Continues)),
    }
}

/// Asks the coordinator about all of these, and enqueues those that may be, in order.
pub(super) async fn ask(
    ctx: &Context,
    client: &Client,
    mut openings: Vec<Opening>,
    options: &AppendOptions,
) -> Vec<Result<Appending, AppendError>> {
    let mut answers = answers_to(ctx, client, &openings).await;
    for _ in 1..ATTEMPTS_MAX {
        let looked =
            openings.iter_mut().zip(&answers).map(|(opening, answer)| opening.has_marker_since() && answer.is_ok());
        if looked.filter(|is_stale| *is_stale).count() == 0 {
            break;
        }
        answers = answers_to(ctx, client, &openings).await;
    }
    let settle = |(opening, answer): (Opening, Result<(), ErrorCode>)| match answer {
        Ok(()) => {
            let decision = TransactionDecision::Opens { marker_number: opening.marker_number };
            let transaction = Some(TransactionPart::Decides(decision));
            Ok(opening.partition.append(opening.batch, &AppendOptions { transaction, ..options.clone() }))
        }
        Err(code) => {
            let error = AppendError::RefusedByCoordinator(code);
            if let Origin::Client(connection) = options.origin {
                opening.partition.note_refused(connection, &opening.header, &error);
            }
            Err(error)
        }
    };
    openings.into_iter().zip(answers).map(settle).collect()
}

async fn answers_to(ctx: &Context, client: &Client, openings: &[Opening]) -> Vec<Result<(), ErrorCode>> {
    let (Some(id), Some(first)) = (client.transactional_id.as_deref(), openings.first()) else {
        return vec![Err(ErrorCode::InvalidTxnState); openings.len()];
    };
    if let Err(error) = require_transactions(ctx).await {
        let unconfirmed = error == ErrorCode::CoordinatorNotAvailable;
        let error = if unconfirmed { code(client.version, TransactionError::CoordinatorNotAvailable) } else { error };
        return vec![Err(error); openings.len()];
    }
    let producer_of =
        |header: &BatchHeader| Producer { id: ProducerId(header.producer_id), epoch: header.producer_epoch };
    let producer = producer_of(&first.header);
    if openings.iter().any(|opening| producer_of(&opening.header) != producer) {
        return vec![Err(ErrorCode::InvalidProducerIdMapping); openings.len()];
    }
    let place = |opening: &Opening| (opening.partition.topic().name.clone(), opening.partition.id().index);
    let partitions: Vec<(Arc<str>, i32)> = openings.iter().map(place).collect();
    let added_by = (client.version >= ADDS_FROM).then_some(ADDED_BY);
    let answers = ctx.transaction_peers.ask(&ctx.transactions, id, producer, &partitions, added_by).await;
    answers.into_iter().map(|answer| answer.map_err(|error| code(client.version, error))).collect()
}

/// The code that makes this client do the right thing: most must not look for another leader, or give up.
fn code(version: i16, error: TransactionError) -> ErrorCode {
    match error {
        TransactionError::ConcurrentTransactions if version < ADDS_FROM => ErrorCode::NotEnoughReplicas,
        TransactionError::NotCoordinator | TransactionError::CoordinatorNotAvailable => ErrorCode::NotEnoughReplicas,
        error => KNOWN_FROM.code(version, error),
    }
}

/// Appends a batch whose partition is found, whatever its transaction needs; asks again if that has ended meanwhile.
pub(super) async fn append(
    ctx: &Context,
    client: &Client,
    partition: &Partition,
    batch: Bytes,
    options: &AppendOptions,
) -> Result<Appended, AppendError> {
    let mut outcome = Err(AppendError::TransactionEnded);
    for _ in 0..ATTEMPTS_MAX {
        outcome = match begin(client, partition, batch.clone()) {
            Begin::Enqueue(batch, transaction) => {
                partition.append(batch, &AppendOptions { transaction, ..options.clone() }).await
            }
            Begin::Ask(opening) => match ask(ctx, client, vec![*opening], options).await.pop() {
                Some(Ok(appending)) => appending.await,
                Some(Err(error)) => Err(error),
                None => Err(AppendError::InvalidTransactionState),
            },
        };
        if outcome != Err(AppendError::TransactionEnded) {
            return outcome;
        }
    }
    // Each time a marker came between, while the coordinator said that the transaction is open: the client asks again.
    match client.transactional_id {
        Some(_) => {
            Err(AppendError::RefusedByCoordinator(code(client.version, TransactionError::ConcurrentTransactions)))
        }
        None => outcome,
    }
}
