//! DeleteGroups (key 42, v0-v2): removes groups without members, with their offsets.
//!
//! Errors per group: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND, NOT_COORDINATOR.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let outcome = ctx.groups.delete(&group_id).await;
        let result = DeletableGroupResult::default().with_error_code(outcome.err().map_or(0, |error| error.code()));
        results.push(result.with_group_id(group_id));
    }
    DeleteGroupsResponse::default().with_results(results)
}
