//! What a request makes of a transactional id: a table of transitions, without I/O.
//!
//! Follows Kafka's TransactionCoordinator of 4.x, for `transaction.version` 1 and 2 side by side on one id. Whether an end is
//! valid is told by the version under which the transaction ran; what it does, by that of the request. Differences:
//!
//! - A producer id that InitProducerId gives after another one is used up begins at epoch 1, for an id that was never used begins
//!   at 0, and clients tell one from the other by that (Flink's sink looks for ids that were).
//! - A commit that meets the abort of a time-out is fenced (KAFKA-20785): INVALID_TXN_STATE ends Kafka Streams' threads.
//! - The last epoch is kept in the record, so that a retry of InitProducerId finds it after a failover (KAFKA-20357).
//!
//! May not know: whether a transition of the id is under way (then it answers CONCURRENT_TRANSACTIONS), the log, markers.

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::ProducerId;

use super::error::TransactionError;
use super::partitions::Partitions;
use crate::replicated::transaction::records::NO_EPOCH;
use crate::replicated::transaction::{Status, TransactionValue};

/// Clients never get an epoch above this: the one that is left is for fencing them.
const EPOCH_MAX: i16 = i16::MAX - 1;

/// Why there is no transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request is refused.
    Error(TransactionError),
    /// The producer's epochs are used up: ask again with a new producer id.
    NeedsProducerId,
}

impl From<TransactionError> for Refusal {
    fn from(error: TransactionError) -> Self {
        Self::Error(error)
    }
}

/// What a request does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// This is appended, and then the request is answered by it.
    Append(TransactionValue),
    /// The transaction is aborted first: this is appended, and the request is answered CONCURRENT_TRANSACTIONS.
    AbortFirst(TransactionValue),
    /// The id is forgotten: no client has used it for long.
    Remove,
    /// Nothing changes: the request is answered by what is there.
    Nothing,
}

/// InitProducerId.
#[derive(Debug, Clone, Copy)]
pub struct Init {
    /// `transaction.timeout.ms`.
    pub timeout_ms: i32,
    /// The producer id and epoch that the client has, if it goes on after an error (KIP-360).
    pub expected: Option<(ProducerId, i16)>,
}

fn is_exhausted(epoch: i16) -> bool {
    epoch >= EPOCH_MAX
}

/// What InitProducerId makes of an id. `fresh`: a producer id that no client has.
///
/// # Errors
/// PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, or a producer id is needed.
pub fn init(
    current: Option<&TransactionValue>,
    asked: Init,
    fresh: Option<ProducerId>,
    now_ms: i64,
) -> Result<Transition, Refusal> {
    let Some(current) = current else {
        let producer_id = fresh.ok_or(Refusal::NeedsProducerId)?;
        return Ok(Transition::Append(begun(producer_id, asked.timeout_ms, now_ms)));
    };
    let is_its = |(id, epoch): (ProducerId, i16)| {
        id == current.producer_id || current.previous_producer_id == Some(id) && is_exhausted(epoch)
    };
    if asked.expected.is_some_and(|expected| !is_its(expected)) {
        return Err(TransactionError::ProducerFenced.into());
    }
    match current.status {
        Status::PrepareCommit | Status::PrepareAbort => return Err(TransactionError::ConcurrentTransactions.into()),
        Status::Ongoing => return Ok(Transition::AbortFirst(aborted_by_coordinator(current, now_ms))),
        Status::Empty | Status::CompleteCommit | Status::CompleteAbort => {}
    }
    let expected_epoch = asked.expected.map(|(_, epoch)| epoch);
    let begin = TransactionValue {
        timeout_ms: asked.timeout_ms,
        status: Status::Empty,
        partitions: Partitions::new(),
        updated_ms: now_ms,
        started_ms: -1,
        next_producer_id: None,
        ..current.clone()
    };
    if is_exhausted(current.epoch) && expected_epoch.is_none_or(|epoch| epoch == current.epoch) {
        return Ok(Transition::Append(TransactionValue {
            producer_id: fresh.ok_or(Refusal::NeedsProducerId)?,
            previous_producer_id: Some(current.producer_id),
            epoch: 1,
            last_epoch: expected_epoch.map_or(NO_EPOCH, |_| current.epoch),
            ..begin
        }));
    }
    let (epoch, last_epoch) = match expected_epoch {
        None => (current.epoch.saturating_add(1), NO_EPOCH),
        Some(epoch) if epoch == current.epoch => (epoch.saturating_add(1), epoch),
        // A retry: the answer was lost.
        Some(epoch) if epoch == current.last_epoch && epoch != NO_EPOCH => (current.epoch, current.last_epoch),
        Some(_) => return Err(TransactionError::ProducerFenced.into()),
    };
    Ok(Transition::Append(TransactionValue { epoch, last_epoch, ..begin }))
}

/// A transactional id that was never used.
fn begun(producer_id: ProducerId, timeout_ms: i32, now_ms: i64) -> TransactionValue {
    TransactionValue {
        producer_id,
        previous_producer_id: None,
        next_producer_id: None,
        epoch: 0,
        last_epoch: NO_EPOCH,
        timeout_ms,
        status: Status::Empty,
        partitions: Partitions::new(),
        updated_ms: now_ms,
        started_ms: -1,
        client_version: 0,
    }
}

/// The abort of a transaction that its producer did not ask for: it is fenced, and its epoch is kept, since it may be the one that
/// begins anew.
#[must_use]
pub fn aborted_by_coordinator(current: &TransactionValue, now_ms: i64) -> TransactionValue {
    TransactionValue {
        // Reaches the greatest epoch where the client has the one before: the next InitProducerId gives another producer id.
        epoch: current.epoch.saturating_add(1),
        last_epoch: current.epoch,
        status: Status::PrepareAbort,
        updated_ms: now_ms,
        next_producer_id: None,
        client_version: 2,
        ..current.clone()
    }
}

/// A producer as a request names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Its id.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: i16,
}

/// True if the client was told that its transaction ends, and goes on with the next one before all markers are written. Under version 1 it has
/// the same epoch, by which the two cannot be told apart.
fn is_early(current: &TransactionValue, producer: Producer) -> bool {
    let goes_on = current.is_prepared() && current.client_version >= 2 && next_producer(current) == producer;
    goes_on && !mutants::is_on(Bug::EarlyProducerFenced)
}

fn of_producer(current: Option<&TransactionValue>, producer: Producer) -> Result<&TransactionValue, TransactionError> {
    if current.is_some_and(|current| is_early(current, producer)) {
        return Err(TransactionError::ConcurrentTransactions);
    }
    let current = current.filter(|current| current.producer_id == producer.id);
    let current = current.ok_or(TransactionError::InvalidProducerIdMapping)?;
    if current.epoch != producer.epoch {
        return Err(TransactionError::ProducerFenced);
    }
    match current.status {
        Status::PrepareCommit | Status::PrepareAbort => Err(TransactionError::ConcurrentTransactions),
        Status::Empty | Status::Ongoing | Status::CompleteCommit | Status::CompleteAbort => Ok(current),
    }
}

fn has_all(of: &Partitions, wanted: &Partitions) -> bool {
    wanted.iter().all(|(topic, indexes)| of.get(topic).is_some_and(|known| indexes.is_subset(known)))
}

/// What the partitions of a batch, or of AddPartitionsToTxn, make of an id: its transaction begins with the first of them.
///
/// # Errors
/// INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS.
pub fn add(
    current: Option<&TransactionValue>,
    producer: Producer,
    added: &Partitions,
    client_version: i16,
    now_ms: i64,
) -> Result<Transition, TransactionError> {
    let current = of_producer(current, producer)?;
    let is_ongoing = current.status == Status::Ongoing;
    if is_ongoing && has_all(&current.partitions, added) {
        return Ok(Transition::Nothing);
    }
    let mut partitions = if is_ongoing { current.partitions.clone() } else { Partitions::new() };
    for (topic, indexes) in added {
        partitions.entry(topic.clone()).or_default().extend(indexes);
    }
    Ok(Transition::Append(TransactionValue {
        status: Status::Ongoing,
        partitions,
        updated_ms: now_ms,
        started_ms: if is_ongoing { current.started_ms } else { now_ms },
        client_version,
        ..current.clone()
    }))
}

/// Whether a partition belongs to the open transaction of a producer: asked before its first batch is appended (KIP-890).
///
/// # Errors
/// As [`add`], and that it does not.
pub fn verify(
    current: Option<&TransactionValue>,
    producer: Producer,
    topic: &str,
    index: i32,
) -> Result<(), TransactionError> {
    let current = of_producer(current, producer)?;
    let is_in = current.partitions.get(topic).is_some_and(|indexes| indexes.contains(&index));
    if current.status == Status::Ongoing && is_in { Ok(()) } else { Err(TransactionError::NotInTransaction) }
}

/// What EndTxn makes of an id. `bumps`: the request is of version 5 or later, and is answered with the epoch of the next
/// transaction.
///
/// # Errors
/// INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, CONCURRENT_TRANSACTIONS, INVALID_TXN_STATE, or a producer id is needed.
pub fn end(
    current: Option<&TransactionValue>,
    producer: Producer,
    commits: bool,
    bumps: bool,
    fresh: Option<ProducerId>,
    now_ms: i64,
) -> Result<Transition, Refusal> {
    let current = current.ok_or(TransactionError::InvalidProducerIdMapping)?;
    // First of all, as in Kafka since KAFKA-18660, where the pending transition is: the table tells a repeated request from a fenced one.
    if is_early(current, producer) {
        return Err(TransactionError::ConcurrentTransactions.into());
    }
    let after_rotation =
        current.previous_producer_id == Some(producer.id) && producer.epoch == EPOCH_MAX && current.epoch == 0;
    if current.producer_id != producer.id && !after_rotation {
        return Err(TransactionError::InvalidProducerIdMapping.into());
    }
    let ran_with_bumps = current.client_version >= 2;
    let is_retry = ran_with_bumps && (after_rotation || producer.epoch.checked_add(1) == Some(current.epoch));
    let is_current = current.producer_id == producer.id && current.epoch == producer.epoch;
    let is_valid = match current.status {
        Status::Empty | Status::Ongoing => is_current,
        Status::PrepareCommit | Status::PrepareAbort if ran_with_bumps => is_retry,
        Status::CompleteCommit | Status::CompleteAbort if ran_with_bumps => is_retry || is_current,
        Status::PrepareCommit | Status::PrepareAbort | Status::CompleteCommit | Status::CompleteAbort => is_current,
    };
    if !is_valid {
        return Err(TransactionError::ProducerFenced.into());
    }
    let prepared = |is_empty| prepared(current, commits, bumps, is_empty, fresh, now_ms).map(Transition::Append);
    let refused = || Err(TransactionError::InvalidTransactionState.into());
    // Of a version without bumps the same request is a retry.
    let is_again = if ran_with_bumps { is_retry } else { is_current };
    match (current.status, commits) {
        (Status::Ongoing, _) => prepared(false),
        (Status::Empty, false) if bumps => prepared(true),
        (Status::PrepareCommit, true) | (Status::PrepareAbort, false) => {
            Err(TransactionError::ConcurrentTransactions.into())
        }
        (Status::CompleteCommit, true) | (Status::CompleteAbort, false) if is_again => Ok(Transition::Nothing),
        // The transaction was aborted by its time-out meanwhile.
        (Status::PrepareAbort | Status::CompleteAbort, true) if is_retry => {
            Err(TransactionError::ProducerFenced.into())
        }
        // A transaction that had no partition is aborted.
        (Status::CompleteCommit | Status::CompleteAbort, false) if bumps && is_current && ran_with_bumps => {
            prepared(true)
        }
        _ => refused(),
    }
}

/// The transaction is committed or aborted as soon as this is in the log.
fn prepared(
    current: &TransactionValue,
    commits: bool,
    bumps: bool,
    is_empty: bool,
    fresh: Option<ProducerId>,
    now_ms: i64,
) -> Result<TransactionValue, Refusal> {
    let rotates = bumps && is_exhausted(current.epoch);
    let next_producer_id = if rotates { Some(fresh.ok_or(Refusal::NeedsProducerId)?) } else { None };
    let (epoch, last_epoch) =
        if bumps { (current.epoch.saturating_add(1), current.epoch) } else { (current.epoch, current.last_epoch) };
    Ok(TransactionValue {
        epoch,
        last_epoch,
        next_producer_id,
        status: if commits { Status::PrepareCommit } else { Status::PrepareAbort },
        partitions: if is_empty { Partitions::new() } else { current.partitions.clone() },
        updated_ms: now_ms,
        started_ms: if is_empty { now_ms } else { current.started_ms },
        client_version: if bumps { 2 } else { current.client_version.min(1) },
        ..current.clone()
    })
}

/// All markers are written. `None` where none were to be.
#[must_use]
pub fn completed(current: &TransactionValue, now_ms: i64) -> Option<TransactionValue> {
    let status = match current.status {
        Status::PrepareCommit => Status::CompleteCommit,
        Status::PrepareAbort => Status::CompleteAbort,
        Status::Empty | Status::Ongoing | Status::CompleteCommit | Status::CompleteAbort => return None,
    };
    let done = TransactionValue {
        status,
        partitions: Partitions::new(),
        updated_ms: now_ms,
        next_producer_id: None,
        ..current.clone()
    };
    Some(match current.next_producer_id {
        // What the client was told when it ended the transaction. The last epoch stays: it is what the client had.
        Some(next) => {
            TransactionValue { producer_id: next, previous_producer_id: Some(current.producer_id), epoch: 0, ..done }
        }
        None => done,
    })
}

/// What EndTxn of version 5 is answered: the producer of the next transaction.
#[must_use]
pub fn next_producer(value: &TransactionValue) -> Producer {
    match value.next_producer_id {
        Some(id) => Producer { id, epoch: 0 },
        None => Producer { id: value.producer_id, epoch: value.epoch },
    }
}

/// True if the id may be forgotten: nothing of it has changed for `transactional.id.expiration.ms`.
#[must_use]
pub fn is_expired(value: &TransactionValue, expiration_ms: i64, now_ms: i64) -> bool {
    value.is_at_rest() && value.updated_ms.saturating_add(expiration_ms) <= now_ms
}
