//! **poll-skip** (external). Jepsen: "two successive operations by a single process skipped over one or more values for some key". Positions are
//! kept as `polls` says. Legal: subscribed, and the partition was rebalanced in between; that is noted.
//!
//! Stricter than Jepsen: after an assign from the beginning the first record must be the log's first.

use crate::facts::Facts;
use crate::laws::int_poll_skip::skipped;
use crate::polls;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    polls::walk(facts, |step| {
        if step.internal(facts) {
            return;
        }
        let (from, to) = step.between(facts);
        if facts.must_see(from, to) > 0 {
            findings.add(Law::PollSkip, step.excused(), || skipped(facts, Law::PollSkip, &step));
        }
    });
}
