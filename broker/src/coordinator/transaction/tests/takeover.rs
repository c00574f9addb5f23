//! Leadership goes and comes: what was prepared is completed, and nothing is said that another coordinator may have changed.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::{rt, sim};

use super::fake_log::{LogState, partitions, start};
use super::runtime::open;
use crate::coordinator::transaction::{Init, MarkerOutcome, TransactionError};
use crate::replicated::transaction::Status;

#[test]
fn the_next_coordinator_completes_what_was_prepared() {
    sim::run(31, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1, 2]).await;
        log.outcomes.lock().insert(2, MarkerOutcome::Retry);
        transactions.end("a", producer, true, true).await.unwrap();
        rt::sleep(Duration::from_millis(100)).await;
        log.lose_leadership();
        let refused = Err(TransactionError::NotCoordinator);
        assert_eq!(transactions.end("a", producer, true, true).await, refused);
        assert_eq!(transactions.describe("a").await, Err(TransactionError::NotCoordinator));
        assert!(transactions.list().is_empty());
        log.outcomes.lock().clear();
        rt::sleep(Duration::from_secs(30)).await;
        assert_eq!(log.status("a"), Some(Status::PrepareCommit), "who leads no more goes on with nothing");
        log.win_leadership();
        // No request comes, and it does not wait for the next sweep.
        rt::sleep(Duration::from_millis(200)).await;
        assert_eq!(log.status("a"), Some(Status::CompleteCommit));
        let epochs: Vec<_> = log.markers.lock().iter().map(|(_, index, _, m)| (*index, m.coordinator_epoch)).collect();
        assert_eq!(epochs, [(1, 1), (1, 2), (2, 2)], "all of them again, under the new coordinator's epoch");
    });
}

/// What began before the leadership was lost and won back has written the markers of a transaction that is over; the next one of the id
/// has others.
#[test]
fn only_the_transaction_is_completed_whose_markers_were_written() {
    sim::run(35, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1]).await;
        *log.marker_time.lock() = Duration::from_secs(5);
        let next = transactions.end("a", producer, true, true).await.unwrap();
        rt::sleep(Duration::from_millis(100)).await;
        log.lose_leadership();
        rt::sleep(Duration::from_secs(1)).await;
        *log.marker_time.lock() = Duration::from_millis(1);
        log.regain_leadership();
        log.reaches("a", Status::CompleteCommit).await;
        log.outcomes.lock().insert(2, MarkerOutcome::Retry);
        transactions.add("a", next, partitions(&[2]), 2).await.unwrap();
        transactions.end("a", next, true, true).await.unwrap();
        rt::sleep(Duration::from_secs(10)).await;
        assert_eq!(log.status("a"), Some(Status::PrepareCommit), "partition 2 has no marker yet");
        log.outcomes.lock().clear();
        log.reaches("a", Status::CompleteCommit).await;
        assert!(log.markers.lock().iter().any(|(_, index, ..)| *index == 2));
    });
}

#[test]
fn who_is_fenced_by_a_newer_coordinator_completes_nothing() {
    sim::run(32, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1, 2]).await;
        log.outcomes.lock().insert(2, MarkerOutcome::CoordinatorFenced);
        transactions.end("a", producer, true, true).await.unwrap();
        rt::sleep(Duration::from_secs(20)).await;
        assert_eq!(log.status("a"), Some(Status::PrepareCommit));
        assert!(log.markers.lock().len() < 25, "it does not ask without a pause");
    });
}

/// Another coordinator may have aborted the transaction: a late batch would open one that nothing ends.
#[test]
fn what_cannot_be_confirmed_is_not_verified() {
    sim::run(33, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1]).await;
        *log.confirms.lock() = false;
        let asked = [(Arc::from("t"), 1)];
        let refused = TransactionError::NotCoordinator;
        assert_eq!(transactions.verify("a", producer, &asked).await, Err(refused));
        assert_eq!(transactions.add("a", producer, partitions(&[1]), 2).await, Err(refused), "it is there already");
        *log.confirms.lock() = true;
        assert_eq!(transactions.verify("a", producer, &asked).await.unwrap(), [Ok(())]);
    });
}

/// The record may be applied at any time: a transition of the state before would be applied behind it.
#[test]
fn an_append_whose_end_is_not_known_keeps_the_id_until_leadership_changes() {
    sim::run(34, || async {
        let (log, transactions) = start();
        let producer = open(&transactions, "a", &[1]).await;
        log.set_state(LogState::TimesOut);
        let ended = transactions.end("a", producer, true, true).await;
        assert_eq!(ended, Err(TransactionError::CoordinatorNotAvailable));
        let init = Init { timeout_ms: 1_000, expected: None };
        assert_eq!(transactions.init("a", init).await, Err(TransactionError::ConcurrentTransactions));
        log.set_state(LogState::Applies);
        log.lose_leadership();
        rt::sleep(Duration::from_millis(10)).await;
        log.win_leadership();
        log.reaches("a", Status::CompleteCommit).await;
        assert_eq!(transactions.end("a", producer, true, true).await.map(|next| next.epoch), Ok(1));
    });
}
