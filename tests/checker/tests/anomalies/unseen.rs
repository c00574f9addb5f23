//! unseen: acknowledged, and never read until the end.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::Unseen, &[Law::LostWrite], ROWS);
}

const ROWS: &[&str] = &[
    "z send z1@0; t poll z1@0; a send x1@0; r poll {|x1@0}",
    // the tail
    "a send x1@0; a send x2@1; r poll x1@0 {|x2@1}",
    // the other partition
    "a send x1@0; a send y1@0; r poll x1@0 {|y1@0}",
    // acknowledged without an offset
    "a send x1; r poll {|x1@0}",
    // in doubt
    "a send{|?} x1; r poll",
    // failed
    "a send{|!} x1; r poll",
    "a txn x1@0 y1@0; r poll x1@0 {|y1@0}",
    "a {txn|abort} x1@0; r poll",
    // a crash excuses nothing
    "a send x1@0; a crash; r poll {|x1@0}",
    // a failed poll has seen nothing
    "a send x1@0; r poll{!|} x1@0",
    "a send x1@0; r poll{?|} x1@0",
    "a send x1@0; r {abort|txn} <x1@0",
    // deleted on request
    "a send x1@0; a start x{0|1}; r poll",
    // deleted by retention
    "a send x1@0; a send x2@1; a seen x{1|2}; r poll",
    // superseded
    "a compact x; a send x1@0#1; a send x2@1#{2|1}; r poll x2@1",
    // a tombstone may be gone
    "a compact x; a send x1@0#1{|-}; r poll",
    // a full read that ends too early
    "a send x1@0; a send x2@1; r read x1@0 {|x2@1} x:{1|2}",
    // a partition that no consumer got
    "r sub x y; a send x1@0; a send y1@0; r poll ~y x1@0 {|y1@0}",
    // retried
    "a send? x1; a send{|?} x1; r poll",
    // sent after the last poll
    "a send x1@0; r poll x1@0; a send x2@1; {|r poll x2@1}",
    // still open at the end
    "a( send x1; {a) send x1@0|}; r poll",
    // the last of a batch
    "a send x1@0 x2@1; r poll x1@0 {|x2@1}",
];
