//! Clients' transactions from their beginning to their end, time-outs and expiry.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_env::{rt, sim};
use ottla_protocol::ids::ProducerId;

use super::fake_log::{FakeLog, LogState, partitions, start};
use crate::coordinator::transaction::{Init, MarkerOutcome, Producer, TransactionError, Transactions};
use crate::replicated::transaction::Status;
use crate::replicated::transactions::Marker;

const NEW: Init = Init { timeout_ms: 10_000, expected: None };

/// An id with an open transaction over these partitions of `t`.
pub(super) async fn open(transactions: &Transactions, id: &str, indexes: &[i32]) -> Producer {
    let producer = transactions.init(id, NEW).await.unwrap();
    transactions.add(id, producer, partitions(indexes), 2).await.unwrap();
    producer
}

fn marked(log: &FakeLog) -> BTreeSet<i32> {
    log.markers.lock().iter().map(|(_, index, ..)| *index).collect()
}

#[test]
fn a_transaction_is_committed_in_each_of_its_partitions() {
    sim::run(1, || async {
        let (log, transactions) = start();
        let first = open(&transactions, "a", &[1]).await;
        assert_eq!((first, log.status("a")), (Producer { id: ProducerId(1_001), epoch: 0 }, Some(Status::Ongoing)));
        transactions.add("a", first, partitions(&[4]), 2).await.unwrap();
        transactions.add("a", first, partitions(&[1]), 2).await.unwrap();
        let t = Arc::from("t");
        let asked = [(Arc::clone(&t), 1), (Arc::clone(&t), 2)];
        let verified = transactions.verify("a", first, &asked).await.unwrap();
        assert_eq!(verified, [Ok(()), Err(TransactionError::NotInTransaction)]);

        let next = transactions.end("a", first, true, true).await.unwrap();
        assert_eq!(next, Producer { epoch: 1, ..first });
        log.reaches("a", Status::CompleteCommit).await;
        let marker = Marker { commits: true, coordinator_epoch: 1, version: 2 };
        assert_eq!(*log.markers.lock(), [(t.clone(), 1, next, marker), (t, 4, next, marker)]);
        assert_eq!(transactions.end("a", first, true, true).await, Ok(next), "the answer was lost");
        let zombie = transactions.add("a", first, partitions(&[1]), 2).await;
        assert_eq!(zombie, Err(TransactionError::ProducerFenced));
        transactions.add("a", next, partitions(&[7]), 2).await.unwrap();
        let described = transactions.describe("a").await.unwrap().unwrap();
        assert_eq!((described.status, &described.partitions), (Status::Ongoing, &partitions(&[7])));
        assert_eq!(transactions.list().len(), 1);
        assert_eq!(transactions.describe("b").await, Ok(None));
    });
}

#[test]
fn a_client_that_starts_anew_aborts_what_it_had_open() {
    sim::run(2, || async {
        let (log, transactions) = start();
        let first = open(&transactions, "a", &[1, 2]).await;
        // Its markers are waited for.
        let second = transactions.init("a", NEW).await.unwrap();
        assert_eq!(marked(&log), BTreeSet::from([1, 2]));
        assert_eq!(second, Producer { epoch: 2, ..first });
        assert_eq!(transactions.end("a", first, true, true).await, Err(TransactionError::ProducerFenced));
        assert_eq!(log.status("a"), Some(Status::Empty));
    });
}

/// The first batch of the next transaction comes while markers of the last one are under way.
#[test]
fn a_transaction_that_begins_at_once_waits_for_the_one_before() {
    sim::run(9, || async {
        let (log, transactions) = start();
        let first = open(&transactions, "a", &[1]).await;
        log.outcomes.lock().insert(1, MarkerOutcome::Retry);
        let next = transactions.end("a", first, true, true).await.unwrap();
        let begins = {
            let transactions = transactions.clone();
            rt::spawn(async move { transactions.add("a", next, partitions(&[2]), 2).await })
        };
        rt::sleep(Duration::from_millis(30)).await;
        log.outcomes.lock().clear();
        assert_eq!(begins.await.unwrap(), Ok(()));
        log.outcomes.lock().insert(2, MarkerOutcome::Retry);
        let after = transactions.end("a", next, true, true).await.unwrap();
        let concurrent = transactions.add("a", after, partitions(&[2]), 2).await;
        assert_eq!(concurrent, Err(TransactionError::ConcurrentTransactions), "not for ever");
    });
}

#[test]
fn bounds_are_kept() {
    sim::run(3, || async {
        let (_log, transactions) = start();
        let asks = |timeout_ms| Init { timeout_ms, expected: None };
        let refused = Err(TransactionError::InvalidTransactionTimeout);
        assert_eq!(transactions.init("a", asks(60_001)).await, refused);
        assert_eq!(transactions.init("a", asks(0)).await, refused);
        assert_eq!(transactions.init("", asks(1)).await, Err(TransactionError::InvalidRequest));
        transactions.init("a", asks(60_000)).await.unwrap();
    });
}

#[test]
fn a_partition_that_takes_no_marker_is_asked_again() {
    sim::run(4, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1, 2, 3]).await;
        log.outcomes.lock().extend([(2, MarkerOutcome::Retry), (3, MarkerOutcome::ProducerFenced)]);
        transactions.end("a", producer, false, true).await.unwrap();
        rt::sleep(Duration::from_secs(10)).await;
        assert_eq!((log.status("a"), marked(&log)), (Some(Status::PrepareAbort), BTreeSet::from([1])));
        assert_eq!(transactions.init("a", NEW).await, Err(TransactionError::ConcurrentTransactions));
        log.outcomes.lock().remove(&2);
        log.reaches("a", Status::CompleteAbort).await;
        assert_eq!(log.markers.lock().len(), 2, "each partition has its marker once");
    });
}

#[test]
fn a_request_meets_one_that_is_being_written() {
    sim::run(5, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1]).await;
        log.set_state(LogState::Stalls);
        let adding = {
            let transactions = transactions.clone();
            rt::spawn(async move { transactions.add("a", producer, partitions(&[2]), 2).await })
        };
        rt::sleep(Duration::from_millis(100)).await;
        let concurrent = Err(TransactionError::ConcurrentTransactions);
        assert_eq!(transactions.end("a", producer, true, true).await, concurrent);
        // It has waited long enough; its record is written nevertheless, and until then the id is not free.
        assert_eq!(adding.await.unwrap(), Err(TransactionError::CoordinatorNotAvailable));
        assert_eq!(transactions.end("a", producer, true, true).await, concurrent);
        log.set_state(LogState::Applies);
        rt::sleep(Duration::from_millis(100)).await;
        transactions.end("a", producer, true, true).await.unwrap();
        log.reaches("a", Status::CompleteCommit).await;
        assert_eq!(marked(&log), BTreeSet::from([1, 2]));
    });
}

#[test]
fn a_log_that_refuses_leaves_everything_as_it_was() {
    sim::run(6, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1]).await;
        log.set_state(LogState::Refuses);
        let ended = transactions.end("a", producer, true, true).await;
        assert_eq!((ended, log.status("a")), (Err(TransactionError::CoordinatorNotAvailable), Some(Status::Ongoing)));
        log.set_state(LogState::Applies);
        transactions.end("a", producer, true, true).await.unwrap();
    });
}

#[test]
fn a_transaction_that_its_client_forgets_is_aborted() {
    sim::run(7, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1]).await;
        rt::sleep(Duration::from_millis(9_500)).await;
        assert_eq!(log.status("a"), Some(Status::Ongoing));
        rt::sleep(Duration::from_millis(2_000)).await;
        assert_eq!(log.status("a"), Some(Status::CompleteAbort));
        assert_eq!(transactions.end("a", producer, true, true).await, Err(TransactionError::ProducerFenced));
        let goes_on = Init { expected: Some((producer.id, producer.epoch)), ..NEW };
        assert_eq!(transactions.init("a", goes_on).await, Ok(Producer { epoch: 1, ..producer }));
    });
}

#[test]
fn an_id_that_nobody_uses_is_forgotten_and_an_open_one_is_not() {
    sim::run(8, || async {
        let (log, transactions) = start();
        transactions.init("idle", NEW).await.unwrap();
        let producer = open(&transactions, "stuck", &[1]).await;
        log.outcomes.lock().insert(1, MarkerOutcome::Retry);
        transactions.end("stuck", producer, true, true).await.unwrap();
        rt::sleep(Duration::from_secs(599)).await;
        assert_eq!(log.status("idle"), Some(Status::Empty));
        rt::sleep(Duration::from_secs(12)).await;
        assert_eq!((log.status("idle"), log.status("stuck")), (None, Some(Status::PrepareCommit)));
        let anew = transactions.init("idle", NEW).await.unwrap();
        assert_eq!((anew.epoch, anew.id != producer.id), (0, true));
    });
}
