//! LeaveGroup: members leave by themselves, or are removed by an administrator who names their instance ids.

use std::sync::Arc;

use super::{Answer, Group, Leaving, Left, Now, Output, RequestId, State};
use crate::coordinator::group::error::GroupError;

impl Group {
    pub(super) fn leave(&mut self, now: Now, request: RequestId, members: Vec<Leaving>, out: &mut Vec<Output>) {
        let mut outcomes = Vec::with_capacity(members.len());
        let mut anybody = false;
        for leaving in members {
            let outcome = self.leave_one(&leaving, out);
            anybody |= outcome.is_ok();
            outcomes.push(Left { member_id: leaving.member_id, instance_id: leaving.instance_id, outcome });
        }
        if anybody {
            match self.state {
                State::CompletingRebalance | State::Stable => self.prepare_rebalance(now, out),
                State::PreparingRebalance => self.maybe_complete_join(now, out),
                State::Empty | State::Dead => {}
            }
        }
        out.push(Output::Answer(request, Answer::Leave(outcomes)));
    }

    fn leave_one(&mut self, leaving: &Leaving, out: &mut Vec<Output>) -> Result<(), GroupError> {
        let id: Arc<str> = if leaving.member_id.is_empty() {
            let instance_id = leaving.instance_id.as_deref().ok_or(GroupError::UnknownMemberId)?;
            self.static_members.get(instance_id).cloned().ok_or(GroupError::UnknownMemberId)?
        } else if self.pending_join.contains(leaving.member_id.as_str()) {
            Arc::from(leaving.member_id.as_str())
        } else {
            self.check_member(&leaving.member_id, leaving.instance_id.as_deref())?
        };
        tracing::info!(member = ?id, reason = leaving.reason.as_deref().unwrap_or("not given"), "member leaves");
        self.remove_member(&id, out);
        Ok(())
    }
}
