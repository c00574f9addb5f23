//! A watch channel under many orders of the threads: each waiting receiver sees the newest value, and the last sender's
//! end.

#![allow(clippy::unwrap_used)]

use shuttle::{check_pct, check_random, future, thread};

use super::*;

const ITERATIONS: usize = 3_000;

/// Two senders add, receivers wait for the sum, and one for the end; one receiver goes early.
fn wait_for_the_sum() {
    let (sender, receiver) = channel(0_u64);
    let receivers: Vec<_> = (0..2)
        .map(|_| {
            let mut receiver = receiver.clone();
            thread::spawn(move || {
                future::block_on(async move { receiver.wait_for(|sum| *sum >= 4).await.map(|sum| *sum) })
            })
        })
        .collect();
    let until_the_end = {
        let mut receiver = receiver.clone();
        thread::spawn(move || {
            future::block_on(async move {
                let mut last = 0;
                loop {
                    let now = *receiver.borrow_and_update();
                    assert!(now >= last, "the value went back");
                    last = now;
                    if receiver.changed().await.is_err() {
                        return *receiver.borrow();
                    }
                }
            })
        })
    };
    let early = thread::spawn(move || drop(receiver));
    let senders: Vec<_> = [sender.clone(), sender]
        .into_iter()
        .map(|sender| {
            thread::spawn(move || {
                sender.send_modify(|sum| *sum += 1);
                sender.send_modify(|sum| *sum += 1);
            })
        })
        .collect();
    for receiver in receivers {
        assert_eq!(receiver.join().unwrap(), Ok(4));
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    early.join().unwrap();
    assert_eq!(until_the_end.join().unwrap(), 4);
}

#[test]
fn shuttle_no_change_of_a_watched_value_is_missed() {
    check_random(wait_for_the_sum, ITERATIONS);
    check_pct(wait_for_the_sum, ITERATIONS, 3);
}
