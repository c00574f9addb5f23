//! precommitted-read: a transaction polled what it had sent itself.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::PrecommittedRead, &[Law::G1a], ROWS);
}

const ROWS: &[&str] = &[
    "a txn x1@0 {<x1@0|}; r poll x1@0",
    // the second partition
    "a txn x1@0 y1@0 {<y1@0|}; r poll x1@0 y1@0",
    // it failed afterwards
    "a txn! x1 {<x1@0|}; r poll",
    // it was aborted
    "a abort x1@0 {<x1@0|}; r poll",
    // its outcome is unknown
    "a txn? x1 {<x1@0|}; r poll {x1@0|}",
    // legal at read_uncommitted
    "a txn{|%} x1@0 <x1@0; r poll x1@0",
    // beside something legal
    "b send y9@0; a txn x1@0 <y9@0 {<x1@0|}; r poll x1@0",
    "a txn x1@0 x2@1 {<x2@1|}; r poll x1@0 x2@1",
    "a txn x1@0 x2@1 {<x1@0|}; r poll x1@0 x2@1",
    // its last transaction's value is legal
    "a txn x1@0; a txn x2@2 <x1@0 {<x2@2|}; r poll x1@0 x2@2",
    // another one's value is legal
    "a txn x1@0; b txn x2@2 <{x2@2|x1@0}; r poll x1@0 x2@2",
    // at the same time
    "a( txn x1; b( txn y1; a) txn x1@0 <{x1@0|y1@0}; b) txn y1@0; r poll x1@0 y1@0",
    // after a crash
    "a txn x1@0; a crash; a txn x2@2 <{x2@2|x1@0}; r poll x1@0 x2@2",
    // a rebalance excuses nothing
    "a sub x; a txn ~x x1@0 {<x1@0|}; r poll x1@0",
    // above a new log start
    "b send x0@0; r poll x0@0; a start x1; a txn x1@1 {<x1@1|}; r poll x1@1",
    // after an abort
    "a abort x1@0; a txn x2@2 {<x2@2|}; r poll x2@2",
    // polls before and after
    "b txn y1@0; a txn <y1@0 x1@0 {<x1@0|}; r poll x1@0",
    // with a full read at the end
    "a txn x1@0 {<x1@0|}; r read x1@0 x:2",
    "a txn x1@0/P0.0 {<x1@0|}; r poll x1@0",
    "a txn x1@0 y1@0 z1@0 {<z1@0|}; r poll x1@0 y1@0 z1@0",
    "a txn x1@0 y1@0; a txn x2@2 <y1@0 {<x2@2|}; r poll x1@0 x2@2",
    // in doubt, and committed after all
    "a( txn x1; a)? txn x1@0 {<x1@0|}; r poll x1@0",
];
