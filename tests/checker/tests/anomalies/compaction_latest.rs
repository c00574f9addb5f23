//! compaction-latest: a key's latest record is not what a full read shows.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::CompactionLatest, &[Law::IntPollSkip, Law::LostWrite, Law::Unseen], ROWS);
}

const ROWS: &[&str] = &[
    "a compact x; a send x1@0#1; a send x2@1#1; s poll x1@0 x2@1; r read x{1@0|2@1} x:2",
    // the only one is gone
    "a compact x; a send x1@0#1; s poll x1@0; r read {|x1@0} x:1",
    // a deleted key came back
    "a compact x; a send x1@0#1; a send x2@1#1-; s poll x1@0 x2@1; r read {x1@0|} x:2",
    // the tombstone is gone before what it deletes
    "a compact x; a send x1@0#1; a send x2@1#1-; s poll x1@0 x2@1; r read x1@0 {|x2@1} x:2",
    // another key between
    "a compact x; a send x1@0#1; a send x2@1#2; a send x3@2#1; s poll x1@0 x2@1 x3@2; r read {x1@0|} x2@1 {|x3@2} x:3",
    // the second key is gone
    "a compact x; a send x1@0#1; a send x2@1#2; s poll x1@0 x2@1; r read x1@0 {|x2@1} x:2",
    "a compact x; a send x1@0#1; a send x2@1#{1|2}; s poll x1@0 x2@1; r read x1@0 {|x2@1} x:2",
    // read until before it
    "a compact x; a send x1@0#1; a send x2@1#1; s poll x1@0 x2@1; r read x1@0 x:{2|1}",
    // deleted by retention
    "a compact x; a send x1@0#1; a start x{0|1}; s poll x1@0; r read x:1",
    "a compact x; a txn x1@0#1; a txn x2@2#1; s poll x1@0 x2@2; r read x1@0 {|x2@2} x:4",
    // an aborted one supersedes nothing
    "a compact x; a txn x1@0#1; a {txn|abort} x2@2#1; s poll% x1@0 x2@2; r read x1@0 x:4",
    "a compact x; a send x1@0#1; a send{|!} x2@1#1; s poll x1@0 {x2@1|}; r read x1@0 x:{2|1}",
    // the second partition
    "a compact x; a compact y; a send x1@0#1; a send y1@0#1; a send y2@1#1; s poll x1@0 y1@0 y2@1; r read x1@0 y{1@0|2@1} x:1 y:2",
    "a compact x; a send x1@0#1; a send x2@1#1; a crash; s poll x1@0 x2@1; r crash; r read x{1@0|2@1} x:2",
    // right first, wrong later
    "a compact x; a send x1@0#1; a send x2@1#1; s poll x1@0 x2@1; r read x2@1 x:2; q read x{1@0|2@1} x:2",
    // born again, and gone
    "a compact x; a send x1@0#1-; a send x2@1#1; s poll x1@0 x2@1; r read {|x2@1} x:2",
    "a compact x; a send x1@0#1; a send x2@1#1-; a send x3@2#1; s poll x1@0 x2@1 x3@2; r read {x2@1|} {|x3@2} x:3",
    "a compact x; a send x1@0#1/P0.0; a send x2@1#1/P0.1; s poll x1@0 x2@1; r read x{1@0|2@1} x:2",
    // in doubt, and proved
    "a compact x; a send x1@0#1; a send? x2#1; s poll x1@0 {x2@1|}; r read x1@0 x:{2|1}",
    "a compact x; a send x1@0#1; a send x2@1#1; s poll x1@0 x2@1; r read% x{1@0|2@1} x:2",
    // key 0
    "a compact x; a send x1@0#0; a send x2@1#0; s poll x1@0 x2@1; r read x{1@0|2@1} x:2",
    // a batch
    "a compact x; a send x1@0#1 x2@1#2 x3@2#1 x4@3#2-; s poll x1@0 x2@1 x3@2 x4@3; r read {x2@1|} x3@2 x:4",
];
