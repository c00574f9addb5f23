//! Sessions of nodes, in the memory of the leader of the metadata group: which nodes have sent a heartbeat recently, by
//! the leader's monotonic clock.
//!
//! All nodes get a full session granted first:
//! - by a node that begins to lead, since it does not have the heartbeats of its predecessor;
//! - by a leader whose process was paused, since it may have missed heartbeats for that reason.
//!
//! Pure: the transitions that are due are a value. May not know: how heartbeats are sent, and how a transition is
//! recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_env::mutants::{self, Bug};
use ottla_env::rt::Instant;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;

use super::fencing;
use super::image::MetadataImage;
use super::liveness::{FenceReason, Liveness, LivenessChange};
use crate::codec::record;

/// One heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub(super) node: NodeId,
    /// The registration of the process that sends it.
    pub(super) epoch: RaftIndex,
}

record! {
    Heartbeat { node, epoch }
}

/// The session of one node.
#[derive(Debug)]
struct Session {
    epoch: RaftIndex,
    /// True if this registration has sent a heartbeat; else the session was granted.
    has_sent: bool,
    at: Instant,
}

/// The sessions of all nodes, as of one term of leadership.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    term: Option<u64>,
    checked_at: Option<Instant>,
    nodes: BTreeMap<NodeId, Session>,
}

impl Sessions {
    /// Clears all sessions, since this node does not lead: they would be stale when it leads again.
    pub(super) fn resign(&mut self) {
        *self = Self::default();
    }

    /// Records a heartbeat; one of an earlier registration is ignored.
    pub(super) fn record_heartbeat(&mut self, beat: Heartbeat, now: Instant) {
        if self.nodes.get(&beat.node).is_none_or(|session| beat.epoch >= session.epoch) {
            self.nodes.insert(beat.node, Session { epoch: beat.epoch, has_sent: true, at: now });
        }
    }

    /// The transitions that are due, for the leader of this term. `timeout` is the length of a session.
    pub(super) fn due(
        &mut self,
        term: u64,
        image: &MetadataImage,
        timeout: Duration,
        (now, now_ms): (Instant, i64),
    ) -> Vec<LivenessChange> {
        let was_paused = self.checked_at.is_some_and(|at| now.since(at) > timeout / 2);
        if self.term != Some(term) || was_paused {
            self.nodes.clear();
        }
        (self.term, self.checked_at) = (Some(term), Some(now));
        self.nodes.retain(|node, _| image.nodes.contains_key(node));
        let mut due = Vec::new();
        for record in image.nodes.values() {
            let granted = || Session { epoch: record.epoch, has_sent: false, at: now };
            let session = self.nodes.entry(record.id).or_insert_with(granted);
            if session.epoch < record.epoch {
                *session = granted();
            }
            let is_expired = now.since(session.at) >= timeout && !mutants::is_on(Bug::SessionNeverExpires);
            let fenced = match (is_expired, session.has_sent) {
                (true, _) => Some(FenceReason::SessionExpired),
                (false, true) => None,
                // This registration has sent no heartbeat yet.
                (false, false) => continue,
            };
            let to = Liveness { fenced, since_ms: now_ms };
            let change = LivenessChange { node: record.id, epoch: record.epoch, to };
            if fencing::decide(image, &change).is_some() {
                due.push(change);
            }
        }
        due
    }

    /// The time until a session may expire; the interval at most, so that the leader notices when its process was
    /// paused.
    pub(super) fn next_check(&self, timeout: Duration, interval: Duration, now: Instant) -> Duration {
        let left = |session: &Session| timeout.saturating_sub(now.since(session.at));
        let expires = self.nodes.values().map(left).filter(|left| !left.is_zero()).min();
        expires.map_or(interval, |expires| expires.min(interval))
    }
}
