//! SyncGroup: takes the leader's assignment, and answers each member with its part.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::timers::Timer;
use super::{Answer, Assigned, Group, Now, Output, RequestId, State, Sync};
use crate::coordinator::group::error::GroupError;

impl Group {
    pub(super) fn sync(&mut self, now: Now, request: RequestId, sync: Sync, out: &mut Vec<Output>) {
        let id = match self.check_sync(&sync) {
            Ok(id) => id,
            Err(error) => return out.push(Output::Answer(request, Answer::Sync(Err(error)))),
        };
        self.pending_sync.remove(&id);
        if self.pending_sync.is_empty() {
            self.timers.cancel(&Timer::Sync);
        }
        if self.state == State::Stable {
            let assigned = self.assigned(&id);
            return out.push(Output::Answer(request, Answer::Sync(Ok(assigned))));
        }
        if let Some(earlier) = self.members.get_mut(&id).and_then(|member| member.awaiting_sync.replace(request)) {
            out.push(Output::Answer(earlier, Answer::Sync(Err(GroupError::RebalanceInProgress))));
        }
        if self.leader.as_ref() == Some(&id) {
            self.assign(now, sync.assignments, out);
        }
    }

    fn check_sync(&self, sync: &Sync) -> Result<std::sync::Arc<str>, GroupError> {
        let contradicts =
            |theirs: &Option<String>, ours: &Option<String>| theirs.is_some() && ours.is_some() && theirs != ours;
        match self.state {
            State::Dead => return Err(GroupError::CoordinatorNotAvailable),
            State::Empty => return Err(GroupError::UnknownMemberId),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {}
        }
        let id = self.check_member(&sync.member_id, sync.instance_id.as_deref())?;
        if sync.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if contradicts(&sync.protocol_type, &self.protocol_type) || contradicts(&sync.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if self.state == State::PreparingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(id)
    }

    /// Makes the group stable; a member that the leader left out gets an empty assignment.
    fn assign(&mut self, now: Now, assignments: Vec<(String, Bytes)>, out: &mut Vec<Output>) {
        let mut by_member: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            member.assignment = by_member.remove(&**id).unwrap_or_default();
        }
        self.enter(now, State::Stable);
        out.push(Output::Record(self.to_value()));
        for id in self.members.keys().cloned().collect::<Vec<_>>() {
            let parked = self.members.get_mut(&id).and_then(|member| member.awaiting_sync.take());
            if let Some(request) = parked {
                let assigned = self.assigned(&id);
                out.push(Output::Answer(request, Answer::Sync(Ok(assigned))));
                // Its session may have ended unnoticed while it waited.
                self.restart_session(now, &id);
            }
        }
    }

    fn assigned(&self, id: &str) -> Assigned {
        let assignment = self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default();
        Assigned { protocol_type: self.protocol_type.clone(), protocol: self.protocol.clone(), assignment }
    }
}
