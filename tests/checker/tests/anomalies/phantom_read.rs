//! phantom-read: a value that no operation sent there.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::PhantomRead, &[], ROWS);
}

const ROWS: &[&str] = &[
    "r poll {x1@0|}",
    "a send x1@0; r poll x1@0 {x9@1|}",
    // another partition's value
    "a send x1@0; r poll x1@0 {y1@0|}",
    "a send x1@0; a send y2@0; r poll x1@0 y2@0; s poll y{1@1|2@0}",
    // polled in a transaction
    "a txn x1@0; b txn {<x9@2|<x1@0} y1@0; r poll x1@0 y1@0",
    "a abort x1@0; r poll {x7@0|}",
    // in doubt is no phantom
    "a send? x1; r poll x{2|1}@0",
    "a send! x1; r poll {x2@0|}",
    // an open send is none either
    "a( send x1; r poll x{2|1}@0",
    // a full read
    "a send x1@0; r read x1@0 {x2@1|} x:{2|1}",
    // a rebalance excuses nothing
    "r sub x; a send x1@0; r poll ~x x1@0 {x5@1|}",
    "a send x1@0; a crash; r poll x1@0 {x1000@1|}",
    // after retention
    "a send x1@0; r poll x1@0; a start x1; r poll {x3@1|}",
    // read_uncommitted
    "a send x1@0; r poll% x1@0 {x3@1|}",
    // a failed poll
    "a send x1@0; r poll! {x3@1|}; s poll x1@0",
    "a send x1@0; r poll? {x3@1|}; s poll x1@0",
    "a send x1@0; b abort {<x3@1|}; r poll x1@0",
    // great numbers
    "a send x18446744073709551614@0; r poll x18446744073709551614@0 {x18446744073709551613@1|}",
    // a compacted partition
    "a compact x; a send x1@0#1; r poll x1@0 {x2@1|}",
    // the wrong one of three
    "a send x1@0; b send y1@0; c send z2@0; r poll x1@0 y1@0 z{1@1|2@0}; s poll z2@0",
    // zeroes
    "a send x1@0/P0.0; r poll x1@0 {x0@1|}",
];
