//! zombie-commit: an older generation commits after a newer one was served.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::ZombieCommit, &[Law::CommittedOffsetFalls, Law::CommittedOffsetForgotten], ROWS);
}

const ROWS: &[&str] = &[
    "a commit g2x5; b commit g{1|2}x6; r fetch gx6",
    // the newer one had only fetched
    "b fetch g2x-; a commit g{1|2}x5; r fetch gx5",
    // refused, as it must be
    "a commit g2x5; b commit{|!} g1x6; r fetch gx{6|5}",
    // in doubt
    "a commit g2x5; b commit{|?} g1x6; r fetch gx{6|5}",
    // at the same time
    "a( commit g2x5; b( commit g1x6; {a) commit g2x5; b)! commit g1x6; b commit g1x6|a) commit g2x5; b) commit g1x6}; r fetch gx6",
    // another group
    "a commit g2x5; b commit {g|h}1x6; r fetch {g|h}x6",
    // the same offset
    "a commit g2x5; b commit g{1|2}x5; r fetch gx5",
    // another partition
    "a commit g2x5; b commit g{1|2}y6; r fetch gx5; s fetch gy6",
    // no member
    "a commit g2x5; b commit g{1|}x6; r fetch gx6",
    // in transactions
    "a txn ^g2x5; b txn ^g{1|3}x6; r fetch gx6",
    "a commit g2x5; b {txn|abort} ^g1x6; r fetch gx{6|5}",
    // the newer one in doubt
    "a commit{|?} g2x5; b commit g1x6; r fetch gx6",
    // the newer one refused
    "a commit{|!} g2x5; b commit g1x6; r fetch gx6",
    "a commit g1x5; a crash; b commit g2x6; {c commit g1x7|c commit g2x7}; r fetch gx7",
    "a commit g3x5; b commit g{2|4}x6; r fetch gx6",
    "a commit g1x1; b commit g2x2; c commit g{1|2}x3; b commit g2x4; r fetch gx4",
    "a commit g10x5; b commit g{9|10}x6; r fetch gx6",
    // begun before, ended after
    "b( commit g1x6; a commit g2x5; {b)? commit g1x6; b commit g1x6|b) commit g1x6}; r fetch gx6",
    "a txn y1@0 ^g2x5; b commit g{1|2}x6; r fetch gx6; r poll y1@0",
    "a fetch g{5|1}x-; b commit g1x1; b commit g1x2; r fetch gx2",
    // generation 0
    "a commit g2x5; b commit g{0|2}x6; r fetch gx6",
];
