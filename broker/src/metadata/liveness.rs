//! The liveness of a node as the metadata records it: fenced or not, why, and since when.
//!
//! A node is fenced when its session has expired, or when it announces its stop. The effects are derived where
//! responses to clients are made: the listed brokers, offline replicas, the in-sync replicas as shown. Votes,
//! membership, acknowledgements and `min.insync.replicas` depend on what replicas themselves acknowledge and never on
//! this record. One record is written per transition of a node, from feature level 2 on. May not know: which
//! transitions are made (`fencing`).

use std::fmt;

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;

use crate::codec::{TagOrZero, record};
use crate::levels::FeatureLevel;

/// Below this level a node of an earlier release could not read the record: no node is fenced.
pub(super) const LEVEL: FeatureLevel = FeatureLevel(2);

/// Why a node is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FenceReason {
    /// It sent no heartbeat for `broker.session.timeout.ms`.
    SessionExpired,
    /// It announced its stop, after it had transferred its leaderships.
    Stopped,
    /// It is registered and has sent no heartbeat yet.
    Starting,
}

/// Whether a node is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Liveness {
    /// Why the node is fenced, so not listed to clients; `None`: it is not fenced.
    pub fenced: Option<FenceReason>,
    /// Wall clock of the last transition, by the node that detected it; 0 if there was none.
    pub since_ms: i64,
}

/// A transition to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LivenessChange {
    pub(super) node: NodeId,
    /// The registration that the transition is for: it is void if the node has registered again.
    pub(super) epoch: RaftIndex,
    pub(super) to: Liveness,
}

impl FenceReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SessionExpired, Self::Stopped, Self::Starting];

    /// The name that operators see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionExpired => "fenced",
            Self::Stopped => "stopped",
            Self::Starting => "starting",
        }
    }
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SessionExpired => "its session has expired",
            Self::Stopped => "it stops",
            Self::Starting => "it starts",
        })
    }
}

impl Liveness {
    /// The liveness of a node that is registered for the first time, in a cluster at `level`.
    pub(super) fn of_new_node(level: FeatureLevel) -> Self {
        Self { fenced: (level >= LEVEL).then_some(FenceReason::Starting), since_ms: 0 }
    }

    /// The liveness after the node is registered again. A new process does not prove that the session of the last one
    /// expired: a node that was not fenced keeps its session, one that was fenced is unfenced by its first heartbeat.
    pub(super) fn registered_again(self) -> Self {
        Self { fenced: self.fenced.map(|_| FenceReason::Starting), ..self }
    }
}

record! {
    LivenessChange { node, epoch, to }
    Liveness { fenced: TagOrZero, since_ms }
    enum FenceReason { 1 SessionExpired, 2 Stopped, 3 Starting }
}
