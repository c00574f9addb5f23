//! idempotent-duplicate: one producer, epoch and sequence, two offsets.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::IdempotentDuplicate, &[Law::Duplicate, Law::InconsistentOffsets, Law::DenseOffsets], ROWS);
}

const ROWS: &[&str] = &[
    "a send? x1/P0.0; a send x1@{1|0}/P0.0; r poll x1@0 {x1@1|}",
    // no retry at all
    "a send x1@0/P0.0; r poll x1@0 {x1@1|}",
    // acknowledged twice
    "a send x1@0/P0.0; a send x1@{1|0}/P0.0; r poll x1@0; s poll x1@{1|0}",
    // a delayed request
    "a( send x1/P0.0; b send x1@{1|0}/P0.0; a) send x1@0/P0.0; r poll x1@0 {x1@1|}",
    // both in doubt
    "a send? x1/P0.0; a send? x1/P0.0; r poll x1@0 {x1@1|}",
    // two values under one sequence
    "a send x1@0/P0.0; a send x2@1/P0.{0|1}; r poll x1@0 x2@1",
    // another producer
    "a send x1@0/P0.0; b send x2@1/{P|Q}0.0; r poll x1@0 x2@1",
    // another epoch begins at 0 again
    "a send x1@0/P0.0; a send x2@1/P{0|1}.0; r poll x1@0 x2@1",
    // sequences are per partition
    "a send x1@0/P0.0; a send {x2@1|y2@0}/P0.0; r poll x1@0 {x2@1|y2@0}",
    // across a crash
    "a send x1@0/P0.0; a crash; a send x1@{1|0}/P0.0; r poll x1@0 {x1@1|}",
    // after another one's record
    "a send x1@0/P0.0; b send x2@1; a send x1@{2|0}/P0.0; r poll x1@0 x2@1 {x1@2|}",
    // in a transaction
    "a txn x1@0/P0.0; r poll x1@0 {x1@2|}",
    "a txn? x1/P0.0; a txn x1@{2|0}/P0.0; r poll x1@0 {x1@2|}",
    // a batch again
    "a send x1@0/P0.0 x2@1/P0.1; a send x1@{2|0}/P0.0 x2@{3|1}/P0.1; r poll x1@0 x2@1 {x1@2 x2@3|}",
    // its second record
    "a send x1@0/P0.0 x2@1/P0.1; r poll x1@0 x2@1 {x2@2|}",
    // after the first was deleted
    "a send x1@0/P0.0; r poll x1@0; a start x1; a send x1@{1|0}/P0.0; s poll {x1@1|}",
    "r sub x; a send x1@0/P0.0; r poll x1@0; r poll ~x x1@{1|0}",
    "a send x1@0/P0.0; r read x1@0 {x1@1|} x:{2|1}",
    // a failed retry makes no second one
    "a send? x1/P0.0; a send! x1/P0.0; r poll x1@0 {x1@1|}",
    // three attempts
    "a send x1@0/P0.5; a send? x1/P0.5; a send? x1/P0.5; r poll x1@0 {x1@1 x1@2|}",
    "a( send x1/P0.0; b( send x2/Q0.0; a) send x1@0/P0.0; b) send x2@1/Q0.0; r poll x1@0 x2@1 {x1@2|}",
    "a send x1@0/P3.7; a send x2@1/P3.{7|8}; r poll x1@0 x2@1",
];
