//! nonmonotonic-send: a process's sends go back in the log.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::NonmonotonicSend, &[Law::InconsistentOffsets], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@{1|0}; a send x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    "a txn x1@{2|0}; a txn x2@{0|2}; r poll x{2|1}@0 x{1|2}@2",
    // known from a reader only
    "a send x1; a send x2; r poll x{2|1}@0 x{1|2}@1",
    // two processes may
    "a( send x1; {a) send x1@1; a send x2@0|b send x2@0; a) send x1@1}; r poll x2@0 x1@1",
    // an assign changes no producer
    "a send x1@{1|0}; a assign y; a send x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    // acknowledged before the crash
    "a send x1@{1|0}; a crash; a send x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    "a send x1@0; a send x2@{2|1}; a send x3@{1|2}; r poll x1@0 x{3|2}@1 x{2|3}@2",
    // another one's record between
    "a send x1@{2|0}; b send x3@1; a send x2@{0|2}; r poll x{2|1}@0 x3@1 x{1|2}@2",
    // the second partition
    "a send x1@0 y1@{1|0}; a send y2@{0|1}; r poll x1@0 y{2|1}@0 y{1|2}@1",
    // the later one in doubt
    "a send x1@{1|0}; a send? x2; r poll x{2|1}@0 x{1|2}@1",
    // the earlier one in doubt may come late
    "a send{|?} x1; a send x2; r poll x2@0 x1@1",
    // a failure between
    "a send x1@{1|0}; a send! x9; a send x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    // still open
    "a send x1@{1|0}; a( send x2; r poll x{2|1}@0 x{1|2}@1",
    // idempotent
    "a send x1@{1|0}/P0.0; a send x2@{0|1}/P0.1; r poll x{2|1}@0 x{1|2}@1",
    // one place
    "a send x1@0; a send x2@{0|1}; r poll x1@0; s poll x2@{0|1}",
    // after a batch
    "a send x1@{1|0} x2@{2|1}; a send x3@{0|2}; r poll x{3|1}@0 x{1|2}@1 x{2|3}@2",
    "a send x1@{1|0}; a txn x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    "b send x9@0; s poll x9@0; a start x1; a send x1@{2|1}; a send x2@{1|2}; r poll x{2|1}@1 x{1|2}@2",
    "a compact x; a send x1@{1|0}#1; a send x2@{0|1}#2; r poll x{2|1}@0 x{1|2}@1",
    // an aborted transaction between
    "a txn x1@{4|0}; a abort x9; a txn x2@{0|4}; r poll x{2|1}@0 x{1|2}@4",
    // a poll between
    "b send y9@0; a send x1@{1|0}; a poll y9@0; a send x2@{0|1}; r poll x{2|1}@0 x{1|2}@1",
    "a send x1@{1|0}; a send x2@{0|1}; r read x{2|1}@0 x{1|2}@1 x:2",
];
