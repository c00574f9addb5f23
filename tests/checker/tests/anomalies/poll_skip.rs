//! poll-skip: between two operations a consumer passes over what is known to be there.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::PollSkip, &[Law::LostWrite, Law::Unseen], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r poll {|x2@1} x3@2",
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r assign x; r poll x1@0; r poll {|x2@1} x3@2",
    // an empty poll between
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r poll; r poll {|x2@1} x3@2",
    // assigned again, the partition stays
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r assign x y; r poll x1@0; r assign x; r poll {|x2@1} x3@2",
    // assigned away and back: a new position
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r assign x; r poll x1@0; {|r assign y; r assign x;} r poll x3@2",
    // rebalanced
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r sub x; r poll x1@0; r poll {|~x} x3@2",
    // rebalanced during an empty poll
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r sub x; r poll x1@0; r poll {|~x}; r poll x3@2",
    // another partition was rebalanced
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r sub x; r poll x1@0; r poll ~{y|x} x3@2",
    // no group takes an assigned partition away
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r {assign|sub} x; r poll x1@0; r poll ~x x3@2",
    // a crash
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; {|r crash;} r poll x3@2",
    // a failed poll moves nothing
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r poll{!|} x2@1; r poll x3@2",
    // nor does an aborted transaction
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r {abort|txn} <x2@1; r poll x3@2",
    // after an unknown outcome the position is unknown
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r poll{|?} ; r poll x3@2",
    // deleted on request
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; a start x{1|2}; r poll x3@2",
    // a request comes too late; retention may have been seen late
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r poll x3@2; a {start|seen} x2",
    // superseded
    "a compact x; a send x1@0#1; a send x2@1#{2|3}; a send x3@2#3; s poll x1@0 x2@1 x3@2; r poll x1@0; r poll x3@2",
    // from the beginning
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r assign0 x; r poll {|x1@0} x2@1",
    // into a transaction
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r txn y1@0 {|<x2@1} <x3@2; t poll y1@0",
    // aborted
    "a txn x1@0; a {txn|abort} x2@2; a txn x3@4; s poll% x1@0 x2@2 x3@4; r poll x1@0; r poll x3@4",
    // one of two partitions
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; b send y1@0; b send y2@1; s poll y1@0 y2@1; r poll x1@0 y1@0; r poll x2@1; r poll y2@1 {|x3@2}; {b send x4@3; r poll x4@3|}; s poll {x4@3|}",
    // while it is being written
    "a send x1@0; r poll x1@0; a send x2@1; a( send x3; r poll {|x2@1} x3@2; a) send x3@2",
    // another client's crash
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; s crash; r poll {|x2@1} x3@2",
];
