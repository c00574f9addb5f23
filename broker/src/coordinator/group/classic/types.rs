//! The inputs and outputs of the classic group's state machine. Values only.

use bytes::Bytes;

use crate::coordinator::group::error::GroupError;
use crate::replicated::group::records::GroupValue;

/// Identifies a request so that its answer reaches it; given by the coordinator, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The two clocks of a step: deadlines use the monotonic one, records the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of the monotonic clock.
    pub monotonic_ms: i64,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
}

/// A group's limits and delays, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an empty group waits for more members before its first generation.
    pub initial_rebalance_delay_ms: i64,
    /// How long a new member, which has no id yet and so cannot heartbeat, may wait for its join.
    pub new_member_join_timeout_ms: i64,
    /// The most members.
    pub members_max: usize,
}

/// A group's state; Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waiting for members to join the next generation.
    PreparingRebalance,
    /// The generation is set; waiting for its leader's assignment.
    CompletingRebalance,
    /// Every member has its assignment or can ask for it.
    Stable,
    /// Gone: removed, or coordinated elsewhere.
    Dead,
}

impl State {
    /// Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// A JoinGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Empty for a member that has none yet.
    pub member_id: String,
    /// The id to give it if it has none; fresh and random.
    pub new_member_id: String,
    /// Static members: the user's id.
    pub instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// The host from which it connects.
    pub client_host: String,
    /// `consumer`, `connect`, `sr` ...
    pub protocol_type: String,
    /// The protocols that it supports, in order of preference, each with its metadata.
    pub protocols: Vec<(String, Bytes)>,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to rejoin.
    pub rebalance_timeout_ms: i32,
    /// v4+: a dynamic member must come back with its id (KIP-394).
    pub id_required: bool,
    /// v9+: the client understands `skip_assignment` (KIP-814).
    pub skips_assignment: bool,
    /// v8+: why it joins.
    pub reason: Option<String>,
}

/// A SyncGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// The member.
    pub member_id: String,
    /// Static members: the user's id.
    pub instance_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// v5+: the protocol type that it has.
    pub protocol_type: Option<String>,
    /// v5+: the protocol that it has.
    pub protocol: Option<String>,
    /// From the leader: member id and assignment.
    pub assignments: Vec<(String, Bytes)>,
}

/// The member that sends a Heartbeat, or commits an offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRef {
    /// The member id; empty for a consumer without membership.
    pub member_id: String,
    /// Static members: the user's id.
    pub instance_id: Option<String>,
    /// The generation that it has; below 0 for none.
    pub generation: i32,
}

/// One member of a LeaveGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The member; may be empty if the instance id is given.
    pub member_id: String,
    /// Static members: the user's id.
    pub instance_id: Option<String>,
    /// v5+: why it leaves.
    pub reason: Option<String>,
}

/// An input of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Join the next generation.
    Join(RequestId, Join),
    /// Request the assignment; from the leader: submit it.
    Sync(RequestId, Sync),
    /// Heartbeat of a member.
    Heartbeat(RequestId, MemberRef),
    /// Members leave.
    Leave(RequestId, Vec<Leaving>),
    /// Time has passed.
    Tick,
}

/// One member as the leader of a generation sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member.
    pub member_id: String,
    /// Static members: the user's id.
    pub instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A generation as a member that joined it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub generation: i32,
    /// The type.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// Its leader.
    pub leader: String,
    /// v9+: the leader need not assign (KIP-814).
    pub skip_assignment: bool,
    /// All members, for the leader alone.
    pub members: Vec<JoinedMember>,
}

/// Answer to a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    /// The member's id, new or known; empty where the client should forget it.
    pub member_id: String,
    /// The generation, or the error.
    pub outcome: Result<Generation, GroupError>,
}

/// A member's assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The type.
    pub protocol_type: Option<String>,
    /// The protocol that was chosen.
    pub protocol: Option<String>,
    /// The assignment from the leader.
    pub assignment: Bytes,
}

/// Outcome for one member of a LeaveGroup request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// As in the request.
    pub member_id: String,
    /// As in the request.
    pub instance_id: Option<String>,
    /// Why it could not leave.
    pub outcome: Result<(), GroupError>,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a join.
    Join(JoinAnswer),
    /// To a sync.
    Sync(Result<Assigned, GroupError>),
    /// To a heartbeat.
    Heartbeat(Result<(), GroupError>),
    /// To a leave.
    Leave(Vec<Left>),
}

/// The outputs of a step, in this order. Answers that follow a record wait until it is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Append this membership.
    Record(GroupValue),
    /// Answer this request.
    Answer(RequestId, Answer),
}
