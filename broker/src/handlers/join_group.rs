//! JoinGroup (key 11, v0-v9): a member joins the group's next generation.
//!
//! v0 has no rebalance timeout: the session timeout is used. v4 a dynamic member without id gets MEMBER_ID_REQUIRED and
//! joins again (KIP-394). v5 group.instance.id (KIP-345). v7 protocol type in the response (KIP-559). v8 reason. v9
//! skip_assignment (KIP-814). Waits until the generation is complete. Errors: INVALID_GROUP_ID,
//! INVALID_SESSION_TIMEOUT, INCONSISTENT_GROUP_PROTOCOL, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, GROUP_MAX_SIZE_REACHED,
//! NOT_COORDINATOR.

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::support::text;
use crate::coordinator::group::classic::{Generation, Join, JoinAnswer};
use crate::coordinator::group::new_member_id;
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, version: i16, request: JoinGroupRequest) -> JoinGroupResponse {
    let group = request.group_id.to_string();
    let join = translate(version, request, &ctx.connection.client_id, ctx.connection.client_host());
    respond(version, ctx.groups.join(&group, join).await)
}

fn translate(version: i16, request: JoinGroupRequest, client_id: &str, client_host: String) -> Join {
    let instance_id = request.group_instance_id.map(|id| id.to_string());
    let rebalance_timeout_ms = if version >= 1 { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    Join {
        member_id: request.member_id.to_string(),
        new_member_id: new_member_id(instance_id.as_deref().unwrap_or(client_id)),
        instance_id,
        client_id: client_id.to_owned(),
        client_host,
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.into_iter().map(|p| (p.name.to_string(), p.metadata)).collect(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        id_required: version >= 4,
        skips_assignment: version >= 9,
        reason: request.reason.map(|reason| reason.to_string()),
    }
}

fn respond(version: i16, answer: JoinAnswer) -> JoinGroupResponse {
    let response = JoinGroupResponse::default().with_member_id(text(&answer.member_id));
    match answer.outcome {
        Ok(generation) => joined(version, response, generation),
        Err(error) => {
            // Below v7 the name cannot be null.
            let name = if version >= 7 { None } else { Some(text("")) };
            response.with_error_code(error.code()).with_generation_id(-1).with_protocol_name(name)
        }
    }
}

fn joined(version: i16, response: JoinGroupResponse, generation: Generation) -> JoinGroupResponse {
    let members = generation.members.into_iter().map(|member| {
        let instance_id = member.instance_id.filter(|_| version >= 5);
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(instance_id.as_deref().map(text))
            .with_metadata(member.metadata)
    });
    let protocol_type = generation.protocol_type.filter(|_| version >= 7);
    response
        .with_generation_id(generation.generation)
        .with_protocol_type(protocol_type.as_deref().map(text))
        .with_protocol_name(Some(text(generation.protocol.as_deref().unwrap_or_default())))
        .with_leader(text(&generation.leader))
        .with_skip_assignment(version >= 9 && generation.skip_assignment)
        .with_members(members.collect())
}
