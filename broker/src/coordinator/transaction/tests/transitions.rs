//! The table of transitions, and a model of clients that follow it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_protocol::ids::ProducerId;
use proptest::prelude::*;

use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::partitions::Partitions;
use crate::coordinator::transaction::transitions::{
    Init, Producer, Refusal, Transition, aborted_by_coordinator, add, completed, end, init, is_expired, next_producer,
    verify,
};
use crate::replicated::transaction::{Status, TransactionValue};

const FRESH: ProducerId = ProducerId(77);
const NEW: Init = Init { timeout_ms: 60_000, expected: None };

fn partitions(indexes: &[i32]) -> Partitions {
    Partitions::from([(Arc::from("t"), indexes.iter().copied().collect::<BTreeSet<_>>())])
}

fn appended(transition: Transition) -> TransactionValue {
    match transition {
        Transition::Append(value) => value,
        other => panic!("{other:?}"),
    }
}

fn producer(value: &TransactionValue) -> Producer {
    Producer { id: value.producer_id, epoch: value.epoch }
}

fn begun(epoch: i16) -> TransactionValue {
    let value = appended(init(None, NEW, Some(ProducerId(5)), 1).unwrap());
    TransactionValue { epoch, ..value }
}

fn ongoing(epoch: i16, version: i16) -> TransactionValue {
    let value = begun(epoch);
    appended(add(Some(&value), producer(&value), &partitions(&[0, 1]), version, 10).unwrap())
}

fn ended(value: &TransactionValue, commits: bool, bumps: bool) -> TransactionValue {
    appended(end(Some(value), producer(value), commits, bumps, Some(FRESH), 20).unwrap())
}

fn refused(error: TransactionError) -> Result<Transition, Refusal> {
    Err(Refusal::Error(error))
}

#[test]
fn an_id_that_was_never_used_begins_at_epoch_zero_and_one_that_was_does_not() {
    assert_eq!(init(None, NEW, None, 1), Err(Refusal::NeedsProducerId));
    let first = begun(0);
    assert_eq!((first.producer_id, first.epoch, first.status), (ProducerId(5), 0, Status::Empty));
    let second = appended(init(Some(&first), NEW, None, 2).unwrap());
    assert_eq!((second.epoch, second.last_epoch), (1, -1));
    let used_up = begun(i16::MAX - 1);
    assert_eq!(init(Some(&used_up), NEW, None, 2), Err(Refusal::NeedsProducerId));
    let rotated = appended(init(Some(&used_up), NEW, Some(FRESH), 2).unwrap());
    assert_eq!((rotated.producer_id, rotated.epoch), (FRESH, 1), "Flink takes epoch 0 for an id that was never used");
}

#[test]
fn a_client_that_goes_on_after_an_error_keeps_its_id_and_a_retry_changes_nothing() {
    let value = begun(4);
    let asked = Init { expected: Some((ProducerId(5), 4)), ..NEW };
    let next = appended(init(Some(&value), asked, None, 2).unwrap());
    assert_eq!((next.epoch, next.last_epoch), (5, 4));
    let again = appended(init(Some(&next), asked, None, 3).unwrap());
    assert_eq!((again.epoch, again.last_epoch), (5, 4), "the answer was lost");
    let other = appended(init(Some(&next), NEW, None, 3).unwrap());
    assert_eq!(init(Some(&other), asked, None, 4), refused(TransactionError::ProducerFenced));
    let foreign = Init { expected: Some((ProducerId(6), 4)), ..NEW };
    assert_eq!(init(Some(&value), foreign, None, 4), refused(TransactionError::ProducerFenced));
}

#[test]
fn a_client_whose_epochs_are_used_up_finds_its_new_producer_id_again() {
    let value = begun(i16::MAX - 1);
    let asked = Init { expected: Some((ProducerId(5), i16::MAX - 1)), ..NEW };
    let rotated = appended(init(Some(&value), asked, Some(FRESH), 2).unwrap());
    let again = appended(init(Some(&rotated), asked, None, 3).unwrap());
    assert_eq!(producer(&again), producer(&rotated));
}

#[test]
fn an_open_transaction_is_aborted_before_another_client_gets_its_id() {
    let value = ongoing(3, 2);
    let Ok(Transition::AbortFirst(fenced)) = init(Some(&value), NEW, None, 30) else { panic!("not aborted") };
    assert_eq!((fenced.status, fenced.epoch, &fenced.partitions), (Status::PrepareAbort, 4, &value.partitions));
    assert_eq!(init(Some(&fenced), NEW, None, 31), refused(TransactionError::ConcurrentTransactions));
    let done = completed(&fenced, 32).unwrap();
    assert_eq!(appended(init(Some(&done), NEW, None, 33).unwrap()).epoch, 5);
    assert_eq!(add(Some(&fenced), producer(&value), &partitions(&[2]), 2, 31), Err(TransactionError::ProducerFenced));
}

#[test]
fn the_client_that_was_timed_out_may_go_on() {
    let fenced = aborted_by_coordinator(&ongoing(3, 2), 30);
    let done = completed(&fenced, 31).unwrap();
    let asked = Init { expected: Some((ProducerId(5), 3)), ..NEW };
    assert_eq!(appended(init(Some(&done), asked, None, 32).unwrap()).epoch, 4);
}

#[test]
fn a_transaction_begins_with_its_first_partition() {
    let value = ongoing(0, 2);
    assert_eq!((value.status, value.started_ms, value.client_version), (Status::Ongoing, 10, 2));
    assert_eq!(value.deadline_ms(), Some(60_010));
    assert_eq!(add(Some(&value), producer(&value), &partitions(&[1]), 2, 11), Ok(Transition::Nothing));
    let more = appended(add(Some(&value), producer(&value), &partitions(&[1, 4]), 2, 11).unwrap());
    assert_eq!((more.started_ms, &more.partitions), (10, &partitions(&[0, 1, 4])));
    assert_eq!(verify(Some(&value), producer(&value), "t", 1), Ok(()));
    assert_eq!(verify(Some(&value), producer(&value), "t", 4), Err(TransactionError::NotInTransaction));
    let mapping = Err(TransactionError::InvalidProducerIdMapping);
    assert_eq!(verify(None, producer(&value), "t", 1), mapping);
    assert_eq!(verify(Some(&value), Producer { id: FRESH, epoch: 0 }, "t", 1), mapping);
    assert_eq!(verify(Some(&begun(0)), producer(&value), "t", 1), Err(TransactionError::NotInTransaction));
}

/// Kafka's table above `TransactionCoordinator.endTransaction`.
#[test]
fn an_end_under_version_two_follows_kafkas_table() {
    use TransactionError::{InvalidTransactionState as Its, ProducerFenced as Fenced};
    let before = ongoing(3, 2);
    let committed = completed(&ended(&before, true, true), 21).unwrap();
    let aborted = completed(&ended(&before, false, true), 21).unwrap();
    let empty = begun(4);
    let retry = producer(&before);
    for (value, is_retry, commits, expected) in [
        (&empty, true, false, Err(Fenced)),
        (&empty, false, false, Ok(true)),
        (&empty, true, true, Err(Fenced)),
        (&empty, false, true, Err(Its)),
        (&aborted, true, false, Ok(false)),
        (&aborted, false, false, Ok(true)),
        // Kafka says INVALID_TXN_STATE, and a Streams thread ends (KAFKA-20785).
        (&aborted, true, true, Err(Fenced)),
        (&aborted, false, true, Err(Its)),
        (&committed, true, false, Err(Its)),
        (&committed, false, false, Ok(true)),
        (&committed, true, true, Ok(false)),
        (&committed, false, true, Err(Its)),
    ] {
        let who = if is_retry { retry } else { producer(value) };
        let outcome = end(Some(value), who, commits, true, None, 30);
        let expected = match expected {
            Ok(true) => {
                let bumped = appended(outcome.clone().unwrap());
                assert_eq!((bumped.status, bumped.epoch), (Status::PrepareAbort, value.epoch + 1));
                continue;
            }
            Ok(false) => Ok(Transition::Nothing),
            Err(error) => refused(error),
        };
        assert_eq!(outcome, expected, "{:?}, retry {is_retry}, commits {commits}", value.status);
    }
}

#[test]
fn an_end_under_version_one_is_repeated_with_the_same_epoch() {
    use TransactionError::{ConcurrentTransactions as Concurrent, InvalidTransactionState as Its};
    let before = ongoing(3, 1);
    let prepared = ended(&before, true, false);
    assert_eq!((prepared.epoch, prepared.status), (3, Status::PrepareCommit));
    let who = producer(&before);
    let again = |value: &TransactionValue, commits| end(Some(value), who, commits, false, None, 30);
    assert_eq!(again(&prepared, true), refused(Concurrent));
    assert_eq!(again(&prepared, false), refused(Its));
    let done = completed(&prepared, 31).unwrap();
    assert_eq!(again(&done, true), Ok(Transition::Nothing));
    assert_eq!(again(&done, false), refused(Its));
    assert_eq!(again(&begun(3), false), refused(Its), "nothing to abort");
    let older = Producer { epoch: 2, ..who };
    assert_eq!(end(Some(&before), older, true, false, None, 30), refused(TransactionError::ProducerFenced));
}

/// A client of version 4 may end what it began under version 2: no epoch is bumped, none is answered.
#[test]
fn an_old_request_ends_a_transaction_of_version_two() {
    let before = ongoing(3, 2);
    let prepared = ended(&before, true, false);
    assert_eq!((prepared.epoch, prepared.client_version), (3, 1));
    let done = completed(&prepared, 31).unwrap();
    assert_eq!(end(Some(&done), producer(&before), true, false, None, 32), Ok(Transition::Nothing));
}

#[test]
fn an_end_that_uses_up_the_epochs_gives_another_producer_id() {
    let before = ongoing(i16::MAX - 1, 2);
    assert_eq!(end(Some(&before), producer(&before), true, true, None, 20), Err(Refusal::NeedsProducerId));
    let prepared = ended(&before, true, true);
    assert_eq!((prepared.producer_id, prepared.epoch), (ProducerId(5), i16::MAX), "markers are the old one's");
    let told = next_producer(&prepared);
    assert_eq!(told, Producer { id: FRESH, epoch: 0 });
    let done = completed(&prepared, 21).unwrap();
    assert_eq!(producer(&done), told);
    assert_eq!(
        end(Some(&done), producer(&before), true, true, None, 22),
        Ok(Transition::Nothing),
        "the answer was lost"
    );
    assert_eq!(next_producer(&done), told);
}

/// The client has the answer of its commit, or of its abort, and goes on before all markers are written. Connect's exactly-once source was
/// fenced so, whose task aborts what it has not sent yet.
#[test]
fn the_next_transaction_waits_until_the_one_before_is_complete() {
    const WAITS: TransactionError = TransactionError::ConcurrentTransactions;
    for epoch in [3, i16::MAX - 1] {
        let before = ongoing(epoch, 2);
        for commits in [true, false] {
            let prepared = ended(&before, commits, true);
            let next = next_producer(&prepared);
            assert_eq!(add(Some(&prepared), next, &partitions(&[0]), 2, 30), Err(WAITS), "{next:?}");
            for commits_next in [true, false] {
                assert_eq!(end(Some(&prepared), next, commits_next, true, Some(FRESH), 30), refused(WAITS), "{next:?}");
            }
            let done = completed(&prepared, 31).unwrap();
            let aborted = appended(end(Some(&done), next, false, true, Some(FRESH), 32).unwrap());
            assert_eq!(aborted.status, Status::PrepareAbort, "a transaction that had no partition");
        }
    }
}

#[test]
fn a_commit_that_races_with_a_time_out_is_fenced() {
    let before = ongoing(3, 2);
    let fenced = aborted_by_coordinator(&before, 30);
    let commit = |value: &TransactionValue| end(Some(value), producer(&before), true, true, None, 31);
    assert_eq!(commit(&fenced), refused(TransactionError::ProducerFenced));
    assert_eq!(commit(&completed(&fenced, 32).unwrap()), refused(TransactionError::ProducerFenced));
}

#[test]
fn an_id_at_rest_expires() {
    assert!(is_expired(&begun(0), 100, 101) && !is_expired(&begun(0), 100, 100));
    assert!(!is_expired(&ongoing(0, 2), 100, 1_000));
    assert!(!is_expired(&ended(&ongoing(0, 2), true, true), 100, 1_000));
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Begin(usize),
    Add(usize),
    End { who: usize, commits: bool, bumps: bool },
    Complete,
    TimeOut,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => (0_usize..2).prop_map(Act::Begin),
        4 => (0_usize..2).prop_map(Act::Add),
        4 => (0_usize..2, any::<bool>(), any::<bool>()).prop_map(|(who, commits, bumps)| Act::End { who, commits, bumps }),
        4 => Just(Act::Complete),
        1 => Just(Act::TimeOut),
    ]
}

proptest! {
    /// Two clients share an id. Whoever has begun last is the only one that may change anything; producer ids and epochs
    /// never come a second time; a prepared transaction ends as it was prepared.
    #[test]
    fn only_the_newest_client_of_an_id_goes_on(acts in proptest::collection::vec(act(), 1..80), start in prop_oneof![Just(0_i16), (i16::MAX - 9)..i16::MAX - 2]) {
        let mut value = begun(start);
        let (mut clients, mut next_id) = ([None; 2], 100);
        let mut seen = BTreeSet::new();
        for (now, act) in (100_i64..).zip(acts) {
            next_id += 1;
            let fresh = Some(ProducerId(next_id));
            let before = value.clone();
            match act {
                Act::Begin(who) => match init(Some(&value), NEW, fresh, now) {
                    Ok(Transition::Append(next)) => {
                        clients = [None; 2];
                        clients[who] = Some(producer(&next));
                        prop_assert!(seen.insert((next.producer_id, next.epoch)), "given before: {next:?}");
                        value = next;
                    }
                    Ok(Transition::AbortFirst(next)) => {
                        clients = [None; 2];
                        value = next;
                    }
                    Ok(Transition::Nothing | Transition::Remove) => prop_assert!(false, "nothing"),
                    Err(error) => prop_assert_eq!(error, TransactionError::ConcurrentTransactions.into()),
                },
                Act::Add(who) => {
                    let client = clients[who].unwrap_or(Producer { id: ProducerId(5), epoch: start });
                    let outcome = add(Some(&value), client, &partitions(&[1]), 2, now);
                    if let Ok(Transition::Append(next)) = outcome {
                        prop_assert!(clients[who].is_some() || value.epoch == start, "a zombie adds");
                        value = next;
                    }
                }
                Act::End { who, commits, bumps } => {
                    let Some(client) = clients[who] else { continue };
                    match end(Some(&value), client, commits, bumps, fresh, now) {
                        Ok(Transition::Append(next)) => {
                            value = next;
                            if bumps {
                                clients[who] = Some(next_producer(&value));
                            }
                        }
                        Ok(_) if bumps => clients[who] = Some(next_producer(&value)),
                        Ok(_) | Err(_) => {}
                    }
                }
                Act::Complete => {
                    if let Some(next) = completed(&value, now) {
                        let commits = value.status == Status::PrepareCommit;
                        prop_assert_eq!(next.status == Status::CompleteCommit, commits);
                        value = next;
                    }
                }
                Act::TimeOut => {
                    if value.deadline_ms().is_some() {
                        value = aborted_by_coordinator(&value, now);
                        clients = [None; 2];
                    }
                }
            }
            let rotated = value.producer_id != before.producer_id;
            prop_assert!(rotated || value.epoch >= before.epoch, "the epoch falls: {before:?}, {value:?}");
        }
    }
}
