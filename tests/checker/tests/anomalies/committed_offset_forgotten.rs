//! committed-offset-forgotten: an acknowledged commit is gone.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::CommittedOffsetForgotten, &[Law::CommittedOffsetFalls], ROWS);
}

const ROWS: &[&str] = &[
    "a commit gx5; r fetch gx{-|5}",
    // the older one again
    "a commit gx3; a commit gx5; r fetch gx{3|5}",
    // in doubt
    "a commit gx3; a commit{|?} gx5; r fetch gx3",
    // refused
    "a commit gx3; a commit{|!} gx5; r fetch gx3",
    // at the same time
    "a commit gx3; a( commit gx5; {a) commit gx5; r fetch gx3|r fetch gx3; a) commit gx5}",
    // either order
    "a( commit gx3; b commit gx5; {a) commit gx3; c commit gx7|a) commit gx3}; r fetch gx3",
    // forgotten later
    "a commit gx3; b commit gx5; r fetch gx5; s fetch gx{3|5}",
    // seen once, so it is there
    "a commit gx3; a( commit gx5; r fetch gx5; s fetch gx{3|5}; a) commit gx5",
    // in doubt, and seen
    "a commit gx3; a commit? gx5; r fetch gx5; s fetch gx{3|5}",
    "a( commit gx5; r fetch gx5; s fetch gx{-|5}; a) commit gx5",
    // in a transaction
    "a txn ^gx5; r fetch gx{-|5}",
    // aborted
    "a commit gx3; a {txn|abort} ^gx5; r fetch gx3",
    "a commit gx3; a txn{|?} ^gx5; r fetch gx3",
    // the next generation must find it
    "a commit g1x5; a crash; b fetch g2x{-|5}",
    // the second partition
    "a commit gx5; a commit gy6; r fetch gx5; r fetch gy{-|6}",
    // the second group
    "a commit gx5; b commit hx6; r fetch gx5; r fetch hx{-|6}",
    // lower is newer here
    "a commit gx3; a commit gx5; a commit gx3; r fetch gx{5|3}",
    // committed anew
    "a commit gx3; a commit gx5; {|a commit gx3;} r fetch gx3",
    // perhaps committed anew
    "a commit gx3; a commit gx5; {|q( commit gx3;} r fetch gx3",
    "a commit gx1; a commit gx2; a commit gx3; r fetch gx3; r fetch gx{1|3}",
    // the fetch began after it
    "a commit gx5; r( fetch gx-; r) fetch gx{-|5}",
    // the fetch began before it
    "{a commit gx5; r( fetch gx-|r( fetch gx-; a commit gx5}; r) fetch gx-; s fetch gx5",
];
