//! bank-sum: the accounts do not add up.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(
        Law::BankSum,
        &[Law::IntPollSkip, Law::LostWrite, Law::Unseen, Law::Duplicate, Law::G1a, Law::IntNonmonotonicPoll],
        ROWS,
    );
}

const ROWS: &[&str] = &[
    // half a transfer
    "a send x1@0$100; b txn x2@1$-10 x3@2$10; s poll x1@0 x2@1 x3@2; r read x1@0 x2@1 {|x3@2} x:4",
    "a send x1@0$100; b txn x2@1$-10 x3@2$10; s poll x1@0 x2@1 x3@2; r read x1@0 {|x2@1} x3@2 x:4",
    // read until the middle
    "a send x1@0$100; b txn x2@1$-10 x3@2$10; s poll x1@0 x2@1 x3@2; r read x1@0 x2@1 x:{4|2}",
    // over two partitions
    "a send x1@0$100; b txn x2@1$-10 y3@0$10; s poll x1@0 x2@1 y3@0; r read x1@0 x2@1 {|y3@0} x:3 y:2",
    // not visible in the second yet
    "a send x1@0$100; b txn x2@1$-10 y3@0$10; s poll x1@0 x2@1 y3@0; r read x1@0 x2@1 x:3 y:{2|0}",
    // the second was not read
    "a send x1@0$100; b txn x2@1$-10 y3@0$10; s poll x1@0 x2@1 y3@0; r read x1@0 x2@1 x:3 {y:2|}",
    // the deposit is gone
    "a send x1@0$100; s poll x1@0; r read {|x1@0} x:1",
    // the deposit twice
    "a send x1@0$100; r read x1@0 {x1@1|} x:{2|1}",
    // half of an aborted one
    "a send x1@0$100; b abort x2@1$-10 x3@2$10; r read x1@0 {x2@1|} x:4",
    "a send x1@0$100; b txn! x2$-10 x3$10; r read x1@0 {x3@2|} x:4",
    // in doubt, and half of it visible
    "a send x1@0$100; b txn? x2@1$-10 x3@2$10; s poll x2@1 {|x3@2}; r read x1@0 x2@1 {|x3@2} x:4",
    // an aborted one, at read_uncommitted
    "a send x1@0$100; b abort x2@1$-10; r read{|%} x1@0 x2@1 x:3",
    // the second transfer
    "a send x1@0$100; b txn x2@1$-10 x3@2$10; c txn x4@4$-5 x5@5$5; s poll x1@0 x2@1 x3@2 x4@4 x5@5; r read x1@0 x2@1 x3@2 x4@4 {|x5@5} x:7",
    // interleaved
    "a send x1@0$100; b( txn x2$-10 x4$10; c txn x3@2$-5 x5@4$5; b) txn x2@1$-10 x4@3$10; s poll x1@0 x2@1 x3@2 x4@3 x5@4; r read x1@0 x2@1 x3@2 {|x4@3} x5@4 x:7",
    // the deposit was deleted
    "a send x1@0$100; a start x{0|1}; b txn x2@1$-10 x3@2$10; s poll x1@0 x2@1 x3@2; r read x2@1 x3@2 x:4",
    "a send x1@0$100; b txn x2@1$-10 x3@2$10; r read x1@0 x2@1 x3@2 x:4; q read x1@0 {|x2@1} x3@2 x:4",
    "a send x1@0$100; b crash; b txn x2@1$-10 x3@2$10; s poll x1@0 x2@1 x3@2; r read x1@0 x2@1 {|x3@2} x:4",
    "a send x1@0$100; b txn x2@1$-10/P0.0 x3@2$10/P0.1; s poll x1@0 x2@1 x3@2; r read x1@0 {x2@1|x2@1 x3@2} x:4",
    // one of two deposits
    "a send x1@0$50 x2@1$50; b txn x3@2$-10 x4@3$10; s poll x1@0 x2@1 x3@2 x4@3; r read x1@0 {|x2@1} x3@2 x4@3 x:5",
    // over three partitions
    "a send x1@0$100; b txn x2@1$-10 y3@0$4 z4@0$6; s poll x1@0 x2@1 y3@0 z4@0; r read x1@0 x2@1 y3@0 {|z4@0} x:3 y:2 z:2",
    // a record twice
    "a send x1@0$100; b txn x2@1$-10 x3@2$10; s poll x1@0 x2@1 x3@2; r read x1@0 x2@1 x3@2 {x3@2|} x:4",
    // debts
    "a send x1@0$-100; b txn x2@1$10 x3@2$-10; s poll x1@0 x2@1 x3@2; r read x1@0 x2@1 {|x3@2} x:4",
];
