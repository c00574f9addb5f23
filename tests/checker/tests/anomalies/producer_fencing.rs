//! producer-fencing: an old epoch's send after a newer epoch was served.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::ProducerFencing, &[], ROWS);
}

const ROWS: &[&str] = &[
    "a send x1@0/P1.0; b send x2@1/P{0|1}.{0|1}; r poll x1@0 x2@1",
    "a txn x1@0/P1.0; b txn x2@2/P{0|2}.0; r poll x1@0 x2@2",
    // the coordinator has a newer epoch
    "a init P1; b txn x1@0/P{0|1}.0; r poll x1@0",
    // a plain idempotent send elsewhere is not fenced by it
    "a init P1; b {txn|send} x1@0/P0.0; r poll x1@0",
    // another partition: transactions are fenced everywhere
    "a txn x1@0/P1.0; b txn y1@0/P{0|1}.0; r poll x1@0 y1@0",
    // plain sends are fenced where the epoch is known
    "a send x1@0/P1.0; b send {x2@1|y2@0}/P0.0; r poll x1@0; s poll {x2@1|y2@0}",
    // refused, as it must be
    "a send x1@0/P1.0; b send{|!} x2@1/P0.0; r poll x1@0 {x2@1|}",
    // at the same time the log decides
    "b( send x2/P0.0; a send x1@{0|1}/P1.0; b) send x2@{1|0}/P0.0; r poll x{1|2}@0 x{2|1}@1",
    // in doubt, and landed behind
    "a send x1@0/P1.0; b send? x2/P0.0; r poll x1@0 {x2@1|}",
    // still open
    "b( send x2/P0.0; a send x1@{0|1}/P1.0; r poll x{1|2}@0 x{2|1}@1",
    // a zombie
    "a send x1@0/P0.0; a crash; a send x2@1/P1.0; {b send x3@2/P0.1|b send x3@2/P1.1}; r poll x1@0 x2@1 x3@2",
    // a zombie transaction
    "a txn x1@0/P0.0; a crash; a init P1; {b|c} txn x2@2/P{0|1}.1; r poll x1@0 x2@2",
    // the one but last epoch
    "a init P1; a init P2; b txn x1@0/P{1|2}.0; r poll x1@0",
    // an epoch that was not given
    "a init{|!} P1; b txn x1@0/P0.0; r poll x1@0",
    // in doubt
    "a init{|?} P1; b txn x1@0/P0.0; r poll x1@0",
    // another producer
    "a init {P|Q}1; b txn x1@0/P0.0; r poll x1@0",
    // it had begun before
    "b( txn x1/P0.0; a init P1; {b)! txn x1; b txn x1@0/P0.0|b) txn x1@0/P0.0}; r poll x1@0",
    // aborted, as it must be
    "a txn x1@0/P2.0; b {txn|abort} x2@2/P1.0; r poll x1@0 {x2@2|}",
    // an epoch for each transaction (KIP-890)
    "a txn x1@0/P0.0; a txn x2@2/P1.0; a txn x3@4/P{0|2}.1; r poll x1@0 x2@2 x3@4",
    // after retention
    "a send x1@0/P1.0; r poll x1@0; a start x1; b send x2@1/P{0|1}.7; s poll x2@1",
    "a send x1@0/P1.0; r sub x; r poll ~x x1@0; b send x2@1/P{0|1}.1; r poll x2@1",
    "a send x1@0/P7.0; b send x2@1/P{6|8}.0; r read x1@0 x2@1 x:2",
];
