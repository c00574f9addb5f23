//! dense-offsets: a hole that nothing explains.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::DenseOffsets, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; a send x2@{2|1}; r poll x1@0 x2@{2|1}",
    // between two polls
    "a send x1@0; a send x2@{2|1}; r poll x1@0; r poll x2@{2|1}",
    // the log does not begin at 0
    "a send x1@{1|0}; r assign0 x; r poll x1@{1|0}",
    "a send x1@{1|0}; r read x1@{1|0} x:{2|1}",
    // nothing before the end
    "a send x1@0; r read x1@0 x:{2|1}",
    // more holes than markers
    "a send x1@0; {a send! x9|a send? x9}; a txn x2@2; r poll x1@0 x2@2; {a txn x3@6|a txn x3@4}; s poll x3@{6|4}",
    "a txn x1@0; a txn x2@{3|2}; {|a abort x9;} r poll x1@0; {s|r} poll x2@{3|2}; {b txn x3@7|b txn x3@4}; t poll x3@{7|4}",
    // an aborted one takes two
    "a txn x1@0; a abort x9; a txn x2@{5|4}; r poll x1@0 x2@{5|4}; {b txn x3@9|b txn x3@6}; t poll x3@{9|6}",
    // retention explains only what it deleted
    "a send x1@0; r poll x1@0; a start x1; a send x2@{2|1}; s assign0 x; s poll x2@{2|1}",
    "a send x1@0; a send x2@1; a send x3@2; r poll x1@0 x2@1 x3@2; a start x2; s assign0 x; s poll x3@2; b send x4@{4|3}; r poll x4@{4|3}",
    // a crash leaves no hole
    "a send x1@0; a crash; a send x2@{2|1}; r poll x1@0 x2@{2|1}",
    // nor does a failed send
    "a send x1@0; a send! x9; a send x2@{2|1}; r poll x1@0 x2@{2|1}",
    // nor one in doubt: it would have been read
    "a send x1@0; a send? x9; a send x2@{2|1}; r poll x1@0 x2@{2|1}",
    // the second partition
    "a send y1@0; a send x1@0; a send y2@{2|1}; a send x2@1; r poll x1@0 x2@1 y1@0 y2@{2|1}",
    "r sub x; a send x1@0; a send x2@{2|1}; r poll ~x x1@0; r poll x2@{2|1}",
    // across a rebalance no step is judged
    "r sub x; a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll ~x x1@0; {r poll x2@1 x3@2; b send x4@4; r poll x4@4|r poll ~x x3@2}",
    // at read_uncommitted
    "a send x1@0; a send x2@{2|1}; r poll% x1@0 x2@{2|1}",
    // a failed poll
    "a send x1@0; a send x2@{2|1}; r poll! x1@0 x2@{2|1}; s poll x1@0; t poll x2@{2|1}",
    // compaction takes records away
    "{a send y9@0|a compact x}; a send x1@0#1; a send x2@2#2; r poll x1@0 x2@2; s poll {y9@0|}",
    // a wide hole
    "a send x1@0; a send x2@{1000000|1}; r poll x1@0 x2@{1000000|1}",
    "a send x1@0/P0.0; a send x2@{2|1}/P0.1; r poll x1@0 x2@{2|1}",
    // between two lawful copies
    "a send? x1; a send x1@{2|1}; r poll x1@0 x1@{2|1}",
    // transactions elsewhere explain nothing here
    "b send y1@0; a txn <y1@0 z1@0; a send x1@0; a send x2@{2|1}; r poll x1@0 x2@{2|1} z1@0",
];
