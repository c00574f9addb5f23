//! SyncGroup (key 14, v0-v5): the group's leader sends the assignment, each member gets its part.
//!
//! v3 group.instance.id (KIP-345). v5 protocol type and name are checked and returned (KIP-559). A follower waits for
//! the group's leader. Errors: INVALID_GROUP_ID, UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS,
//! INCONSISTENT_GROUP_PROTOCOL, FENCED_INSTANCE_ID, NOT_COORDINATOR.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::support::text;
use crate::coordinator::group::classic::Sync;
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, version: i16, request: SyncGroupRequest) -> SyncGroupResponse {
    let sync = Sync {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id,
        protocol_type: request.protocol_type.map(|kind| kind.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect(),
    };
    let response = SyncGroupResponse::default();
    match ctx.groups.sync(&request.group_id, sync).await {
        Ok(assigned) => {
            let known = |value: Option<String>| value.filter(|_| version >= 5).as_deref().map(text);
            response
                .with_protocol_type(known(assigned.protocol_type))
                .with_protocol_name(known(assigned.protocol))
                .with_assignment(assigned.assignment)
        }
        Err(error) => response.with_error_code(error.code()),
    }
}
