//! int-nonmonotonic-poll: one operation goes back, or stays.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::IntNonmonotonicPoll, &[Law::Duplicate], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x{2|1}@{1|0} x{1|2}@{0|1}",
    // the same twice
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x1@0 {x1@0|} x2@1",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x1@0 x2@1 {x1@0|}",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x1@0 x2@1 {x2@1|}",
    // another partition between
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; b send y1@0; r poll x2@1 y1@0 {x1@0|}",
    // an open send between
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; b( send y1; r poll x{2@1|1@0} y1@0 x{1@0|2@1}",
    // two polls of one transaction
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r txn <x2@1 z1@0 {<x1@0|}; t poll z1@0",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r txn <x2@1 z1@0 {<x2@1|}; t poll z1@0",
    // a failed poll
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll! x2@1 {x1@0|}",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll? x2@1 {x1@0|}",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r abort <x2@1 {<x1@0|}",
    // rebalanced within
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r sub x; r poll {|~x} x2@1 x1@0",
    // another partition was
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r sub x; r poll ~{y|x} x2@1 x1@0",
    // a full read
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r read x1@0 x2@1 {x2@1|} x:2",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r read x1@0 {x1@0|} x2@1 x:2",
    // transactions
    "a txn x1@0; a txn x2@2; s poll x1@0 x2@2; r poll {x2@2 x1@0|x1@0 x2@2}",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll% x2@1 {x1@0|}",
    // below the log start
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; a start x1; r poll x2@1 {x1@0|}",
    // two lawful copies
    "a send? x1; a send x1@1; s poll x1@0 x1@1; r poll x1@{1|0} x1@{0|1}",
    // the next client
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x1@0; r crash; r poll x2@1 {x1@0|}",
    // superseded and back
    "a compact x; a send x1@0#1; a send x2@1#1; s poll x1@0 x2@1; r poll x2@1 {x1@0|}",
    // while it is being written
    "a( send x1; b( send x2; r poll {x2@1 x1@0|x1@0 x2@1}; a) send x1@0; b) send x2@1",
];
