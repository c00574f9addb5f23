//! G1c-realtime: a read of a send that had not begun yet, or a cycle that the clock closes.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G1cRealtime, &[], ROWS);
}

const ROWS: &[&str] = &[
    "{r poll x1@0; a send x1@0|a send x1@0; r poll x1@0}",
    "{r poll x1@0; a txn x1@0|a txn x1@0; r poll x1@0}",
    // no offset answered
    "{r poll x1@0; a send x1|a send x1; r poll x1@0}",
    // in doubt
    "{r poll x1@0; a send? x1|a send? x1; r poll x1@0}",
    // still open
    "{r poll x1@0; a( send x1|a( send x1; r poll x1@0}",
    // a full read
    "{r read x1@0 x:1; a send x1@0|a send x1@0; r read x1@0 x:1}",
    "{r txn <x1@0 y1@0; a txn x1@0|a txn x1@0; r txn <x1@0 y1@0}; s poll y1@0",
    // b knew what came after its own outcome
    "b( txn y1; a poll y1@0; c send x1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0",
    // over a third one
    "b( txn y1; c( txn z1; a poll z1@0; d send x1@0; c) txn z1@0 <y1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0 z1@0",
    "b( txn y1; a poll y1@0; {c send x1@0; b) txn y1@0 <x1@0|b) txn y1@0; c send x1@0}; r poll x1@0 y1@0",
    // at the same time is no order
    "b( txn y1; {a poll y1@0; c( send x1|c( send x1; a poll y1@0}; c) send x1@0; b) txn y1@0 <x1@0; r poll x1@0 y1@0",
    // a rebalance excuses nothing
    "r sub x; {r poll ~x x1@0; a send x1@0|a send x1@0; r poll ~x x1@0}",
    "{r poll x1@0; r crash; a send x1@0|a send x1@0; r poll x1@0; r crash}",
    // a plain send at read_uncommitted
    "{r poll% x1@0; a send x1@0|a send x1@0; r poll% x1@0}",
    // one record too many
    "a send x1@0; r poll x1@0 {x2@1|}; b send x2@1; s poll x2@1",
    // the second partition
    "a send x1@0; {r poll x1@0 y1@0; b send y1@0|b send y1@0; r poll x1@0 y1@0}",
    "z send x9@0; s poll x9@0; z start x1; {r poll x1@1; a send x1@1|a send x1@1; r poll x1@1}",
    "a compact x; {r poll x1@0; a send x1@0#1|a send x1@0#1; r poll x1@0}",
    "{r poll x1@0; a send x1@0/P0.0|a send x1@0/P0.0; r poll x1@0}",
    // a batch
    "{r poll x1@0 x2@1; a send x1@0 x2@1|a send x1@0 x2@1; r poll x1@0 x2@1}",
    // two steps later
    "b( txn y1; a poll y1@0; c send x1@0; d send x2@1; b) txn y1@0 {<x2@1|}; r poll x1@0 x2@1",
];
