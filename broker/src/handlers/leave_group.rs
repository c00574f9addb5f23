//! LeaveGroup (key 13, v0-v5): members leave, or an administrator removes static members by their instance ids.
//!
//! v0-v2 name one member. v3 names several, each with its own error (KIP-345). v5 reason (KIP-800). Errors:
//! INVALID_GROUP_ID, NOT_COORDINATOR; per member UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID.

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::support::text;
use crate::coordinator::group::classic::{Leaving, Left};
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let group = request.group_id.clone();
    let response = LeaveGroupResponse::default();
    match ctx.groups.leave(&group, leaving(version, request)).await {
        Err(error) => response.with_error_code(error.code()),
        Ok(left) if version >= 3 => response.with_members(left.into_iter().map(outcome).collect()),
        // Before v3 the only member's error is the top-level one.
        Ok(left) => {
            let refused = left.into_iter().find_map(|one| one.outcome.err());
            response.with_error_code(refused.map_or(0, |error| error.code()))
        }
    }
}

fn leaving(version: i16, request: LeaveGroupRequest) -> Vec<Leaving> {
    if version < 3 {
        return vec![Leaving { member_id: request.member_id.to_string(), instance_id: None, reason: None }];
    }
    let one = |member: kafka_protocol::messages::leave_group_request::MemberIdentity| Leaving {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        reason: member.reason.map(|reason| reason.to_string()),
    };
    request.members.into_iter().map(one).collect()
}

fn outcome(left: Left) -> MemberResponse {
    MemberResponse::default()
        .with_member_id(text(&left.member_id))
        .with_group_instance_id(left.instance_id.as_deref().map(text))
        .with_error_code(left.outcome.err().map_or(0, |error| error.code()))
}
