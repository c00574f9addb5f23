//! G1c through a write-write edge out of a transaction. Legal, and noted.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G1cUnisolated, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a( txn x1; b txn x2@1 y2@0; a) txn x1@0 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    // one partition
    "a( txn x1; b txn x2@1; a) txn x1@0 {<x2@1|}; r poll x1@0 x2@1",
    // a plain send
    "a( txn x1; b send x2@1; a) txn x1@0 {<x2@1|}; r poll x1@0 x2@1",
    // a plain batch
    "a( txn x1; b send x2@1 y2@0; a) txn x1@0 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    // no offsets answered
    "a( txn x1; b txn x2 y2; a) txn x1 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    // the other one ends later
    "a( txn x1; b( txn x2 y2; a) txn x1@0 {<y2@0|}; b) txn x2@1 y2@0; r poll x1@0 x2@1 y2@0",
    // in doubt
    "a( txn x1; b( txn x2 y2; a) txn x1@0 {<y2@0|}; b)? txn x2 y2; r poll x1@0 x2@1 y2@0",
    // the other order is none
    "a( txn x1; b txn x2@{2|0} y2@0; a) txn x1@{0|2} <y2@0; r poll x{1|2}@0 x{2|1}@2 y2@0",
    // over a third one
    "a( txn x1; b txn x2@1; c txn x3@2 z3@0; a) txn x1@0 {<z3@0|}; r poll x1@0 x2@1 x3@2 z3@0",
    // over a reader
    "a( txn x1; b txn x2@1; c txn <x2@1 z3@0; a) txn x1@0 {<z3@0|}; r poll x1@0 x2@1 z3@0",
    // over a process
    "a( txn x1; b txn x2@1; c poll x2@1; c send z3@0; a) txn x1@0 {<z3@0|}; r poll x1@0 x2@1 z3@0",
    // over the clock
    "a( txn x1; b txn x2@1; d poll x2@1; c send z3@0; a) txn x1@0 {<z3@0|}; r poll x1@0 x2@1 z3@0",
    // with another partition
    "a( txn x1 w1; b txn x2@1 y2@0; a) txn x1@0 w1@0 {<y2@0|}; r poll x1@0 x2@1 y2@0 w1@0",
    // at read_uncommitted no order follows
    "a( txn x1; b txn x2@1 y2@0; a) txn{|%} x1@0 <y2@0; r poll x1@0 x2@1 y2@0",
    "a sub y; a( txn x1; b txn x2@1 y2@0; a) txn ~y x1@0 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    "a( txn x1/P0.0; b txn x2@1/Q0.0 y2@0/Q0.0; a) txn x1@0/P0.0 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    "a compact x; a( txn x1#1; b txn x2@1#2 y2@0; a) txn x1@0#1 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    "z send x9@0; s poll x9@0; z start x1; a( txn x1; b txn x2@2 y2@0; a) txn x1@1 {<y2@0|}; r poll x1@1 x2@2 y2@0",
    // beside an aborted one
    "a( txn x1; c abort z9; b txn x2@1 y2@0; a) txn x1@0 {<y2@0|}; r poll x1@0 x2@1 y2@0",
    // an aborted reader proves nothing
    "a( txn x1; b txn x2@1 y2@0; a) {txn|abort} x1@0 <y2@0; r poll {x1@0|} x2@1 y2@0",
    "a( txn x1; b txn x2@1 y2@0; a) txn x1@0 {<y2@0|}; r read x1@0 x2@1 y2@0 x:3 y:2",
];
