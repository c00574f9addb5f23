//! committed-offset-falls: within one generation an owner's offset goes back.

use ottla_checker::Law;

#[test]
fn each_bad_history_is_found_and_its_twin_passes() {
    crate::table(Law::CommittedOffsetFalls, &[Law::CommittedOffsetForgotten], ROWS);
}

const ROWS: &[&str] = &[
    "a commit g1x5; a commit g1x{3|7}; r fetch gx{3|7}",
    "q( commit gx3; a commit g1x5; a fetch g1x{3|5}",
    // a new generation may begin lower
    "a commit g1x5; a commit g{1|2}x3; r fetch gx3",
    // another client
    "a commit g1x5; {a|b} commit g1x3; r fetch gx3",
    // another partition
    "a commit g1x5; a commit g1{x|y}3; r fetch g{x3|y3}",
    // another group
    "a commit g1x5; a commit {g|h}1x3; r fetch {g|h}x3",
    // refused
    "a commit g1x5; a commit{|!} g1x3; r fetch gx{3|5}",
    // in doubt
    "a commit g1x5; a commit{|?} g1x3; r fetch gx3",
    "a commit{|?} g1x5; a commit g1x3; r fetch gx3",
    // the third; again the same is fine
    "a commit g1x5; a commit g1x6; a commit g1x{5|6}; r fetch gx{5|6}",
    // in transactions
    "a txn ^g1x5; a txn ^g1x{3|6}; r fetch gx{3|6}",
    // aborted
    "a {txn|abort} ^g1x5; a txn ^g1x3; r fetch gx3",
    "a txn y1@0 ^g1x5; a commit g1x{4|5}; r fetch gx{4|5}; r poll y1@0",
    // another client after a crash
    "a commit g1x5; {|a crash;} a commit g1x3; r fetch gx3",
    // others between
    "a commit g1x5; b commit g1y9; a commit g1x{3|5}; r fetch gx{3|5}",
    // below what it had fetched
    "q( commit gx4; a fetch g1x4; a commit g1x{3|4}; r fetch gx{3|4}",
    // down to 0
    "a commit g1x1; a commit g1x{0|2}; r fetch gx{0|2}",
    "a commit g1x1000000; a commit g1x{999999|1000001}; r fetch gx{999999|1000001}",
    "a( commit g1x5; b commit g1y1; a) commit g1x5; a commit g1x{2|5}; r fetch gx{2|5}",
    // no member, no generation
    "a commit g1x5; a commit g{1|}x3; r fetch gx3",
    // a dip
    "a commit g1x3; a commit g1x5; a commit g1x{4|6}; a commit g1x6; r fetch gx6",
];
