//! Waiters of partitions under many orders of the threads: `cargo test -p ottla-broker --features shuttle shuttle_`.
//!
//! Whoever waits for bytes that come is woken (shuttle takes a wait for ever for a deadlock), not before they are shown,
//! and a session's watch neither misses a change nor counts one twice.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use shuttle::{check_pct, check_random, future, thread};
use uuid::Uuid;

use super::*;

const ITERATIONS: usize = 3_000;

fn id(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(1), index }
}

/// Every offset is ten bytes.
fn show(published: &Published, index: i32, high_watermark: i64, bytes: u64) {
    let end = Offset(high_watermark);
    let marks = Marks { high_watermark: end, last_stable: end, ..Marks::default() };
    published.publish(vec![(id(index), marks, bytes, None)], &[]);
}

fn two_partitions() -> (Arc<Published>, Vec<Arc<PartitionCell>>) {
    let published = Arc::new(Published::default());
    (0..2).for_each(|index| show(&published, index, 0, 0));
    let cells = (0..2).filter_map(|index| published.get(id(index))).collect();
    (published, cells)
}

/// Both partitions grow to two offsets, each on a thread of its own.
fn grow(published: &Arc<Published>) -> Vec<thread::JoinHandle<()>> {
    (0..2)
        .map(|index| {
            let published = Arc::clone(published);
            thread::spawn(move || (1..=2).for_each(|end| show(&published, index, end, 10)))
        })
        .collect()
}

fn bytes_shown(cells: &[Arc<PartitionCell>]) -> i64 {
    cells.iter().map(|cell| cell.marks().high_watermark.0 * 10).sum()
}

/// As the long poll does it: registers, counts what is there, waits.
fn long_poll(goes: bool) {
    let (published, cells) = two_partitions();
    let poller = {
        let cells = cells.clone();
        thread::spawn(move || {
            let (waiter, woken) = DataWaiter::new(40);
            for cell in &cells {
                if !cell.register(&waiter) {
                    return;
                }
            }
            let there = bytes_shown(&cells);
            if there == 0 || !waiter.credit(there.unsigned_abs()) {
                assert!(future::block_on(woken).is_ok());
            }
            // What came while it was counted may count twice, which wakes early, but never for nothing.
            assert!(goes || bytes_shown(&cells) >= 20, "woken with {} bytes", bytes_shown(&cells));
            cells.iter().for_each(|cell| cell.unregister(&waiter));
        })
    };
    let growing = grow(&published);
    let going = goes.then(|| {
        let published = Arc::clone(&published);
        thread::spawn(move || published.publish(Vec::new(), &[id(1)]))
    });
    poller.join().unwrap();
    growing.into_iter().chain(going).for_each(|thread| thread.join().unwrap());
}

/// As a session does it: takes what changed, looks at it, waits for more, until all of it was seen.
fn session() {
    let (published, cells) = two_partitions();
    let watch = Arc::new(Watch::default());
    let watched: Vec<_> = cells.iter().zip(0..).filter_map(|(cell, slot)| cell.watch(&watch, slot)).collect();
    let poller = {
        let (cells, watch) = (cells.clone(), Arc::clone(&watch));
        thread::spawn(move || {
            let mut seen = [0_i64; 2];
            for turn in 0.. {
                let changed: BTreeSet<u64> = watch.take_changed();
                assert!(turn == 0 || !changed.is_empty(), "woken for nothing");
                for slot in changed {
                    let slot = usize::try_from(slot).unwrap();
                    seen[slot] = cells[slot].marks().high_watermark.0;
                }
                if seen == [2, 2] {
                    break;
                }
                let (waiter, woken) = DataWaiter::new(10);
                watch.tell(&waiter);
                assert!(future::block_on(woken).is_ok());
            }
        })
    };
    grow(&published).into_iter().for_each(|thread| thread.join().unwrap());
    poller.join().unwrap();
    // It may have read marks whose change it had not been told of yet.
    drop(watch.take_changed());
    drop(watched);
    show(&published, 0, 3, 10);
    assert!(watch.take_changed().is_empty(), "watched no longer");
}

#[test]
fn shuttle_a_long_poll_is_woken_when_its_bytes_are_there() {
    check_random(|| long_poll(false), ITERATIONS);
    check_pct(|| long_poll(false), ITERATIONS, 3);
}

#[test]
fn shuttle_a_long_poll_is_woken_when_a_partition_goes() {
    check_random(|| long_poll(true), ITERATIONS);
}

#[test]
fn shuttle_a_session_sees_every_change() {
    check_random(session, ITERATIONS);
    check_pct(session, ITERATIONS, 3);
}
