//! G1a: a value was read whose write failed or was aborted.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G1a, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a send! x1; r poll {x1@0|}",
    "a send x1@0; b send! x2; r poll x1@0 {x2@1|}",
    // a failed transaction, its second partition
    "a txn! x1 y1; r poll {y1@0|}",
    // aborted on purpose
    "a abort x1@0 y1@0; r poll {x1@0|}",
    // legal at read_uncommitted
    "a abort x1@0; r poll{|%} x1@0",
    // in doubt is not failed
    "a send{!|?} x1; r poll x1@0",
    // at the same time
    "a( send x1; r( poll; a){!|?} send x1; r) poll x1@0",
    // read before the outcome was known
    "a( txn x1; r poll x1@0; a){!|} txn x1@0",
    // the client crashed after the failure
    "a send! x1; a crash; a send x2@{1|0}; r poll {x1@0|} x2@{1|0}",
    // retried: one attempt that does not fail is enough
    "a send! x1; a send{!|} x1{|@0}; r poll x1@0",
    // read within a transaction
    "a abort x1@0; b txn {<x1@0|} y1@0; r poll y1@0",
    // the reader aborts too
    "a abort x1@0; c txn x2@2; b abort <{x1@0|x2@2}; r poll x2@2",
    // in a full read
    "a abort x1@0; b txn x2@2; r read {x1@0|} x2@2 x:4",
    // a rebalance excuses nothing
    "r sub x; a abort x1@0; b txn x2@2; r poll ~x {x1@0|} x2@2",
    // below the log start
    "a abort x1@0; b txn x2@2; a start x2; r poll {x1@0|} x2@2",
    // aborted in all partitions but one
    "a abort x1@0 y1@0 z1@0; b txn x2@2 y2@2 z2@2; r poll x2@2 y2@2 {z1@0|} z2@2",
    // the same value is fine in another partition
    "a send! x1; b send y1@0; r poll {x1@0|} y1@0",
    // what a failed poll returned counts
    "a send! x1; r poll! {x1@0|}",
    "a abort x1@0; r poll? {x1@0|}",
    // between committed ones
    "a txn x1@0; b abort x2@2; c txn x3@4; r poll x1@0 {x2@2|} x3@4",
    // the fenced transaction of an old epoch
    "a init P0; a txn! x1/P0.0; a crash; a init P1; a txn x2@2/P1.0; r poll {x1@0|} x2@2",
    // one of three
    "a send! x1 x2 x3; r poll {x2@0|}",
];
