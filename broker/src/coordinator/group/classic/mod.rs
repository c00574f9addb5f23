//! One group under Kafka's classic protocol (KIP-62, 134, 345, 394, 429, 559, 814) as a pure state machine.
//!
//!     Empty --join--> PreparingRebalance --all joined or time over--> CompletingRebalance --leader's sync--> Stable
//!       ^                    |   ^                                            |                                |
//!       +----nobody left-----+   +--- join, leave, silence, change of leader -+--------------------------------+
//!
//! [`Group::step`] takes the time and one input and returns the records to append and the requests to answer. No clock,
//! no I/O, no async. Behaviour is Kafka 4.x's; where Kafka drops a parked request (a member that joins twice, or leaves
//! while it syncs) this state machine answers it. One addition: the membership is also written when a generation
//! begins, marked as waiting for its assignment, so that a new coordinator continues the rebalance and a generation
//! never falls.
//!
//! Invariants (`tests/properties`): one leader, a member, whenever there are members past joining; the generation never
//! falls; no id is both pending and a member; every parked request is answered once.

mod join;
mod leave;
mod rebalance;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};

pub use types::{
    Answer, Assigned, Generation, Input, Join, JoinAnswer, JoinedMember, Leaving, Left, MemberRef, Now, Output,
    RequestId, Settings, State, Sync,
};

use super::error::GroupError;
use crate::replicated::group::records::{GroupValue, MemberValue};
use timers::{Timer, Timers};

/// One member.
#[derive(Debug, Clone)]
struct Member {
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    rebalance_timeout_ms: i32,
    session_timeout_ms: i32,
    /// Most wanted first.
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    /// A parked JoinGroup.
    awaiting_join: Option<RequestId>,
    /// A parked SyncGroup.
    awaiting_sync: Option<RequestId>,
    /// True until the member has its first generation; until then it cannot heartbeat.
    is_new: bool,
}

impl Member {
    fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let chosen = self.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        chosen.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}

/// How the current joining phase ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joining {
    /// The group was empty: wait `delay_ms`, and again while new members join and `remaining_ms` is not used up.
    Initial { delay_ms: i64, remaining_ms: i64 },
    /// When all members have rejoined, or their rebalance timeout is over.
    Rejoin,
}

/// One group.
#[derive(Debug, Clone)]
pub struct Group {
    settings: Settings,
    state: State,
    state_time_ms: i64,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    /// Member id of each static member, by instance id.
    static_members: BTreeMap<String, Arc<str>>,
    /// Ids that were given but not yet used to join.
    pending_join: BTreeSet<Arc<str>>,
    /// Members of this generation that have not sent SyncGroup.
    pending_sync: BTreeSet<Arc<str>>,
    joining: Joining,
    /// A member joined during the initial delay.
    new_member_added: bool,
    timers: Timers,
}

impl Group {
    /// A group without members.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Empty,
            state_time_ms: -1,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            joining: Joining::Rejoin,
            new_member_added: false,
            timers: Timers::default(),
        }
    }

    /// The group as its last record left it. Every member gets a whole session timeout to find its new coordinator.
    #[must_use]
    pub fn load(settings: Settings, now: Now, value: &GroupValue) -> (Self, Vec<Output>) {
        let mut group = Self::new(settings);
        group.state_time_ms = value.state_time_ms;
        group.generation = if mutants::is_on(Bug::GenerationLostAtFailover) { 0 } else { value.generation };
        group.protocol_type = Some(value.protocol_type.clone()).filter(|kind| !kind.is_empty());
        group.protocol = value.protocol.clone();
        for member in &value.members {
            group.load_member(now, member);
        }
        let mut outputs = Vec::new();
        if group.members.is_empty() {
            return (group, outputs);
        }
        let leader = value.leader.as_deref().filter(|id| group.members.contains_key(*id));
        group.leader = leader.map(Arc::from).or_else(|| group.members.keys().next().cloned());
        if value.awaits_assignment {
            group.state = State::CompletingRebalance;
            group.await_syncs(now);
        } else {
            group.state = State::Stable;
        }
        if group.members.len() > settings.members_max {
            group.prepare_rebalance(now, &mut outputs);
        }
        (group, outputs)
    }

    fn load_member(&mut self, now: Now, value: &MemberValue) {
        let id: Arc<str> = Arc::from(value.member_id.as_str());
        if let Some(instance_id) = &value.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        let protocols = self.protocol.iter().map(|name| (name.clone(), value.subscription.clone())).collect();
        let member = Member {
            instance_id: value.instance_id.clone(),
            client_id: value.client_id.clone(),
            client_host: value.client_host.clone(),
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            session_timeout_ms: value.session_timeout_ms,
            protocols,
            assignment: value.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        };
        self.members.insert(id.clone(), member);
        self.restart_session(now, &id);
    }

    /// Processes one input; returns the records to append and the requests to answer, in this order.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Join(request, join) => self.join(now, request, join, &mut out),
            Input::Sync(request, sync) => self.sync(now, request, sync, &mut out),
            Input::Heartbeat(request, member) => {
                let outcome = self.heartbeat(now, &member);
                out.push(Output::Answer(request, Answer::Heartbeat(outcome)));
            }
            Input::Leave(request, members) => self.leave(now, request, members, &mut out),
            Input::Tick => self.tick(now, &mut out),
        }
        out
    }

    /// When [`Input::Tick`] is next needed.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.timers.next_ms()
    }

    /// The group is coordinated elsewhere: answers all parked requests. The group is dead afterwards.
    pub fn unload(&mut self, error: GroupError) -> Vec<Output> {
        let mut out = Vec::new();
        for (id, member) in &mut self.members {
            if let Some(request) = member.awaiting_join.take() {
                let answer = JoinAnswer { member_id: id.to_string(), outcome: Err(error) };
                out.push(Output::Answer(request, Answer::Join(answer)));
            }
            if let Some(request) = member.awaiting_sync.take() {
                out.push(Output::Answer(request, Answer::Sync(Err(error))));
            }
        }
        self.timers.clear();
        self.state = State::Dead;
        out
    }

    /// Checks whether this member, or a consumer without membership, may commit an offset now; keeps the member's
    /// session alive.
    pub fn validate_commit(&mut self, now: Now, who: &MemberRef, is_transactional: bool) -> Result<(), GroupError> {
        let no_member = who.generation < 0 && who.member_id.is_empty() && who.instance_id.is_none();
        match self.state {
            State::Dead => return Err(GroupError::CoordinatorNotAvailable),
            State::Empty if who.generation < 0 => return Ok(()),
            // The first versions of TxnOffsetCommit name no member.
            _ if no_member && is_transactional => return Ok(()),
            _ if no_member => return Err(GroupError::UnknownMemberId),
            _ => {}
        }
        let id = self.check_member(&who.member_id, who.instance_id.as_deref())?;
        if who.generation != self.generation && !mutants::is_on(Bug::ZombieCommits) {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance && !is_transactional {
            // The member has the new generation but no assignment yet: what it read belongs to the old one.
            return Err(GroupError::RebalanceInProgress);
        }
        self.restart_session(now, &id);
        Ok(())
    }

    fn heartbeat(&mut self, now: Now, who: &MemberRef) -> Result<(), GroupError> {
        if self.state == State::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let id = self.check_member(&who.member_id, who.instance_id.as_deref())?;
        if who.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.restart_session(now, &id);
        match self.state {
            State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
            State::Empty | State::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    /// The id of the member, unless it is unknown or another process holds its instance id.
    fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<Arc<str>, GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(holder) if **holder != *member_id && !mutants::is_on(Bug::ReplacedMemberUnknown) => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        self.members.get_key_value(member_id).map(|(id, _)| id.clone()).ok_or(GroupError::UnknownMemberId)
    }

    fn restart_session(&mut self, now: Now, id: &Arc<str>) {
        if let Some(member) = self.members.get(id) {
            let at = now.monotonic_ms.saturating_add(i64::from(member.session_timeout_ms));
            self.timers.set(Timer::Session(id.clone()), at);
        }
    }

    fn enter(&mut self, now: Now, state: State) {
        self.state = state;
        self.state_time_ms = now.wall_ms;
    }

    /// The group's state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Number of its last generation.
    #[must_use]
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The type its members share.
    #[must_use]
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// True if the group holds nothing beyond its record: no members, no pending ids, no deadline.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state == State::Empty && self.members.is_empty() && self.pending_join.is_empty()
    }

    /// The membership as it should be recorded, and as it is described.
    #[must_use]
    pub fn to_value(&self) -> GroupValue {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().map(|(id, member)| MemberValue {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(str::to_string),
            state_time_ms: self.state_time_ms,
            members: members.collect(),
            awaits_assignment: self.state == State::CompletingRebalance,
        }
    }
}
