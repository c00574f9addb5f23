//! DescribeGroups (key 15, v0-v6): state and members of groups.
//!
//! v3 authorized operations (KIP-430). v4 instance ids (KIP-345). v6 an unknown group is GROUP_ID_NOT_FOUND with a
//! message; before, it is in state Dead without error. Members' metadata and assignments are shown while the group is
//! stable. Error per group: NOT_COORDINATOR.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use ottla_protocol::error::ErrorCode;

use super::support::{authorized_operations, text};
use crate::coordinator::group::classic::State;
use crate::coordinator::group::{Described, GroupError};
use crate::handlers::context::Context;
use crate::replicated::group::records::MemberValue;

pub(super) async fn handle(ctx: &Context, version: i16, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let asked = version >= 3 && request.include_authorized_operations;
    let names: Vec<&str> = request.groups.iter().map(|group| group.as_str()).collect();
    let outcomes = ctx.groups.describe(&names).await;
    let one = |(group_id, outcome): (GroupId, Result<Option<Described>, GroupError>)| {
        let group = DescribedGroup::default().with_authorized_operations(authorized_operations::NOT_REQUESTED);
        match outcome {
            Ok(found) => {
                let group = match found {
                    Some(found) => described(version, group, found),
                    None => unknown(version, group, &group_id),
                };
                group
                    .with_authorized_operations(authorized_operations::if_requested(
                        asked,
                        authorized_operations::GROUP,
                    ))
                    .with_group_id(group_id)
            }
            Err(error) => group.with_error_code(error.code()).with_group_id(group_id),
        }
    };
    DescribeGroupsResponse::default().with_groups(request.groups.into_iter().zip(outcomes).map(one).collect())
}

fn unknown(version: i16, group: DescribedGroup, group_id: &GroupId) -> DescribedGroup {
    let group = group.with_group_state(text(State::Dead.name()));
    if version < 6 {
        return group;
    }
    let message = format!("Group {} not found.", group_id.as_str());
    group.with_error_code(ErrorCode::GroupIdNotFound.code()).with_error_message(Some(text(&message)))
}

fn described(version: i16, group: DescribedGroup, found: Described) -> DescribedGroup {
    group
        .with_group_state(text(found.state.name()))
        .with_protocol_type(text(&found.protocol_type))
        .with_protocol_data(text(&found.protocol))
        .with_members(found.members.into_iter().map(|member| described_member(version, member)).collect())
}

fn described_member(version: i16, member: MemberValue) -> DescribedGroupMember {
    let instance_id = member.instance_id.filter(|_| version >= 4);
    DescribedGroupMember::default()
        .with_member_id(text(&member.member_id))
        .with_group_instance_id(instance_id.as_deref().map(text))
        .with_client_id(text(&member.client_id))
        .with_client_host(text(&member.client_host))
        .with_member_metadata(member.subscription)
        .with_member_assignment(member.assignment)
}
