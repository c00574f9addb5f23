//! committed-offset-invented: fetched, and never committed.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::CommittedOffsetInvented, &[Law::CommittedOffsetFalls], ROWS);
}

const ROWS: &[&str] = &[
    "r fetch gx{0|-}",
    // 0 for unknown
    "a commit gx5; r fetch gx{0|5}",
    "a commit gx5; r fetch gx{6|5}",
    // another group's
    "a commit gx5; r fetch {hx5|gx5}",
    // another partition's
    "a commit gx5; r fetch {gy5|gx5}",
    // refused
    "a commit! gx5; r fetch gx{5|-}",
    // in doubt is not refused
    "a commit{!|?} gx5; r fetch gx5",
    // before it was committed
    "r {fetch gx5; a commit gx5|poll; a commit gx5; r fetch gx5}",
    // at the same time
    "a( commit gx5; {r|q} fetch gx{7|5}; a) commit gx5",
    // in an aborted transaction
    "a abort ^gx5; r fetch gx{5|-}",
    "a txn! ^gx5; r fetch gx{5|-}",
    "a txn{!|?} ^gx5; r fetch gx5",
    "a txn ^gx5; r fetch gx{4|5}",
    "a commit gx5; a commit gx6; r fetch gx{4|6}",
    // the next generation
    "a commit g1x5; a crash; b fetch g2x{1|5}",
    "a( txn ^gx5; r fetch gx{6|5}; a) txn ^gx5",
    // mixed up
    "a commit gx5; b commit gy6; r fetch gx{6|5}; s fetch gy6",
    // by its owner
    "a commit g1x5; a fetch g1x{6|5}",
    "a txn x1@0 ^gy5; r fetch g{x5|y5}; r poll x1@0",
    // the log start is no commit
    "a start x3; a commit gx4; r fetch gx{3|4}",
    // beyond the end
    "a send x1@0; s poll x1@0; a commit gx1; r fetch gx{2|1}",
    "a commit gx18446744073; r fetch gx{18446744072|18446744073}",
];
