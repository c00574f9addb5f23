//! G1c-process: a process was answered with what it caused only later.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::G1cProcess, &[], ROWS);
}

const ROWS: &[&str] = &[
    "b( txn y1; a poll y1@0; a send x1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0",
    // it read what it sent afterwards
    "a {poll x1@0; a send x1@0|send x1@0; a poll x1@0}",
    "a {poll x1@0; a txn x1@0|txn x1@0; a poll x1@0}",
    // no offset answered
    "a {poll x1@0; a send x1|send x1; a poll x1@0}",
    // a full read
    "a {read x1@0 x:1; a send x1@0|send x1@0; a read x1@0 x:1}",
    "a {txn <x1@0 y1@0; a txn x1@0|txn x1@0; a txn <x1@0 y1@0}; r poll y1@0",
    // over a crash
    "a {poll x1@0; a crash; a send x1@0|crash; a send x1@0; a poll x1@0}",
    // an operation between
    "a {poll x1@0; a poll; a send x1@0|poll; a send x1@0; a poll x1@0}",
    "a {poll x1@0; a assign y; a send x1@0|assign y; a send x1@0; a poll x1@0}",
    // in doubt, and read before
    "a {poll x1@0; a send? x1|send? x1; a poll x1@0}",
    // still open
    "{a poll x1@0; a( send x1|a( send x1; r poll x1@0}",
    // a batch
    "a {poll x1@0; a send x1@0 x2@1|send x1@0 x2@1; a poll x1@0}; r poll x1@0 x2@1",
    // a plain send at read_uncommitted
    "a {poll% x1@0; a send x1@0|send x1@0; a poll% x1@0}",
    // a rebalance excuses nothing
    "a sub x; a {poll ~x x1@0; a send x1@0|send x1@0; a poll ~x x1@0}",
    // transactions
    "b( txn y1; a txn <y1@0 z1@0; a txn x1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0 z1@0",
    // over a third one
    "b( txn y1; c( txn z1; a poll z1@0; a send x1@0; c) txn z1@0 <y1@0; b) txn y1@0 {<x1@0|}; r poll x1@0 y1@0 z1@0",
    "b( txn y1 y2; a poll y1@0 y2@1; a send x1@0; b) txn y1@0 y2@1 {<x1@0|}; r poll x1@0 y1@0",
    // its second send
    "b( txn y1; a poll y1@0; a send x1@0; a send x2@1; b) txn y1@0 {<x2@1|}; r poll x1@0 x2@1",
    // legal at read_uncommitted
    "b( txn y1; a poll{|%} y1@0; a send x1@0; b) txn y1@0 <x1@0; r poll x1@0 y1@0",
    "a {poll x1@0; a send x1@0/P0.0|send x1@0/P0.0; a poll x1@0}",
    // beside an older record
    "z send x9@0; a {poll x9@0 x1@1; a send x1@1|send x1@1; a poll x9@0 x1@1}",
    "z send x9@0; s poll x9@0; z start x1; a {poll x1@1; a send x1@1|send x1@1; a poll x1@1}",
];
