//! lost-write: never read, though something behind it was.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::LostWrite, &[Law::Unseen, Law::IntPollSkip, Law::PollSkip], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; a send x2@1; r poll {|x1@0} x2@1",
    // one of two partitions
    "a send x1@0; a send y1@0; a send x2@1; r poll y1@0 x2@1; s poll {y1@0|x1@0}",
    // in doubt, and proved by its other record
    "a txn? x1@0 y1@0; b txn x2@2; r poll {|x1@0} x2@2 y1@0",
    // half a transaction
    "a txn x1@0 y1@0; b txn x2@2 y2@2; r poll {|x1@0} x2@2 y1@0 y2@2",
    // a crash excuses nothing
    "a send x1@0; a crash; a send x2@1; r poll {|x1@0} x2@1",
    // deleted on request
    "a send x1@0; a send x2@1; a start x{0|1}; r poll x2@1",
    // deleted by retention
    "a send x1@0; a send x2@1; a send x3@2; a seen x{1|2}; r poll x3@2",
    // superseded
    "a compact x; a send x1@0#{1|2}; a send x2@1#2; r poll x2@1",
    // deleted by a tombstone
    "a compact x; a send x1@0#{1|2}; a send x2@1#2-; r poll x2@1",
    // a full read without it
    "a send x1@0; a send x2@1; r read {|x1@0} x2@1 x:2",
    "a send x1@0; a send x2@1; a send x3@2; r poll x1@0 {|x2@1} x3@2",
    // three readers, and none read it
    "a send x1@0; a send x2@1; a send x3@2; r poll x1@0; s poll x{3@2|2@1}; t poll x3@2",
    // lost in a rebalance
    "r sub x; s sub x; a send x1@0; a send x2@1; a send x3@2; r poll x1@0; s poll ~x {|x2@1} x3@2",
    // a failed poll has read nothing
    "a send x1@0; a send x2@1; r poll{!|} x1@0; s poll x2@1",
    "a send x1@0; a send x2@1; r poll{?|} x1@0; s poll x2@1",
    // nor has an aborted transaction
    "a send x1@0; a send x2@1; r {abort|txn} <x1@0; s poll x2@1",
    // at the same time
    "a( send x1; b( send x2; b) send x2@1; a) send x1@0; r poll {|x1@0} x2@1",
    // retried until acknowledged
    "a send? x1; a send x1@0; a send x2@1; r poll {|x1@0} x2@1",
    "a send? x1/P0.0; a send x1@0/P0.0; a send x2@1/P0.1; r poll {|x1@0} x2@1",
    // not even from the beginning
    "a send x1@0; b send x2@1; r poll x2@1; r crash; r assign0 x; r poll {|x1@0} x2@1",
    // in doubt and never seen: it may not have been committed
    "a txn{|?} x1@0; b txn x2@2; r poll x2@2",
    // one of a batch
    "a send x1@0 x2@1 x3@2; r poll x1@0 {|x2@1} x3@2",
];
