//! duplicate: one value, more offsets than attempts.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::Duplicate, &[Law::IdempotentDuplicate, Law::Unseen], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; r poll x1@0 {x1@1|}",
    // acknowledged here, read there
    "a send x1@0; r poll x1@{1|0}",
    // two readers
    "a send x1@0; r poll x1@0; s poll x1@{1|0}",
    // in doubt is one attempt
    "a send? x1; r poll x1@0 {x1@1|}",
    // another value between
    "a send x1@0; b send x2@1; r poll x1@0 x2@1 {x1@2|}",
    // sent twice by the client itself
    "a send? x1; {|a send x1@1}; r poll x1@0 x1@1",
    // three copies of two attempts
    "a send? x1; a send x1@1; r poll x1@0 x1@1 {x1@2|}",
    // a failed attempt makes no copy
    "a send{!|?} x1; a send x1@1; r poll x1@0 x1@1",
    // an idempotent retry
    "a send? x1/P0.0; a send x1@{1|0}/P0.0; r poll x1@0 {x1@1|}",
    // a transaction's record
    "a txn x1@0; r poll x1@0 {x1@2|}",
    // the same value in another partition
    "a send x1@0; a send y1@0; r poll x1@0 {x1@1|y1@0}",
    // after a crash
    "a send x1@0; a crash; a send x2@{2|1}; r poll x1@0 {x1@1|} x2@{2|1}",
    // in a full read
    "a send x1@0; r read x1@0 {x1@1|} x:{2|1}",
    // back after it was deleted
    "a send x1@0; r poll x1@0; a start x1; s poll {x1@1|}",
    // read again after a rebalance
    "r sub x; a send x1@0; r poll x1@0; r poll ~x x1@{1|0}",
    // at read_uncommitted
    "a txn x1@0; r poll% x1@0 {x1@1|}",
    // a failed poll
    "a send x1@0; r poll x1@0; s poll! x1@{1|0}",
    "a( send x1; b( send x2; a) send x1@0; b) send x2@1; r poll x1@0 x2@1 {x1@2|}",
    // the whole log twice
    "a send x1@0; a send x2@1; r poll x1@0 x2@1; s poll {x1@2 x2@3|x1@0 x2@1}",
    "a compact x; a send x1@0#1; r poll x1@0 {x1@1|}",
    "a send x1@0; b abort <x1@{3|0}; r poll x1@0",
    // a transaction in doubt, sent again
    "a txn? x1; {|a txn x1@2}; r poll x1@0 x1@2",
];
