//! CreateAcls (key 30, v1-v3): adds ACLs.
//!
//! Ottla has no authorizer. The response is that of Kafka without one: SECURITY_DISABLED for each creation, same
//! message.

use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};
use ottla_protocol::error::ErrorCode;

use super::support::text;

pub(super) fn handle(request: &CreateAclsRequest) -> CreateAclsResponse {
    let refused = AclCreationResult::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(text("No Authorizer is configured.")));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}
