//! DescribeAcls (key 29, v1-v3): the ACLs that match a filter.
//!
//! Ottla has no authorizer. The response is that of Kafka without one: SECURITY_DISABLED, with the same message.

use kafka_protocol::messages::DescribeAclsResponse;
use ottla_protocol::error::ErrorCode;

use super::support::text;

pub(super) fn handle() -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(text("No Authorizer is configured on the broker")))
}
