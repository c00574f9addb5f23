//! Sessions of nodes, in the memory of the node that leads the metadata group: who has sent a heartbeat lately, by the leader's
//! monotonic clock.
//!
//! A node that begins to lead grants all nodes a full session first, since it does not know what its predecessor heard; so does
//! one that stood still itself, since it may have heard nothing for that reason. Pure: what is due is a value. May not know: how
//! heartbeats travel, and how a transition is recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_protocol::ids::NodeId;
use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::rt::Instant;
use ottla_storage::ids::RaftIndex;

use super::fencing;
use super::image::MetadataImage;
use super::liveness::{FenceReason, Liveness, LivenessChange};
use crate::codec::{CodecError, Reader, Writer};

/// One heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heartbeat {
    pub(super) node: NodeId,
    /// The registration of the process that sends it.
    pub(super) epoch: RaftIndex,
}

impl Heartbeat {
    pub(super) fn write(self, w: &mut Writer) {
        w.i32(self.node.0).u64(self.epoch.0);
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        Ok(Self { node: NodeId(r.i32("node id")?), epoch: RaftIndex(r.u64("epoch")?) })
    }
}

/// What the leader knows of one node.
#[derive(Debug)]
struct Session {
    epoch: RaftIndex,
    /// This registration has sent a heartbeat; else the session was granted.
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
    /// This node does not lead: what it knows is worth nothing when it leads again.
    pub(super) fn resign(&mut self) {
        *self = Self::default();
    }

    /// Takes a heartbeat; one that was overtaken by a new registration says nothing.
    pub(super) fn record_heartbeat(&mut self, beat: Heartbeat, now: Instant) {
        if self.nodes.get(&beat.node).is_none_or(|session| beat.epoch >= session.epoch) {
            self.nodes.insert(beat.node, Session { epoch: beat.epoch, has_sent: true, at: now });
        }
    }

    /// Which transitions are due, by the leader of this term. `timeout` is the length of a session.
    pub(super) fn due(
        &mut self,
        term: u64,
        image: &MetadataImage,
        timeout: Duration,
        (now, now_ms): (Instant, i64),
    ) -> Vec<LivenessChange> {
        let stood_still = self.checked_at.is_some_and(|at| now.since(at) > timeout / 2);
        if self.term != Some(term) || stood_still {
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
                // Nothing was heard of this process yet.
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

    /// How long it is until a session may expire; the interval at most, so that the leader notices when it stands still.
    pub(super) fn next_check(&self, timeout: Duration, interval: Duration, now: Instant) -> Duration {
        let left = |session: &Session| timeout.saturating_sub(now.since(session.at));
        let expires = self.nodes.values().map(left).filter(|left| !left.is_zero()).min();
        expires.map_or(interval, |expires| expires.min(interval))
    }
}
