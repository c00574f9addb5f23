//! G0-process: a circle of writes and one process's own order. Legal, and noted.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G0Process, &[], ROWS);
}

const ROWS: &[&str] = &[
    "t( txn x9 y9; c txn y1@{1|0}; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // plain sends
    "t( txn x9 y9; c send y1@{1|0}; c send x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // against a batch
    "t( send x9 y9; c send y1@{1|0}; c send x1@{0|1}; t) send x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    "t( txn x9 y9; c send y1@{1|0}; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    "t( txn x9 y9; c txn y1@{1|0}; c send x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // known from a reader only
    "t( txn x9 y9; c txn y1; c txn x1; t) txn x9 y9; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // in doubt
    "t( txn x9 y9; c txn y1@{1|0}; c txn x1@{0|1}; t)? txn x9 y9; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // still open
    "t( txn x9 y9; c txn y1@{1|0}; c txn x1@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // over a crash
    "t( txn x9 y9; c txn y1@{1|0}; c crash; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // a poll between
    "t( txn x9 y9; c txn y1@{1|0}; c poll; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    "t( txn x9 y9; c txn y1@{1|0}; c assign y; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // a third partition
    "t( txn x9 y9 z9; c txn y1@{1|0}; c txn x1@{0|1} z1@{0|1}; t) txn x9@{1|0} y9@{0|1} z9@{1|0}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1 z{1|9}@0 z{9|1}@1",
    // markers between
    "t( txn x9 y9; c txn y1@{2|0}; c txn x1@{0|2}; t) txn x9@{2|0} y9@{0|2}; r poll x{1|9}@0 x{9|1}@2 y{9|1}@0 y{1|9}@2",
    "t( txn x9 y9; c txn y1@{1|0}; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r read x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1 x:2 y:2",
    "r sub x y; t( txn x9 y9; c txn y1@{1|0}; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll ~x x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // the other way round
    "t( txn x9 y9; c txn y1@1; {c|d}( txn x1; {c) txn x1@0; t) txn x9@1 y9@0|t) txn x9@0 y9@0; d) txn x1@1}; r poll x{1|9}@0 x{9|1}@1 y9@0 y1@1",
    // an aborted one between
    "t( txn x9 y9; c txn y1@{1|0}; c abort z7; c txn x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    "t( txn x9/P0.0 y9/P0.0; c txn y1@{1|0}/Q0.0; c txn x1@{0|1}/Q0.0; t) txn x9@{1|0}/P0.0 y9@{0|1}/P0.0; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    "t compact x; t( txn x9#1 y9; c txn y1@{1|0}; c txn x1@{0|1}#2; t) txn x9@{1|0}#1 y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // with a poll
    "z send z8@0; t( txn x9 y9; c txn y1@{1|0}; c txn <z8@0 x1@{0|1}; t) txn x9@{1|0} y9@{0|1}; r poll x{1|9}@0 x{9|1}@1 y{9|1}@0 y{1|9}@1",
    // over two open ones
    "t( txn x9 y9; s( txn y8 z8; c txn z1@{1|0}; c txn x1@{0|1}; s) txn y8@1 z8@{0|1}; t) txn x9@{1|0} y9@0; r poll x{1|9}@0 x{9|1}@1 y9@0 y8@1 z{8|1}@0 z{1|8}@1",
];
