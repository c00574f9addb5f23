//! inconsistent-offsets: one offset, two values.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(
        Law::InconsistentOffsets,
        &[Law::LostWrite, Law::Unseen, Law::NonmonotonicSend, Law::IntNonmonotonicPoll, Law::PhantomRead],
        ROWS,
    );
}

const ROWS: &[&str] = &[
    // two producers got the same offset
    "a send x1@0; b send x2@{0|1}; r poll x1@0; s poll x2@{0|1}",
    // two readers disagree
    "a send x1@0; a send? x2; r poll x1@0; s poll {x2@0|x1@0}",
    // a reader disagrees with the acknowledgement
    "a send x1@5; a send? x2; r poll x{2@5|1@5}",
    // the offset is given again after a crash
    "a send x1@0; a crash; a send x2@{0|1}; r poll x1@0 {|x2@1}",
    // only the second partition is wrong
    "a send x1@0; a send y1@0; b send y2@{0|1}; r poll x1@0 y1@0; s poll y2@{0|1}",
    // transactions
    "a txn x1@0 y1@0; b txn x2@{0|2} y2@2; r poll x1@0 y1@0 y2@2; s poll x2@{0|2}",
    // an aborted transaction's poll counts
    "a send x1@0; a send? x2; b abort <x{2|1}@0; r poll x1@0",
    // in doubt, and read
    "a send? x1@0; b send x2@{0|1}; r poll x1@0; s poll x2@{0|1}",
    // three values
    "a send x1@0; b send x2@{0|1}; c send x3@{0|2}; r poll x1@0; s poll x2@{0|1}; t poll x3@{0|2}",
    // the new first offset is given again
    "a send x1@0; a send x2@1; a start x1; b send x3@{1|2}; r poll x2@1; s poll x3@{1|2}",
    // retention frees no offset
    "a send x1@0; r poll x1@0; a start x1; b send x2@{0|1}; s poll x2@{0|1}",
    // two full reads disagree
    "a send x1@0; a send? x2; s read x1@0 x:1; r read x{2|1}@0 x:1",
    // after a rebalance the new owner reads something else
    "r sub x; s sub x; a send x1@0; a send? x2; r poll x1@0; s poll ~x x{2|1}@0",
    // one consumer, twice from the beginning
    "a send x1@0; a send? x2; r assign0 x; r poll x1@0; r assign0 x; r poll x{2|1}@0",
    // read_uncommitted sees the same log
    "a send x1@0; a send? x2; r poll x1@0; s poll% x{2|1}@0",
    // far up
    "a send x1@1000000; b send x2@{1000000|1000001}; r poll x1@1000000; s poll x2@{1000000|1000001}",
    // a value that no operation sent
    "a send x1@0; r poll x1@0; s poll x{9|1}@0",
    // what a failed poll returned counts
    "a send x1@0; a send? x2; r poll x1@0; s poll! x{2|1}@0",
    // beside a retried send
    "a send? x1; a send x1@1; b send x2@{1|2}; r poll x1@0 x1@1; s poll x2@{1|2}",
    // at the same time
    "a( send x1; b( send x2; a) send x1@0; b) send x2@{0|1}; r poll x1@0; s poll x2@{0|1}",
    // compaction keeps offsets
    "a compact x; a send x1@0#1; b send x2@{0|1}#2; r poll x1@0; s poll x2@{0|1}",
    // an open send turns out to stand there
    "a( send x1; b send x2@{0|1}; a)? send x1@0; r poll x1@0; s poll x2@{0|1}",
];
