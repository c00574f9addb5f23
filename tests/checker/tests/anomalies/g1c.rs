//! G1c: transactions read each other.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G1c, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a( txn x1; b( txn y1; a) txn x1@0 <y1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0",
    // the other one ends first
    "a( txn x1; b( txn y1; b) txn y1@0 {<x1@0|}; a) txn x1@0 <y1@0; r poll x1@0 y1@0",
    // one partition
    "a( txn x1; b( txn x2; a) txn x1@0 <x2@2; b) txn x2@2 {<x1@0|}; r poll x1@0 x2@2",
    // three
    "a( txn x1; b( txn y1; c( txn z1; a) txn x1@0 <y1@0; b) txn y1@0 <z1@0; c) txn z1@0 {<x1@0|}; r poll x1@0 y1@0 z1@0",
    // four
    "a( txn x1; b( txn y1; c( txn z1; d( txn w1; a) txn x1@0 <y1@0; b) txn y1@0 <z1@0; c) txn z1@0 <w1@0; d) txn w1@0 {<x1@0|}; r poll x1@0 y1@0 z1@0 w1@0",
    // by its other record
    "a( txn x1 z1; b( txn y1; a) txn x1@0 z1@0 <y1@0; b) txn y1@0 {<z1@0|}; r poll x1@0 y1@0 z1@0",
    // by its second record
    "a( txn x1 x2; b( txn y1; a) txn x1@0 x2@1 <y1@0; b) txn y1@0 {<x2@1|}; r poll x1@0 x2@1 y1@0",
    "a( txn x1; b( txn y1 y2; a) txn x1@0 <y1@0 <y2@1; b) txn y1@0 y2@1 {<x1@0|}; r poll x1@0 y1@0 y2@1",
    // they poll first
    "a( txn x1; b( txn y1; a) txn <y1@0 x1@0; b) txn {<x1@0|} y1@0; r poll x1@0 y1@0",
    // no offsets answered
    "a( txn x1; b( txn y1; a) txn x1 <y1@0; b) txn y1 {<x1@0|}; r poll x1@0 y1@0",
    // beside an aborted one
    "a( txn x1; b( txn y1; c abort z1; a) txn x1@0 <y1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0",
    // an aborted reader proves nothing
    "a( txn x1; b( txn y1; a) {txn|abort} x1@0 <y1@0; b) txn y1@0 {<x1@0|}; r poll {x1@0|} y1@0",
    // rebalances excuse nothing
    "a sub y; b sub x; a( txn x1; b( txn y1; a) txn ~y x1@0 <y1@0; b) txn ~x y1@0 {<x1@0|}; r poll x1@0 y1@0",
    "a( txn x1; b( txn y1; a) txn x1@0 <y1@0; a crash; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0",
    // legal at read_uncommitted
    "a( txn x1; b( txn y1; a) txn x1@0 <y1@0; b) txn{|%} y1@0 <x1@0; r poll x1@0 y1@0",
    "a( txn x1/P0.0; b( txn y1/Q0.0; a) txn x1@0/P0.0 <y1@0; b) txn y1@0/Q0.0 {<x1@0|}; r poll x1@0 y1@0",
    "a compact x; a( txn x1#1; b( txn y1; a) txn x1@0#1 <y1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0",
    // with older records before
    "z send x9@0; z send y9@0; a( txn x1; b( txn y1; a) txn x1@1 <y9@0 <y1@1; b) txn y1@1 <x9@0 {<x1@1|}; r poll x9@0 x1@1 y9@0 y1@1",
    "z send x9@0; s poll x9@0; z start x1; a( txn x1; b( txn y1; a) txn x1@1 <y1@0; b) txn y1@0 {<x1@1|}; r poll x1@1 y1@0",
    // one of two readers
    "a( txn x1; b( txn y1; c( txn z1; a) txn x1@0 <y1@0; c) txn z1@0 <y1@0; b) txn y1@0 {<z1@0|}; r poll x1@0 y1@0 z1@0",
    "a( txn x1; b( txn y1; a) txn x1@0 <y1@0; b) txn y1@0 {<x1@0|}; r read x1@0 y1@0 x:2 y:2",
];
