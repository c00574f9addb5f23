//! int-send-skip: others wrote between two sends of one operation. Legal, and noted.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::IntSendSkip, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a( txn x1 x2; b send x3@{1|2}; a) txn x1@0 x2@{2|1}; r poll x1@0 x{3|2}@1 x{2|3}@2",
    // a plain batch
    "a( send x1 x2; b send x3@{1|2}; a) send x1@0 x2@{2|1}; r poll x1@0 x{3|2}@1 x{2|3}@2",
    // two between
    "a( txn x1 x2; b send x3@{1|2}; b send x4@{2|3}; a) txn x1@0 x2@{3|1}; r poll x1@0; s poll x{3|2}@1 x{4|3}@2 x{2|4}@3",
    // the second partition
    "a( txn x1 y1 y2; b send y3@{1|2}; a) txn x1@0 y1@0 y2@{2|1}; r poll x1@0 y1@0 y{3|2}@1 y{2|3}@2",
    // two transactions
    "a( txn x1 x2; b( txn x3 x4; a) txn x1@0 x2@{2|1}; b) txn x3@{1|2} x4@3; r poll x1@0 x{3|2}@1 x{2|3}@2 x4@3",
    // in doubt
    "a( txn x1 x2; b send x3@{1|2}; a)? txn x1 x2; r poll x1@0 x{3|2}@1 x{2|3}@2",
    // still open
    "a( txn x1 x2; b send x3@{1|2}; r poll x1@0 x{3|2}@1 x{2|3}@2",
    // known from a reader only
    "a( txn x1 x2; b send x3; a) txn x1 x2; r poll x1@0 x{3|2}@1 x{2|3}@2",
    // an aborted record between
    "a( txn x1 x2; b abort x3; a) txn x1@0 x2@{2|1}; r poll% x1@0 x{3|2}@1 x{2|3}@2",
    // a value that no reader saw is no skip
    "a( txn x1 x2; b {txn|abort} x3@1; a) txn x1@0 x2@3; r poll x1@0 {x3@1|} x2@3",
    // a send in doubt between
    "a( txn x1 x2; b send? x3; a) txn x1@0 x2@{2|1}; r poll x1@0 x{3|2}@1 x{2|3}@2",
    "a( txn x1 x2; b send x3@{1|2}; a) txn x1@0 x2@{2|1}; a crash; r poll x1@0 x{3|2}@1 x{2|3}@2",
    "z send x8@0; s poll x8@0; z start x1; a( txn x1 x2; b send x3@{2|3}; a) txn x1@1 x2@{3|2}; r poll x1@1 x{3|2}@2 x{2|3}@3",
    "a compact x; a( txn x1#1 x2#2; b send x3@{1|2}#3; a) txn x1@0#1 x2@{2|1}#2; r poll x1@0 x{3|2}@1 x{2|3}@2",
    "r sub x; a( txn x1 x2; b send x3@{1|2}; a) txn x1@0 x2@{2|1}; r poll ~x x1@0 x{3|2}@1 x{2|3}@2",
    // another partition between
    "a( txn x1 y1 x2; b send x3@{1|2}; a) txn x1@0 y1@0 x2@{2|1}; r poll x1@0 x{3|2}@1 x{2|3}@2 y1@0",
    "a( txn x1 x2; b send x3@{1|2}; a) txn x1@0 x2@{2|1}; r read x1@0 x{3|2}@1 x{2|3}@2 x:3",
    // idempotent producers
    "a( send x1/P0.0 x2/P0.1; b send x3@{1|2}/Q0.0; a) send x1@0/P0.0 x2@{2|1}/P0.1; r poll x1@0 x{3|2}@1 x{2|3}@2",
    "a( txn x1 x2; b( send x3; c( send x4; c) send x4@{1|3}; b) send x3@2; a) txn x1@0 x2@{3|1}; r poll x1@0 x{4|2}@1 x3@2 x{2|4}@3",
    // three sends
    "a( txn x1 x2 x4; b send x3@{1|3}; a) txn x1@0 x2@{2|1} x4@{3|2}; r poll x1@0 x{3|2}@1 x{2|4}@2 x{4|3}@3",
    // a poll between
    "z send y9@0; a( txn x1 <y9@0 x2; b send x3@{1|2}; a) txn x1@0 <y9@0 x2@{2|1}; r poll x1@0 x{3|2}@1 x{2|3}@2",
];
