//! DeleteGroups (key 42, v0-v3): removes groups without members, with their offsets.
//!
//! v3: why a group was not deleted. Errors per group: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND, NOT_COORDINATOR.

use kafka_protocol::messages::DeleteGroupsRequest;
use ottla_protocol::messages::{DeletableGroupResult, DeleteGroupsResponse};

use super::support::text;
use crate::handlers::context::Context;

pub(super) async fn handle(ctx: &Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let error = ctx.groups.delete(&group_id).await.err();
        let error_message = error.map(|error| text(&error.to_string()));
        results.push(DeletableGroupResult {
            group_id,
            error_code: error.map_or(0, |error| error.code()),
            error_message,
        });
    }
    DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }
}
