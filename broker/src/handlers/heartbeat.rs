//! Heartbeat (key 12, v0-v4): keeps the session of a classic group's member alive.
//!
//! v3 group.instance.id (KIP-345). Errors: INVALID_GROUP_ID, UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, FENCED_INSTANCE_ID,
//! NOT_COORDINATOR, and REBALANCE_IN_PROGRESS, on which the member joins again.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::coordinator::group::classic::MemberRef;
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: HeartbeatRequest) -> HeartbeatResponse {
    let who = MemberRef {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id,
    };
    let outcome = ctx.groups.heartbeat(&request.group_id, who).await;
    HeartbeatResponse::default().with_error_code(outcome.err().map_or(0, |error| error.code()))
}
