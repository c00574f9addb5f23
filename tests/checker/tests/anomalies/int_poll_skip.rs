//! int-poll-skip: one operation passes over what is known to be there.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::IntPollSkip, &[Law::LostWrite, Law::Unseen], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0 {|x2@1} x3@2",
    // two at once
    "a send x1@0; a send x2@1; a send x3@2; a send x4@3; s poll x1@0 x2@1 x3@2 x4@3; r poll x1@0 {|x2@1 x3@2} x4@3",
    // another partition between
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; b send y1@0; r poll x1@0 y1@0 {|x2@1} x3@2",
    // two polls of one transaction
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r txn <x1@0 z9@0 <x{3@2|2@1}; t poll z9@0",
    // a failed poll
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll! x1@0 {|x2@1} x3@2",
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll? x1@0 {|x2@1} x3@2",
    // an aborted transaction
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r abort <x1@0 {|<x2@1} <x3@2",
    // rebalanced within
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r sub x; r poll {|~x} x1@0 x3@2",
    // deleted in between
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; a start x{0|2}; r poll x1@0 x3@2",
    // superseded
    "a compact x; a send x1@0#1; a send x2@1#{2|3}; a send x3@2#3; s poll x1@0 x2@1 x3@2; r poll x1@0 x3@2",
    // a full read that begins late
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r read {|x1@0} x2@1 x3@2 x:3",
    // that ends early
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r read x1@0 x2@1 {|x3@2} x:3",
    // that shows nothing
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r read {|x1@0 x2@1 x3@2} x:3",
    // markers between are no skip
    "a txn x1@0; a txn x2@2; a txn x3@4; s poll x1@0 x2@2 x3@4; r poll x1@0 {|x2@2} x3@4",
    // aborted
    "a txn x1@0; a {txn|abort} x2@2; a txn x3@4; s poll% x1@0 x2@2 x3@4; r poll x1@0 x3@4",
    // in doubt: proved only by a reader at read_committed
    "a txn x1@0; a txn? x2@2; a txn x3@4; s poll{|%} x1@0 x2@2 x3@4; r poll x1@0 x3@4",
    // in doubt, and landed
    "a send x1@0; a send? x2; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0 {|x2@1} x3@2",
    // the next client
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll x1@0; r crash; r assign x; r poll x1@0 {|x2@1} x3@2",
    // a full read from a log start
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; a start x1; r read {|x2@1} x3@2 x:3",
    // known from its acknowledgement only
    "a send x1@0; a send x2@1; a send x3@2; r poll x1@0 {|x2@1} x3@2",
    // at read_uncommitted
    "a send x1@0; a send x2@1; a send x3@2; s poll x1@0 x2@1 x3@2; r poll% x1@0 {|x2@1} x3@2",
    // the second copy of a retried send
    "a send? x1; a send x1@1; a send x2@2; s poll x1@0 x1@1 x2@2; r poll x1@0 {|x1@1} x2@2",
];
