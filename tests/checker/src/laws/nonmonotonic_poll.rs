//! **nonmonotonic-poll** (external). Jepsen: "cases where a process started polling at or before a previous operation last left off". Legal:
//! subscribed, and the partition was rebalanced in between; that is noted.

use crate::facts::Facts;
use crate::laws::int_nonmonotonic_poll::{backwards, went_back};
use crate::polls;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    polls::walk(facts, |step| {
        if !step.internal(facts) && backwards(facts, &step).is_some() {
            findings.add(Law::NonmonotonicPoll, step.excused(), || went_back(facts, Law::NonmonotonicPoll, &step));
        }
    });
}
