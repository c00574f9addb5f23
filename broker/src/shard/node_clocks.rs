//! The clocks of a cluster's nodes compared with this node's: each node sends its own with its leadership updates
//! (`leadership::dissemination`).
//!
//! A majority of all nodes is needed; with too few known clocks the outcome is unknown. A cluster of one compares its
//! clock with its own past. May not know: shards, what follows from the outcome.

use std::sync::Arc;

use ottla_env::rt;
use parking_lot::Mutex;

use super::clock::{Agreement, JUMP_MS_MIN, LoneClock};
use super::leader_clock::ClockWitness;
use super::leadership::dissemination::RemoteLeaders;
use super::metadata_view::MetadataView;

/// The clocks of this node and of those from which it has updates.
pub(super) struct NodeClocks {
    remote_leaders: Arc<RemoteLeaders>,
    metadata: Arc<dyn MetadataView>,
    lone: Mutex<LoneClock>,
    /// The time of the last entry in any shard of this node.
    last_entry_ms: Box<dyn Fn() -> i64 + Send + Sync>,
}

impl NodeClocks {
    pub(super) fn new(
        remote_leaders: Arc<RemoteLeaders>,
        metadata: Arc<dyn MetadataView>,
        last_entry_ms: Box<dyn Fn() -> i64 + Send + Sync>,
    ) -> Self {
        Self { remote_leaders, metadata, lone: Mutex::default(), last_entry_ms }
    }

    fn judge_alone(&self, wall_ms: i64, now: rt::Instant, applied_clock_ms: i64) -> Agreement {
        // A shard without entries has no past; another shard may have one.
        let has_no_past = self.lone.lock().has_no_past();
        let known_ms = if has_no_past { (self.last_entry_ms)().max(applied_clock_ms) } else { applied_clock_ms };
        self.lone.lock().judge(wall_ms, now, known_ms)
    }
}

impl ClockWitness for NodeClocks {
    fn judge(&self, wall_ms: i64, now: rt::Instant, applied_clock_ms: i64) -> Agreement {
        match self.metadata.image().expected_nodes() {
            1 => self.judge_alone(wall_ms, now, applied_clock_ms),
            nodes => among(wall_ms, self.remote_leaders.clocks_ms(), nodes),
        }
    }

    fn believe(&self, wall_ms: i64, now: rt::Instant) {
        let _ = self.lone.lock().believe(wall_ms, now);
    }
}

/// Whether `others`, of a cluster of `nodes` with this one, agree with this node's clock.
fn among(wall_ms: i64, mut others: Vec<i64>, nodes: usize) -> Agreement {
    let near = |time_ms: i64, others: &[i64]| {
        others.iter().filter(|other| other.abs_diff(time_ms) <= JUMP_MS_MIN.unsigned_abs()).count()
    };
    let agree = near(wall_ms, &others);
    // A node whose image has no nodes yet, itself included, may be one of many.
    if nodes > 0 && (1 + agree) * 2 > nodes {
        return Agreement::Agrees;
    }
    // Even if all unknown clocks agreed, they would be too few.
    if nodes == 0 || (others.len() - agree) * 2 < nodes {
        return Agreement::Unknown;
    }
    others.sort_unstable();
    let middle = others.get(others.len() / 2).copied();
    Agreement::Disagrees { most_say_ms: middle.filter(|middle_ms| near(*middle_ms, &others) * 2 > nodes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_all_nodes_counts() {
        let (now, far, other) = (1_000_000_000, 9_000_000_000, -9_000_000_000);
        let of = |others: &[i64], nodes| among(now, others.to_vec(), nodes);
        let says = |most_say_ms| Agreement::Disagrees { most_say_ms };
        assert_eq!(of(&[], 0), Agreement::Unknown, "nothing is known of the cluster yet");
        assert_eq!(of(&[now + JUMP_MS_MIN], 3), Agreement::Agrees);
        assert_eq!(of(&[now + JUMP_MS_MIN + 1], 3), Agreement::Unknown, "the third may agree");
        assert_eq!(of(&[], 3), Agreement::Unknown);
        assert_eq!(of(&[far, far + 5], 3), says(Some(far + 5)));
        assert_eq!(of(&[far, other], 3), says(None), "no two agree");
        assert_eq!(of(&[far], 2), says(None), "one against one");
        assert_eq!(of(&[now], 2), Agreement::Agrees);
        assert_eq!(of(&[now, far, other], 5), Agreement::Unknown);
        assert_eq!(of(&[now, now, far, other], 5), Agreement::Agrees);
        assert_eq!(of(&[far, far, far, now], 5), says(Some(far)));
    }
}
