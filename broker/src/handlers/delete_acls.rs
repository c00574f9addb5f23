//! DeleteAcls (key 31, v1-v3): removes the ACLs that match filters.
//!
//! Ottla has no authorizer. The response is that of Kafka without one: SECURITY_DISABLED for each filter, with the same
//! message.

use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};
use ottla_protocol::error::ErrorCode;

use super::support::text;

pub(super) fn handle(request: &DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = DeleteAclsFilterResult::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(text("No Authorizer is configured.")));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}
