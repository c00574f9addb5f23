//! Security requests to a broker without authorizer and without SASL get the bytes that Apache Kafka 4.1.1 answers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use bytes::Bytes;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::{CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::Request;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, text};

const DESCRIBE: &str = "No Authorizer is configured on the broker";
const CHANGE: &str = "No Authorizer is configured.";
const SECURITY_DISABLED: u8 = 54;
const ILLEGAL_SASL_STATE: u8 = 34;

/// The answer behind its correlation id.
fn body<R: Request>(raw: &mut Raw, version: i16, request: &R) -> Bytes {
    raw.ask(version, request);
    raw.receive().unwrap().slice(4..)
}

/// A result with an error and a message: a string before version 2, a compact one from then on.
fn refused(version: i16, message: &str) -> Vec<u8> {
    let length = u8::try_from(message.len()).unwrap();
    let length: &[u8] = if version < 2 { &[0, length] } else { &[length + 1] };
    [&[0, SECURITY_DISABLED], length, message.as_bytes()].concat()
}

/// Throttle time and what follows, after the tags of the header where there are any.
fn answer(version: i16, parts: &[&[u8]]) -> Vec<u8> {
    let head: &[u8] = if version < 2 { &[0; 4] } else { &[0; 5] };
    [head, &parts.concat()].concat()
}

#[test]
fn acl_requests_are_answered_as_by_kafka_without_an_authorizer() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    let any = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let one = AclCreation::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_principal(text("User:a"))
        .with_host(text("*"))
        .with_operation(3)
        .with_permission_type(3);
    let create = CreateAclsRequest::default().with_creations(vec![one.clone(), one]);
    let filter = DeleteAclsFilter::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    let delete = DeleteAclsRequest::default().with_filters(vec![filter.clone(), filter]);
    for version in 1..=3 {
        let compact = version >= 2;
        // No resources; from version 2 on the tags of the message.
        let end: &[u8] = if compact { &[1, 0] } else { &[0; 4] };
        let described = answer(version, &[&refused(version, DESCRIBE), end]);
        assert_eq!(body(&mut raw, version, &any), described, "DescribeAcls v{version}");

        let (two, tags): (&[u8], &[u8]) = if compact { (&[3], &[0]) } else { (&[0, 0, 0, 2], &[]) };
        let result = [&refused(version, CHANGE), tags].concat();
        let created = answer(version, &[two, &result, &result, tags]);
        assert_eq!(body(&mut raw, version, &create), created, "CreateAcls v{version}");

        let result = [&refused(version, CHANGE), end].concat();
        let deleted = answer(version, &[two, &result, &result, tags]);
        assert_eq!(body(&mut raw, version, &delete), deleted, "DeleteAcls v{version}");
    }
    broker.stop();
}

#[test]
fn a_client_that_is_set_up_for_sasl_learns_that_there_is_none() {
    let mut broker = Broker::start(&[]);
    let mut raw = Raw::connect(broker.address());
    for version in 0..=1 {
        let request = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
        assert_eq!(body(&mut raw, version, &request), [0, ILLEGAL_SASL_STATE, 0, 0, 0, 0].as_slice(), "v{version}");
    }
    broker.stop();
}
