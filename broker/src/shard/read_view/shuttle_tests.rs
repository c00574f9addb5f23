//! Waiters of partitions under many orders of the threads: `cargo test -p ottla-broker --features shuttle shuttle_`.
//!
//! A request that waits for bytes is woken when they come (shuttle takes a wait for ever for a deadlock), not before
//! they are shown, and a session's feed neither misses a change nor counts one twice.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use shuttle::{check_pct, check_random, future, thread};
use uuid::Uuid;

use super::*;
use crate::shard::data_waiters::Isolation;

const ITERATIONS: usize = 3_000;

fn id(index: i32) -> PartitionId {
    PartitionId { topic: Uuid::from_u128(1), index }
}

/// Every offset is ten bytes.
fn show(read_view: &ReadView, index: i32, high_watermark: i64, bytes: u64) {
    let end = Offset(high_watermark);
    let offsets = LogOffsetSnapshot { high_watermark: end, last_stable: end, ..LogOffsetSnapshot::default() };
    read_view.publish(vec![(id(index), offsets, bytes, None)], &[]);
}

fn two_partitions() -> (Arc<ReadView>, Vec<Arc<PartitionReadView>>) {
    let read_view = Arc::new(ReadView::default());
    (0..2).for_each(|index| show(&read_view, index, 0, 0));
    let views = (0..2).filter_map(|index| read_view.get(id(index))).collect();
    (read_view, views)
}

/// Both partitions grow to two offsets, each on a thread of its own.
fn grow(read_view: &Arc<ReadView>) -> Vec<thread::JoinHandle<()>> {
    (0..2)
        .map(|index| {
            let read_view = Arc::clone(read_view);
            thread::spawn(move || (1..=2).for_each(|end| show(&read_view, index, end, 10)))
        })
        .collect()
}

fn bytes_shown(views: &[Arc<PartitionReadView>]) -> i64 {
    views.iter().map(|view| view.offsets().high_watermark.0 * 10).sum()
}

/// As a delayed fetch does: registers, counts what is there, waits.
fn long_poll(goes: bool) {
    let (read_view, views) = two_partitions();
    let poller = {
        let views = views.clone();
        thread::spawn(move || {
            let (waiter, woken) = DataWaiter::new(40, Isolation::ReadUncommitted);
            for view in &views {
                if !view.register(&waiter) {
                    return;
                }
            }
            let there = bytes_shown(&views);
            if there == 0 || !waiter.credit(Growth::of(there.unsigned_abs())) {
                assert!(future::block_on(woken).is_ok());
            }
            // Bytes that came while it counted may count twice, which wakes early, but never for nothing.
            assert!(goes || bytes_shown(&views) >= 20, "woken with {} bytes", bytes_shown(&views));
            views.iter().for_each(|view| view.unregister(&waiter));
        })
    };
    let growing = grow(&read_view);
    let going = goes.then(|| {
        let read_view = Arc::clone(&read_view);
        thread::spawn(move || read_view.publish(Vec::new(), &[id(1)]))
    });
    poller.join().unwrap();
    growing.into_iter().chain(going).for_each(|thread| thread.join().unwrap());
}

/// As a session does: takes what changed, reads it, waits for more, until all of it was seen.
fn session() {
    let (read_view, views) = two_partitions();
    let feed = Arc::new(ChangeFeed::default());
    let subscribed: Vec<_> = views.iter().zip(0..).filter_map(|(view, slot)| view.subscribe(&feed, slot)).collect();
    let poller = {
        let (views, feed) = (views.clone(), Arc::clone(&feed));
        thread::spawn(move || {
            let mut seen = [0_i64; 2];
            for turn in 0.. {
                let changed: BTreeSet<u64> = feed.take_changed();
                assert!(turn == 0 || !changed.is_empty(), "woken for nothing");
                for slot in changed {
                    let slot = usize::try_from(slot).unwrap();
                    seen[slot] = views[slot].offsets().high_watermark.0;
                }
                if seen == [2, 2] {
                    break;
                }
                let (waiter, woken) = DataWaiter::new(10, Isolation::ReadUncommitted);
                feed.attach(&waiter);
                assert!(future::block_on(woken).is_ok());
            }
        })
    };
    grow(&read_view).into_iter().for_each(|thread| thread.join().unwrap());
    poller.join().unwrap();
    // It may have read offsets whose change the feed had not recorded yet.
    drop(feed.take_changed());
    drop(subscribed);
    show(&read_view, 0, 3, 10);
    assert!(feed.take_changed().is_empty(), "subscribed no longer");
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
