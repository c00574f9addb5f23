//! int-nonmonotonic-send: one operation's sends stand in the wrong order.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::IntNonmonotonicSend, &[Law::InconsistentOffsets], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@{1|0} x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    "a txn x1@{1|0} x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    // another one's record between
    "a( txn x1 x2; b send x3@1; a) txn x1@{2|0} x2@{0|2}; r poll x{2|1}@0 x3@1 x{1|2}@2",
    // known from a reader only
    "a send x1 x2; r poll x{2|1}@0 x{1|2}@1",
    // in doubt
    "a send? x1 x2; r poll x{2|1}@0 x{1|2}@1",
    "a txn? x1 x2; r poll x{2|1}@0 x{1|2}@1",
    // the second partition
    "a send x1@0 y1@{1|0} y2@{0|1}; r poll x1@0 y{2|1}@0 y{1|2}@1",
    // another partition between
    "a txn x1@{1|0} y1@0 x2@{0|1}; r poll x{2|1}@0 x{1|2}@1 y1@0",
    "a send x1@0 x2@{2|1} x3@{1|2}; r poll x1@0 x{3|2}@1 x{2|3}@2",
    "a send x1@{1|0} x2@{2|1} x3@{0|2}; r poll x{3|1}@0 x{1|2}@1 x{2|3}@2",
    // one place
    "a send x1@0 x2@{0|1}; r poll x1@0; s poll x2@{0|1}",
    // still open
    "a( send x1 x2; r poll x{2|1}@0 x{1|2}@1",
    // idempotent
    "a send x1@{1|0}/P0.0 x2@{0|1}/P0.1; r poll x{2|1}@0 x{1|2}@1",
    // a poll between
    "b send y1@0; a txn x1@{1|0} <y1@0 x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    // the client crashed
    "a( send x1 x2; a)? send x1 x2; a crash; r poll x{2|1}@0 x{1|2}@1",
    // above a log start
    "b send x0@0; s poll x0@0; a start x1; a send x1@{2|1} x2@{1|2}; r poll x{2|1}@1 x{1|2}@2",
    "a compact x; a send x1@{1|0}#1 x2@{0|1}#2; r poll x{2|1}@0 x{1|2}@1",
    // two processes may
    "a send x1@1 {x2@0|}; {|b send x2@0}; r poll x2@0 x1@1",
    // a full read
    "a send x1@{1|0} x2@{0|1}; r read x{2|1}@0 x{1|2}@1 x:2",
    // one offset answered, one found
    "a send? x1@{1|0} x2; r poll x{2|1}@0 x{1|2}@1",
    "r sub x; a send x1@{1|0} x2@{0|1}; r poll ~x x{2|1}@0 x{1|2}@1",
    // seen at read_uncommitted
    "a txn? x1 x2; r poll% x{2|1}@0 x{1|2}@1",
    // after a failure
    "a send! x8 x9; a send x1@{1|0} x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
];
