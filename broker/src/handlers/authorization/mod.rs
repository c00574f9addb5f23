//! The gate between decoding and the handlers: a request is authorized here, for its principal, once for each resource
//! that it names.
//!
//! Handlers accept only [`Authorized`], which only [`authorize_request`] makes, so that no request passes beside the
//! gate and no handler decides who may do what. Today every client is anonymous and may do everything, as in Kafka
//! without an authorizer; any other principal may do nothing until there are rules. May not know: sockets, handlers.

mod principal;
mod resources;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::request::Request;
use ottla_protocol::versions::ApiKey;

pub use self::principal::Principal;
use self::resources::Resource;

/// A request that its principal may make.
#[derive(Debug)]
pub(super) struct Authorized {
    request: Request,
}

impl Authorized {
    pub(super) fn into_request(self) -> Request {
        self.request
    }
}

/// A request that its principal may not make.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{principal} is not authorized for {} on {resource}", api.name())]
pub(super) struct Denied {
    principal: Principal,
    api: ApiKey,
    /// The first resource that was denied, for the log.
    resource: String,
    /// Kafka's error for this kind of resource.
    pub(super) error: ErrorCode,
}

/// Authorizes a request for every resource that it names, or for the cluster if it names none.
pub(super) fn authorize_request(principal: &Principal, request: Request) -> Result<Authorized, Denied> {
    let api = request.api_key();
    let mut names_any = false;
    resources::try_for_each(&request, &mut |resource| {
        names_any = true;
        authorize(principal, api, resource)
    })?;
    if !names_any {
        authorize(principal, api, Resource::Cluster)?;
    }
    Ok(Authorized { request })
}

/// Whether `principal` may call `api` on `resource`. The API determines Kafka's operation: Fetch reads a topic, Produce
/// writes it.
fn authorize(principal: &Principal, api: ApiKey, resource: Resource<'_>) -> Result<(), Denied> {
    if principal.is_anonymous() {
        return Ok(());
    }
    Err(Denied { principal: principal.clone(), api, resource: resource.to_string(), error: resource.denied() })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{GroupId, HeartbeatRequest, ListGroupsRequest, MetadataRequest};
    use ottla_protocol::StrBytes;

    use super::*;

    fn other() -> Principal {
        Principal { name: "other".into() }
    }

    fn denied(request: impl Into<Request>) -> (ErrorCode, String) {
        let denied = authorize_request(&other(), request.into()).unwrap_err();
        (denied.error, denied.to_string())
    }

    #[test]
    fn anonymous_may_do_everything_and_no_other_principal_anything() {
        let request = Request::from(HeartbeatRequest::default());
        let authorized = authorize_request(&Principal::anonymous(), request.clone()).unwrap();
        assert_eq!(authorized.into_request(), request);
        let group = GroupId(StrBytes::from_static_str("g"));
        let expected =
            (ErrorCode::GroupAuthorizationFailed, "User:other is not authorized for Heartbeat on group \"g\"");
        let (error, why) = denied(HeartbeatRequest::default().with_group_id(group));
        assert_eq!((error, &*why), expected);
    }

    #[test]
    fn a_request_that_names_nothing_is_authorized_for_the_cluster() {
        let all_topics = Request::from(MetadataRequest::default().with_topics(None));
        assert_eq!(denied(all_topics).0, ErrorCode::ClusterAuthorizationFailed);
        assert_eq!(denied(ListGroupsRequest::default()).0, ErrorCode::ClusterAuthorizationFailed);
    }
}
