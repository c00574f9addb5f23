//! Full requests of the APIs of authentication and authorization. Their fields are the same in every version.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::*;

use super::s;
use crate::request::Request;
use crate::versions::ApiKey;

pub(super) fn requests(api_key: ApiKey) -> Vec<Request> {
    match api_key {
        ApiKey::DescribeAcls => {
            let full = DescribeAclsRequest::default()
                .with_resource_type_filter(2)
                .with_resource_name_filter(Some(s("prices")))
                .with_pattern_type_filter(3)
                .with_principal_filter(Some(s("User:alice")))
                .with_host_filter(Some(s("10.0.0.7")))
                .with_operation(3)
                .with_permission_type(3);
            let any = full.clone().with_resource_name_filter(None).with_principal_filter(None).with_host_filter(None);
            vec![full.into(), any.into()]
        }
        ApiKey::CreateAcls => {
            let one = AclCreation::default()
                .with_resource_type(2)
                .with_resource_name(s("prices"))
                .with_resource_pattern_type(4)
                .with_principal(s("User:alice"))
                .with_host(s("*"))
                .with_operation(4)
                .with_permission_type(2);
            vec![CreateAclsRequest::default().with_creations(vec![one.clone(), one]).into()]
        }
        ApiKey::DeleteAcls => {
            let one = DeleteAclsFilter::default()
                .with_resource_type_filter(3)
                .with_resource_name_filter(Some(s("readers")))
                .with_pattern_type_filter(1)
                .with_principal_filter(Some(s("User:alice")))
                .with_host_filter(Some(s("*")))
                .with_operation(1)
                .with_permission_type(1);
            let any = one.clone().with_resource_name_filter(None).with_principal_filter(None).with_host_filter(None);
            vec![DeleteAclsRequest::default().with_filters(vec![one, any]).into()]
        }
        _ => vec![SaslHandshakeRequest::default().with_mechanism(s("SCRAM-SHA-256")).into()],
    }
}
