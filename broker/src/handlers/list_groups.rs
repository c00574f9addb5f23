//! ListGroups (key 16, v0-v5): the groups that this node coordinates.
//!
//! v4 state and its filter (KIP-518). v5 type and its filter (KIP-848); both filters ignore case, an empty one matches
//! all groups. All groups are of type classic so far.

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use super::support::text;
use crate::coordinator::group::Listed;
use crate::handlers::context::Context;

/// As Kafka writes it: clients compare the text.
const CLASSIC: &str = "classic";

pub(super) async fn handle(ctx: &Context, version: i16, request: ListGroupsRequest) -> ListGroupsResponse {
    let groups =
        ctx.groups.list().await.into_iter().filter(|group| {
            passes(&request.states_filter, group.state.name()) && passes(&request.types_filter, CLASSIC)
        });
    ListGroupsResponse::default().with_groups(groups.map(|group| listed(version, &group)).collect())
}

fn passes(filter: &[StrBytes], word: &str) -> bool {
    filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(word))
}

fn listed(version: i16, group: &Listed) -> ListedGroup {
    let mut answer = ListedGroup::default()
        .with_group_id(GroupId(text(&group.group)))
        .with_protocol_type(text(&group.protocol_type));
    if version >= 4 {
        answer = answer.with_group_state(text(group.state.name()));
    }
    if version >= 5 {
        answer = answer.with_group_type(text(CLASSIC));
    }
    answer
}
