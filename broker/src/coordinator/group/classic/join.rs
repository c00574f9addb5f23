//! JoinGroup: which members are admitted, and what changes when a member joins again.

use std::sync::Arc;

use bytes::Bytes;
use ottla_env::mutants::{self, Bug};

use super::timers::Timer;
use super::{Answer, Generation, Group, Join, JoinAnswer, JoinedMember, Member, Now, Output, RequestId, State};
use crate::coordinator::group::error::GroupError;

/// Ids given to clients that have not joined with them yet; a further request is answered with a retriable error (I10).
const PENDING_MAX: usize = 10_000;

fn refuse(out: &mut Vec<Output>, request: RequestId, member_id: &str, error: GroupError) {
    let answer = JoinAnswer { member_id: member_id.to_string(), outcome: Err(error) };
    out.push(Output::Answer(request, Answer::Join(answer)));
}

impl Group {
    pub(super) fn join(&mut self, now: Now, request: RequestId, mut join: Join, out: &mut Vec<Output>) {
        keep_first_of_each_name(&mut join.protocols);
        if self.state == State::Dead {
            return refuse(out, request, &join.member_id, GroupError::CoordinatorNotAvailable);
        }
        if !self.has_room_for(&join.member_id) {
            let id: Arc<str> = Arc::from(join.member_id.as_str());
            self.remove_member(&id, out);
            return refuse(out, request, "", GroupError::GroupMaxSizeReached);
        }
        if !self.supports_protocols(&join) {
            return refuse(out, request, &join.member_id, GroupError::InconsistentGroupProtocol);
        }
        if join.member_id.is_empty() {
            self.join_new(now, request, join, out)
        } else {
            self.join_known(now, request, join, out)
        }
    }

    /// During joining the parked joins count: the last to rejoin a group that shrank are refused.
    fn has_room_for(&self, member_id: &str) -> bool {
        let max = self.settings.members_max;
        match self.state {
            State::Empty | State::Dead => true,
            State::PreparingRebalance => {
                let waits = self.members.get(member_id).is_some_and(|member| member.awaiting_join.is_some());
                waits || self.count_awaiting_join() < max
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member_id) || self.members.len() < max
            }
        }
    }

    fn supports_protocols(&self, join: &Join) -> bool {
        if self.state == State::Empty {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        let same_type = self.protocol_type.as_deref() == Some(join.protocol_type.as_str());
        same_type && join.protocols.iter().any(|(name, _)| self.members.values().all(|member| member.supports(name)))
    }

    fn join_new(&mut self, now: Now, request: RequestId, join: Join, out: &mut Vec<Output>) {
        let holder = join.instance_id.as_ref().and_then(|instance| self.static_members.get(instance)).cloned();
        match holder {
            Some(old_id) => self.replace_static(now, request, &old_id, join, out),
            None if join.instance_id.is_none() && join.id_required => {
                if self.pending_join.len() >= PENDING_MAX {
                    return refuse(out, request, "", GroupError::CoordinatorNotAvailable);
                }
                let id: Arc<str> = Arc::from(join.new_member_id.as_str());
                let at = now.monotonic_ms.saturating_add(i64::from(join.session_timeout_ms));
                self.timers.set(Timer::Session(id.clone()), at);
                self.pending_join.insert(id);
                refuse(out, request, &join.new_member_id, GroupError::MemberIdRequired);
            }
            None => {
                let id: Arc<str> = Arc::from(join.new_member_id.as_str());
                self.add_member(now, request, id, join, out);
            }
        }
    }

    fn join_known(&mut self, now: Now, request: RequestId, join: Join, out: &mut Vec<Output>) {
        if self.pending_join.contains(join.member_id.as_str()) {
            // Only dynamic members are ever pending.
            if join.instance_id.is_some() {
                return refuse(out, request, &join.member_id, GroupError::UnknownMemberId);
            }
            let id: Arc<str> = Arc::from(join.member_id.as_str());
            return self.add_member(now, request, id, join, out);
        }
        let id = match self.check_member(&join.member_id, join.instance_id.as_deref()) {
            Ok(id) => id,
            Err(error) => return refuse(out, request, &join.member_id, error),
        };
        let unchanged = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        let is_leader = self.leader.as_ref() == Some(&id);
        match self.state {
            State::PreparingRebalance => self.rejoin(now, request, &id, join, out),
            // The client may have missed the response: it is answered again.
            State::CompletingRebalance if unchanged => self.tell_again(now, request, &id, is_leader, out),
            // A leader that joins again wants a rebalance, say because a topic grew.
            State::Stable if unchanged && !is_leader => self.tell_again(now, request, &id, false, out),
            State::CompletingRebalance | State::Stable => self.rejoin(now, request, &id, join, out),
            State::Empty | State::Dead => refuse(out, request, &join.member_id, GroupError::UnknownMemberId),
        }
    }

    /// Answers a member that joins a generation again that it is in. Its session begins anew, which Kafka leaves out: the record of a
    /// generation may take longer than a session to be committed, and who is told that it is a member has a session's time to say more.
    fn tell_again(&mut self, now: Now, request: RequestId, id: &Arc<str>, is_leader: bool, out: &mut Vec<Output>) {
        self.restart_session(now, id);
        self.tell_generation(request, id, is_leader, false, out);
    }

    fn add_member(&mut self, now: Now, request: RequestId, id: Arc<str>, join: Join, out: &mut Vec<Output>) {
        tracing::info!(member = ?id, state = self.state.name(), reason = join.reason.as_deref().unwrap_or("not given"), "member joins");
        if let Some(instance_id) = &join.instance_id {
            self.static_members.insert(instance_id.clone(), id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        if self.state == State::PreparingRebalance && self.is_initial() {
            self.new_member_added = true;
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending_join.remove(&id);
        let member = Member {
            instance_id: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.rebalance_timeout_ms.max(0),
            session_timeout_ms: join.session_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(request),
            awaiting_sync: None,
            is_new: true,
        };
        self.members.insert(id.clone(), member);
        // A new member has no id and sends no heartbeat while its join is parked; if its client goes away, it may join
        // again and again.
        let at = now.monotonic_ms.saturating_add(self.settings.new_member_join_timeout_ms);
        self.timers.set(Timer::Session(id), at);
        self.rebalance_or_complete(now, out);
    }

    fn rejoin(&mut self, now: Now, request: RequestId, id: &Arc<str>, join: Join, out: &mut Vec<Output>) {
        tracing::info!(member = ?id, state = self.state.name(), reason = join.reason.as_deref().unwrap_or("not given"), "member rejoins");
        self.update_member(request, id, join, out);
        self.rebalance_or_complete(now, out);
    }

    /// Updates the member from its join, and parks the join; one that was parked before is answered.
    fn update_member(&mut self, request: RequestId, id: &Arc<str>, join: Join, out: &mut Vec<Output>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = join.protocols;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms.max(0);
        member.session_timeout_ms = join.session_timeout_ms;
        if let Some(earlier) = member.awaiting_join.replace(request) {
            refuse(out, earlier, id, GroupError::RebalanceInProgress);
        }
    }

    /// A static member's process was restarted: the new one takes the old one's place and assignment (KIP-345).
    fn replace_static(&mut self, now: Now, request: RequestId, old_id: &Arc<str>, join: Join, out: &mut Vec<Output>) {
        let leader_before = self.leader.clone();
        let new_id: Arc<str> = Arc::from(join.new_member_id.as_str());
        let Some(mut member) = self.members.remove(old_id) else {
            return refuse(out, request, "", GroupError::Internal);
        };
        tracing::info!(old = ?old_id, new = ?new_id, instance = ?join.instance_id, "static member replaced");
        if let Some(parked) = member.awaiting_join.take() {
            refuse(out, parked, old_id, GroupError::FencedInstanceId);
        }
        if let Some(parked) = member.awaiting_sync.take() {
            out.push(Output::Answer(parked, Answer::Sync(Err(GroupError::FencedInstanceId))));
        }
        member.client_id.clone_from(&join.client_id);
        member.client_host.clone_from(&join.client_host);
        self.timers.cancel(&Timer::Session(old_id.clone()));
        self.pending_sync.remove(old_id);
        if let Some(instance_id) = &join.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if leader_before.as_ref() == Some(old_id) {
            self.leader = Some(new_id.clone());
        }
        self.members.insert(new_id.clone(), member);
        let skips_assignment = join.skips_assignment;
        self.update_member(request, &new_id, join, out);
        self.restart_session(now, &new_id);
        match self.state {
            State::Stable
                if self.select_protocol() == self.protocol && !mutants::is_on(Bug::StaticRejoinRebalances) =>
            {
                self.keep_generation(request, &new_id, leader_before, skips_assignment, out);
            }
            State::Stable => self.rebalance_or_complete(now, out),
            // The leader may be assigning to the old id at this moment.
            State::CompletingRebalance => self.prepare_rebalance(now, out),
            State::PreparingRebalance => self.maybe_complete_join(now, out),
            State::Empty | State::Dead => {}
        }
    }

    /// Only the id changes: no rebalance. Before v9 a leader that came back must not learn that it leads, or it would
    /// send an assignment that no member syncs.
    fn keep_generation(
        &mut self,
        request: RequestId,
        id: &Arc<str>,
        leader_before: Option<Arc<str>>,
        skips_assignment: bool,
        out: &mut Vec<Output>,
    ) {
        if let Some(member) = self.members.get_mut(id) {
            member.awaiting_join = None;
        }
        out.push(Output::Record(self.to_value()));
        if skips_assignment {
            let is_leader = self.leader.as_ref() == Some(id);
            return self.tell_generation(request, id, is_leader, is_leader, out);
        }
        let leader = leader_before.as_deref().unwrap_or_default().to_string();
        let generation = Generation { leader, ..self.generation_for(false, false) };
        let answer = JoinAnswer { member_id: id.to_string(), outcome: Ok(generation) };
        out.push(Output::Answer(request, Answer::Join(answer)));
    }

    pub(super) fn tell_generation(
        &self,
        request: RequestId,
        id: &str,
        is_leader: bool,
        skip_assignment: bool,
        out: &mut Vec<Output>,
    ) {
        let outcome = Ok(self.generation_for(is_leader, skip_assignment));
        out.push(Output::Answer(request, Answer::Join(JoinAnswer { member_id: id.to_string(), outcome })));
    }

    fn generation_for(&self, is_leader: bool, skip_assignment: bool) -> Generation {
        let protocol = self.protocol.as_deref();
        let members = self.members.iter().filter(|_| is_leader).map(|(id, member)| JoinedMember {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        Generation {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_string(),
            skip_assignment,
            members: members.collect(),
        }
    }
}

/// If a client names a protocol twice, the first counts.
fn keep_first_of_each_name(protocols: &mut Vec<(String, Bytes)>) {
    let mut seen = std::collections::BTreeSet::new();
    protocols.retain(|(name, _)| seen.insert(name.clone()));
}
