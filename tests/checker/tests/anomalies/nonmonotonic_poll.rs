//! nonmonotonic-poll: a consumer reads at or before where it stood.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::NonmonotonicPoll, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x2@1; r poll {x1@0|}",
    // the same again
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x1@0; r poll {x1@0|} x2@1",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r assign x; r poll x1@0 x2@1; r poll {x2@1|}",
    // assigned again, the partition stays
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r assign x; r poll x2@1; r assign x{|; r crash}; r poll x1@0",
    // to the beginning
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r assign x; r poll x2@1; r assign{|0} x; r poll x1@0",
    // away and back
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r assign x; r poll x2@1; {|r assign y;} r assign x; r poll x1@0",
    // rebalanced
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r sub x; r poll x2@1; r poll {|~x} x1@0",
    // during an empty poll
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r sub x; r poll x2@1; r poll {|~x}; r poll x1@0",
    // another partition was
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r sub x y; r poll x2@1; r poll ~{y|x} x1@0",
    // no group takes an assigned partition away
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r {assign|sub} x; r poll x2@1; r poll ~x x1@0",
    // a failed poll moves nothing
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll{|!} x2@1; r poll x1@0",
    // nor does an aborted transaction
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r {txn|abort} <x2@1; r poll x1@0",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll{|?} x2@1; r poll x1@0",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x2@1; r {poll|crash}; r poll x1@0",
    // into a transaction
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x2@1; r txn z1@0 {<x1@0|}; t poll z1@0",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r txn <x2@1; r txn {<x2@1|} z1@0; t poll z1@0",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; b send y1@0; r poll x2@1 y1@0; r poll {x1@0|}",
    // what a failed poll returned counts
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x2@1; r poll! {x1@0|}",
    "a txn x1@0; a txn x2@2; s poll x1@0 x2@2; r poll x2@2; r poll {x1@0|}",
    // below the log start
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x2@1; a start x1; r poll {x1@0|}",
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll% x2@1; r poll% {x1@0|}",
    // another client begins anew
    "a( send x2; a) send x2@0; s poll x2@0; {r|q} poll x2@0; b send x3@1; r poll x2@0 x3@1",
    // a full read has a position of its own
    "a send x1@0; a send x2@1; s poll x1@0 x2@1; r poll x2@1; r read x1@0 x2@1 x:2; r poll {x2@1|}",
];
