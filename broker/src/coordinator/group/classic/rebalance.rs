//! The rebalance: when joining ends, which member leads, which protocol is chosen, which members are removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::timers::Timer;
use super::{Answer, Group, JoinAnswer, Joining, Now, Output, State};
use crate::coordinator::group::error::GroupError;

impl Group {
    pub(super) fn is_initial(&self) -> bool {
        matches!(self.joining, Joining::Initial { .. })
    }

    pub(super) fn count_awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    fn all_have_joined(&self) -> bool {
        self.pending_join.is_empty() && self.members.values().all(|member| member.awaiting_join.is_some())
    }

    fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    pub(super) fn rebalance_or_complete(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.state {
            State::Empty | State::CompletingRebalance | State::Stable => self.prepare_rebalance(now, out),
            State::PreparingRebalance => self.maybe_complete_join(now, out),
            State::Dead => {}
        }
    }

    /// Ends joining if all members have joined; an initial delay still runs to its end.
    pub(super) fn maybe_complete_join(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.state == State::PreparingRebalance && !self.is_initial() && self.all_have_joined() {
            self.complete_join(now, out);
        }
    }

    pub(super) fn prepare_rebalance(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.state == State::CompletingRebalance {
            self.refuse_syncs(now, out);
        }
        self.pending_sync.clear();
        self.timers.cancel(&Timer::Sync);
        let was_empty = self.state == State::Empty;
        self.enter(now, State::PreparingRebalance);
        if was_empty {
            let delay_ms = self.settings.initial_rebalance_delay_ms;
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.new_member_added = false;
            self.joining = Joining::Initial { delay_ms, remaining_ms };
            self.timers.set(Timer::Join, now.monotonic_ms.saturating_add(delay_ms));
        } else if self.all_have_joined() {
            self.joining = Joining::Rejoin;
            self.complete_join(now, out);
        } else {
            self.joining = Joining::Rejoin;
            self.await_joins(now);
        }
    }

    fn await_joins(&mut self, now: Now) {
        self.timers.set(Timer::Join, now.monotonic_ms.saturating_add(self.rebalance_timeout_ms()));
    }

    /// Starts joining: members that wait for an assignment must join again.
    fn refuse_syncs(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut answered = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment = Bytes::new();
            if let Some(request) = member.awaiting_sync.take() {
                out.push(Output::Answer(request, Answer::Sync(Err(GroupError::RebalanceInProgress))));
                answered.push(id.clone());
            }
        }
        for id in answered {
            self.restart_session(now, &id);
        }
    }

    /// The next generation: without the dynamic members that did not rejoin.
    pub(super) fn complete_join(&mut self, now: Now, out: &mut Vec<Output>) {
        self.timers.cancel(&Timer::Join);
        let missing = self.members.iter().filter(|(_, m)| m.awaiting_join.is_none() && m.instance_id.is_none());
        for id in missing.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            tracing::info!(member = ?id, "member did not rejoin in time, removed");
            self.remove_member(&id, out);
        }
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members are left and none is back yet: their sessions decide.
            return self.await_joins(now);
        }
        self.joining = Joining::Rejoin;
        self.new_member_added = false;
        self.generation = self.generation.saturating_add(1);
        self.pending_sync.clear();
        self.protocol = self.select_protocol();
        if self.members.is_empty() {
            self.leader = None;
            self.enter(now, State::Empty);
            out.push(Output::Record(self.to_value()));
            return;
        }
        self.enter(now, State::CompletingRebalance);
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
        }
        out.push(Output::Record(self.to_value()));
        self.answer_joins(now, out);
        self.await_syncs(now);
        tracing::info!(generation = self.generation, members = self.members.len(), "generation complete");
    }

    fn answer_joins(&mut self, now: Now, out: &mut Vec<Output>) {
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.is_new = false;
            if let Some(request) = member.awaiting_join.take() {
                let is_leader = self.leader.as_ref() == Some(&id);
                self.tell_generation(request, &id, is_leader, false, out);
            }
            self.restart_session(now, &id);
        }
    }

    pub(super) fn await_syncs(&mut self, now: Now) {
        self.pending_sync = self.members.keys().cloned().collect();
        self.timers.set(Timer::Sync, now.monotonic_ms.saturating_add(self.rebalance_timeout_ms()));
    }

    /// The leader stays if it rejoined; else the first member that did. False if none did.
    fn elect_leader(&mut self) -> bool {
        let rejoined = |id: &Arc<str>| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_ref().is_some_and(rejoined) {
            return true;
        }
        match self.members.iter().find(|(_, member)| member.awaiting_join.is_some()) {
            Some((id, _)) => {
                self.leader = Some(id.clone());
                true
            }
            None => false,
        }
    }

    /// Of the protocols that all members support, the one that most members prefer; the leader's preference decides a
    /// tie.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let common = |name: &str| self.members.values().all(|member| member.supports(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        let leaders_wish = self.leader.as_ref().and_then(|id| self.members.get(id));
        let ranked = leaders_wish.into_iter().flat_map(|leader| leader.protocols.iter().map(|(name, _)| name.as_str()));
        let mut winners = ranked.filter(|name| votes.get(name) == Some(&most));
        winners.next().or_else(|| votes.iter().find(|(_, n)| **n == most).map(|(name, _)| *name)).map(str::to_string)
    }

    /// Removes a member or a pending id from the group; its parked requests are answered.
    pub(super) fn remove_member(&mut self, id: &Arc<str>, out: &mut Vec<Output>) {
        self.timers.cancel(&Timer::Session(id.clone()));
        self.pending_join.remove(id);
        self.pending_sync.remove(id);
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(request) = member.awaiting_join {
            // Answered with an empty id, so that a client that is still alive joins as a new member.
            let answer = JoinAnswer { member_id: String::new(), outcome: Err(GroupError::UnknownMemberId) };
            out.push(Output::Answer(request, Answer::Join(answer)));
        }
        if let Some(request) = member.awaiting_sync {
            out.push(Output::Answer(request, Answer::Sync(Err(GroupError::UnknownMemberId))));
        }
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        while let Some(timer) = self.timers.take_due(now.monotonic_ms) {
            match timer {
                Timer::Join => self.join_time_is_over(now, out),
                Timer::Sync => self.sync_time_is_over(now, out),
                Timer::Session(id) => self.session_is_over(now, &id, out),
            }
        }
    }

    fn join_time_is_over(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match self.joining {
            Joining::Initial { delay_ms, remaining_ms } if self.new_member_added && remaining_ms > 0 => {
                self.new_member_added = false;
                let next_delay_ms = self.settings.initial_rebalance_delay_ms.min(remaining_ms);
                self.joining =
                    Joining::Initial { delay_ms: next_delay_ms, remaining_ms: (remaining_ms - delay_ms).max(0) };
                self.timers.set(Timer::Join, now.monotonic_ms.saturating_add(next_delay_ms));
            }
            Joining::Initial { .. } | Joining::Rejoin => self.complete_join(now, out),
        }
    }

    fn sync_time_is_over(&mut self, now: Now, out: &mut Vec<Output>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            tracing::info!(member = ?id, "member did not ask for its assignment in time, removed");
            self.remove_member(&id, out);
        }
        self.prepare_rebalance(now, out);
    }

    fn session_is_over(&mut self, now: Now, id: &Arc<str>, out: &mut Vec<Output>) {
        if self.pending_join.contains(id) {
            self.remove_member(id, out);
            self.complete_if_all_joined(now, out);
            return;
        }
        let Some(member) = self.members.get(id) else { return };
        // A member with a parked request is alive, except a new member, for whose join this is the timeout.
        if !member.is_new && (member.awaiting_join.is_some() || member.awaiting_sync.is_some()) {
            return;
        }
        tracing::info!(member = ?id, "session timed out, member removed");
        self.remove_member(id, out);
        match self.state {
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(now, out),
            State::PreparingRebalance => self.complete_if_all_joined(now, out),
            State::Empty | State::Dead => {}
        }
    }

    fn complete_if_all_joined(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.state == State::PreparingRebalance && self.all_have_joined() {
            self.complete_join(now, out);
        }
    }
}
