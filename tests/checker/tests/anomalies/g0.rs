//! G0: a circle of writes. Legal, and noted.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G0, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a( txn x1 y1; b( txn x2 y2; a) txn x1@0 y1@{1|0}; b) txn x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // plain batches
    "a( send x1 y1; b( send x2 y2; a) send x1@0 y1@{1|0}; b) send x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // one of each
    "a( txn x1 y1; b( send x2 y2; a) txn x1@0 y1@{1|0}; b) send x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // known from a reader only
    "a( txn x1 y1; b( txn x2 y2; a) txn x1 y1; b) txn x2 y2; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // in doubt
    "a( txn x1 y1; b( txn x2 y2; a)? txn x1 y1; b) txn x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // still open
    "a( txn x1 y1; b( txn x2 y2; b) txn x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // three
    "a( txn x1 y1; b( txn x2 z2; c( txn y3 z3; a) txn x1@0 y1@{1|0}; b) txn x2@1 z2@0; c) txn y3@{0|1} z3@1; r poll x1@0 x2@1 z2@0 z3@1 y{3|1}@0 y{1|3}@1",
    // within one partition
    "a( txn x1 x3; b( txn x2; a) txn x1@0 x3@{2|1}; b) txn x2@{1|2}; r poll x1@0 x{2|3}@1 x{3|2}@2",
    // around a plain send
    "a( txn x1 x3; b( send x2; a) txn x1@0 x3@{2|1}; b) send x2@{1|2}; r poll x1@0 x{2|3}@1 x{3|2}@2",
    "a( txn x1 x3; b( txn x2 x4; a) txn x1@0 x3@{2|1}; b) txn x2@{1|2} x4@3; r poll x1@0 x{2|3}@1 x{3|2}@2 x4@3",
    // the third partition
    "a( txn x1 y1 z1; b( txn x2 y2 z2; a) txn x1@0 y1@0 z1@{1|0}; b) txn x2@1 y2@1 z2@{0|1}; r poll x1@0 x2@1 y1@0 y2@1 z{2|1}@0 z{1|2}@1",
    // markers between
    "a( txn x1 y1; b( txn x2 y2; a) txn x1@0 y1@{2|0}; b) txn x2@2 y2@{0|2}; r poll x1@0 x2@2 y{2|1}@0 y{1|2}@2",
    "a( txn x1 y1; b( txn x2 y2; a) txn x1@0 y1@{1|0}; b) txn x2@1 y2@{0|1}; r read x1@0 x2@1 y{2|1}@0 y{1|2}@1 x:2 y:2",
    "r sub x y; a( txn x1 y1; b( txn x2 y2; a) txn x1@0 y1@{1|0}; b) txn x2@1 y2@{0|1}; r poll ~x x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    "a( txn x1 y1; b( txn x2 y2; a) txn x1@0 y1@{1|0}; a crash; b) txn x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    "a( txn x1/P0.0 y1/P0.0; b( txn x2/Q0.0 y2/Q0.0; a) txn x1@0/P0.0 y1@{1|0}/P0.0; b) txn x2@1/Q0.0 y2@{0|1}/Q0.0; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    "a compact x; a( txn x1#1 y1; b( txn x2#2 y2; a) txn x1@0#1 y1@{1|0}; b) txn x2@1#2 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // beside an aborted one
    "a( txn x1 y1; b( txn x2 y2; c abort x9; a) txn x1@0 y1@{1|0}; b) txn x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // with a poll
    "z send z9@0; a( txn x1 <z9@0 y1; b( txn x2 y2; a) txn x1@0 <z9@0 y1@{1|0}; b) txn x2@1 y2@{0|1}; r poll x1@0 x2@1 y{2|1}@0 y{1|2}@1",
    // an aborted one makes no circle
    "a( txn x1 y1; b( txn x2 y2; a) txn x1@0 y1@1; b) {txn|abort} x2@1 y2@0; r poll x1@0 {x2@1 y2@0|} y1@1",
    // four
    "a( txn x1 w1; b( txn x2 y2; c( txn y3 z3; d( txn z4 w4; a) txn x1@0 w1@{1|0}; b) txn x2@1 y2@0; c) txn y3@1 z3@0; d) txn z4@1 w4@{0|1}; r poll x1@0 x2@1 y2@0 y3@1 z3@0 z4@1 w{4|1}@0 w{1|4}@1",
];
