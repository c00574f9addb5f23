//! The resources that a request names, by the kinds of Kafka's ACLs. The one place that knows it for every API.
//!
//! May not know: principals, and who may use a resource.

use std::fmt;

use kafka_protocol::messages::{FindCoordinatorRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::messages::OffsetFetchRequest;
use ottla_protocol::request::Request;
use uuid::Uuid;

use crate::handlers::support::config_resource;
use crate::limits::RESOURCE_NAME_LOG_CHARS_MAX;
use crate::server::sniff::escape_for_log;

/// What a request acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource<'a> {
    /// The cluster as a whole: requests that change it, describe it, or list all of its topics or groups.
    Cluster,
    /// A topic by its name.
    Topic(&'a str),
    /// A topic by its id, in versions of an API that name no topics.
    TopicId(Uuid),
    /// A consumer group.
    Group(&'a str),
    /// A transactional id.
    TransactionalId(&'a str),
}

impl Resource<'_> {
    /// Kafka's error for a resource of this kind that may not be used.
    pub(super) fn denied(self) -> ErrorCode {
        match self {
            Self::Cluster => ErrorCode::ClusterAuthorizationFailed,
            Self::Topic(_) | Self::TopicId(_) => ErrorCode::TopicAuthorizationFailed,
            Self::Group(_) => ErrorCode::GroupAuthorizationFailed,
            Self::TransactionalId(_) => ErrorCode::TransactionalIdAuthorizationFailed,
        }
    }
}

impl fmt::Display for Resource<'_> {
    /// As a log line shows it: names come from clients.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::Cluster => return f.write_str("the cluster"),
            Self::TopicId(id) => return write!(f, "topic id {id}"),
            Self::Topic(name) => ("topic", name),
            Self::Group(name) => ("group", name),
            Self::TransactionalId(name) => ("transactional id", name),
        };
        write!(f, "{kind} \"{}\"", escape_for_log(name, RESOURCE_NAME_LOG_CHARS_MAX))
    }
}

/// The types of coordinator keys that are names of groups and of transactional ids.
const GROUP_KEY: i8 = 0;
const TRANSACTION_KEY: i8 = 1;

/// Calls `check` with each resource that a request names, until it fails. A topic counts where Kafka authorizes the
/// topic: leaders are elected and partitions reassigned with a right on the cluster.
pub(super) fn try_for_each<E>(
    request: &Request,
    check: &mut impl FnMut(Resource<'_>) -> Result<(), E>,
) -> Result<(), E> {
    match request {
        Request::Produce(body) => {
            transactional_id(body.transactional_id.as_deref(), check)?;
            body.topics.iter().try_for_each(|topic| check(topic_of(topic.name.as_deref(), topic.id)))
        }
        Request::Fetch(body) => {
            body.topics.iter().try_for_each(|topic| check(topic_of(topic.name.as_deref(), topic.id)))
        }
        Request::InitProducerId(body) => transactional_id(body.transactional_id.as_ref().map(|id| id.as_str()), check),
        Request::Metadata(body) => {
            let mut all = body.topics.iter().flatten();
            all.try_for_each(|topic| check(named_or_not(topic.name.as_ref(), topic.topic_id)))
        }
        Request::DeleteTopics(body) => {
            topics(&body.topic_names, |name| name, check)?;
            body.topics.iter().try_for_each(|topic| check(named_or_not(topic.name.as_ref(), topic.topic_id)))
        }
        Request::ListOffsets(body) => topics(&body.topics, |topic| &topic.name, check),
        Request::OffsetForLeaderEpoch(body) => topics(&body.topics, |topic| &topic.topic, check),
        Request::CreateTopics(body) => topics(&body.topics, |topic| &topic.name, check),
        Request::CreatePartitions(body) => topics(&body.topics, |topic| &topic.name, check),
        Request::DeleteRecords(body) => topics(&body.topics, |topic| &topic.name, check),
        Request::DescribeProducers(body) => topics(&body.topics, |topic| &topic.name, check),
        Request::DescribeTopicPartitions(body) => topics(&body.topics, |topic| &topic.name, check),
        Request::JoinGroup(body) => check(Resource::Group(&body.group_id)),
        Request::SyncGroup(body) => check(Resource::Group(&body.group_id)),
        Request::Heartbeat(body) => check(Resource::Group(&body.group_id)),
        Request::LeaveGroup(body) => check(Resource::Group(&body.group_id)),
        Request::DescribeGroups(body) => body.groups.iter().try_for_each(|group| check(Resource::Group(group))),
        Request::DeleteGroups(body) => body.groups_names.iter().try_for_each(|group| check(Resource::Group(group))),
        Request::OffsetFetch(body) => offset_fetch(body, check),
        Request::FindCoordinator(body) => find_coordinator(body, check),
        Request::DescribeConfigs(body) => configs(&body.resources, |of| (of.resource_type, &of.resource_name), check),
        Request::AlterConfigs(body) => configs(&body.resources, |of| (of.resource_type, &of.resource_name), check),
        Request::IncrementalAlterConfigs(body) => {
            configs(&body.resources, |of| (of.resource_type, &of.resource_name), check)
        }
        Request::AddPartitionsToTxn(_)
        | Request::AddOffsetsToTxn(_)
        | Request::EndTxn(_)
        | Request::TxnOffsetCommit(_)
        | Request::DescribeTransactions(_)
        | Request::OffsetCommit(_)
        | Request::OffsetDelete(_) => of_several(request, check),
        Request::WriteTxnMarkers(_)
        | Request::ListTransactions(_)
        | Request::ListGroups(_)
        | Request::SaslHandshake(_)
        | Request::ApiVersions(_)
        | Request::DescribeAcls(_)
        | Request::CreateAcls(_)
        | Request::DeleteAcls(_)
        | Request::AlterReplicaLogDirs(_)
        | Request::DescribeLogDirs(_)
        | Request::ElectLeaders(_)
        | Request::AlterPartitionReassignments(_)
        | Request::ListPartitionReassignments(_)
        | Request::DescribeQuorum(_)
        | Request::UpdateFeatures(_)
        | Request::DescribeCluster(_)
        | Request::UnregisterBroker(_)
        | Request::ListConfigResources(_) => check(Resource::Cluster),
    }
}

/// What requests name that are about resources of several kinds, or of transactions.
fn of_several<E>(request: &Request, check: &mut impl FnMut(Resource<'_>) -> Result<(), E>) -> Result<(), E> {
    match request {
        Request::AddPartitionsToTxn(body) => {
            let one = Some(&body.v3_and_below_transactional_id).filter(|id| !id.is_empty());
            transactional_id(one.map(|id| id.as_str()), check)?;
            topics(&body.v3_and_below_topics, |topic| &topic.name, check)?;
            body.transactions.iter().try_for_each(|one| {
                check(Resource::TransactionalId(&one.transactional_id))?;
                topics(&one.topics, |topic| &topic.name, check)
            })
        }
        Request::AddOffsetsToTxn(body) => {
            check(Resource::TransactionalId(&body.transactional_id))?;
            check(Resource::Group(&body.group_id))
        }
        Request::EndTxn(body) => check(Resource::TransactionalId(&body.transactional_id)),
        Request::TxnOffsetCommit(body) => {
            check(Resource::TransactionalId(&body.transactional_id))?;
            check(Resource::Group(&body.group_id))?;
            body.topics.iter().try_for_each(|topic| check(name_or_id(&topic.name, topic.topic_id)))
        }
        Request::DescribeTransactions(body) => {
            body.transactional_ids.iter().try_for_each(|id| check(Resource::TransactionalId(id)))
        }
        Request::OffsetCommit(body) => {
            check(Resource::Group(&body.group_id))?;
            body.topics.iter().try_for_each(|topic| check(name_or_id(&topic.name, topic.topic_id)))
        }
        Request::OffsetDelete(body) => {
            check(Resource::Group(&body.group_id))?;
            topics(&body.topics, |topic| &topic.name, check)
        }
        _ => Ok(()),
    }
}

fn named_or_not(name: Option<&TopicName>, id: Uuid) -> Resource<'_> {
    topic_of(name.map(|name| name.as_str()), Some(id))
}

fn topic_of(name: Option<&str>, id: Option<Uuid>) -> Resource<'_> {
    match name {
        Some(name) => Resource::Topic(name),
        None => Resource::TopicId(id.unwrap_or_default()),
    }
}

/// A topic of a message that has ids from some version on, and names before.
fn name_or_id(name: &TopicName, id: Uuid) -> Resource<'_> {
    topic_of(id.is_nil().then_some(name.as_str()), Some(id))
}

fn topics<T, E>(
    topics: &[T],
    name: impl Fn(&T) -> &TopicName,
    check: &mut impl FnMut(Resource<'_>) -> Result<(), E>,
) -> Result<(), E> {
    topics.iter().try_for_each(|topic| check(Resource::Topic(name(topic))))
}

fn transactional_id<E>(id: Option<&str>, check: &mut impl FnMut(Resource<'_>) -> Result<(), E>) -> Result<(), E> {
    id.map_or(Ok(()), |id| check(Resource::TransactionalId(id)))
}

/// One group before v8, any number from then on.
fn offset_fetch<E>(body: &OffsetFetchRequest, check: &mut impl FnMut(Resource<'_>) -> Result<(), E>) -> Result<(), E> {
    if body.groups.is_empty() {
        check(Resource::Group(&body.group_id))?;
        return topics(body.topics.as_deref().unwrap_or_default(), |topic| &topic.name, check);
    }
    body.groups.iter().try_for_each(|group| {
        check(Resource::Group(&group.group_id))?;
        let topics = group.topics.as_deref().unwrap_or_default();
        topics.iter().try_for_each(|topic| check(name_or_id(&topic.name, topic.topic_id)))
    })
}

/// One key before v4, any number from then on.
fn find_coordinator<E>(
    body: &FindCoordinatorRequest,
    check: &mut impl FnMut(Resource<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let single = Some(&body.key).filter(|_| body.coordinator_keys.is_empty());
    body.coordinator_keys.iter().chain(single).try_for_each(|key| match body.key_type {
        GROUP_KEY => check(Resource::Group(key)),
        TRANSACTION_KEY => check(Resource::TransactionalId(key)),
        _ => check(Resource::Cluster),
    })
}

fn configs<T, E>(
    resources: &[T],
    of: impl Fn(&T) -> (i8, &StrBytes),
    check: &mut impl FnMut(Resource<'_>) -> Result<(), E>,
) -> Result<(), E> {
    resources.iter().map(of).try_for_each(|(kind, name)| match kind {
        config_resource::TOPIC => check(Resource::Topic(name)),
        config_resource::GROUP => check(Resource::Group(name)),
        _ => check(Resource::Cluster),
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::{
        DescribeConfigsRequest, GroupId, InitProducerIdRequest, ListGroupsRequest, MetadataRequest, TransactionalId,
    };
    use ottla_protocol::messages::{
        OffsetCommitRequest, OffsetCommitRequestTopic, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    };

    use super::*;

    fn str_bytes(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn topic(name: &str) -> TopicName {
        TopicName(str_bytes(name))
    }

    fn group(name: &str) -> GroupId {
        GroupId(str_bytes(name))
    }

    /// What a request names, as a log line shows it.
    fn named(request: impl Into<Request>) -> Vec<String> {
        let mut named = Vec::new();
        let outcome: Result<(), ()> = try_for_each(&request.into(), &mut |resource| {
            named.push(resource.to_string());
            Ok(())
        });
        assert_eq!(outcome, Ok(()));
        named
    }

    #[test]
    fn a_group_and_its_topics_are_named() {
        let by_name = OffsetCommitRequestTopic { name: topic("t"), ..OffsetCommitRequestTopic::default() };
        let by_id = OffsetCommitRequestTopic { topic_id: Uuid::from_u128(7), ..OffsetCommitRequestTopic::default() };
        let topics = vec![by_name, by_id];
        let commit = OffsetCommitRequest { group_id: group("g"), topics, ..OffsetCommitRequest::default() };
        let id = "topic id 00000000-0000-0000-0000-000000000007";
        assert_eq!(named(commit), ["group \"g\"", "topic \"t\"", id]);
        let by_name = OffsetFetchRequestTopics { name: topic("t"), ..OffsetFetchRequestTopics::default() };
        let by_id = OffsetFetchRequestTopics { topic_id: Uuid::from_u128(7), ..OffsetFetchRequestTopics::default() };
        let of = |name: &str, topics| OffsetFetchRequestGroup {
            group_id: group(name),
            topics: Some(topics),
            ..OffsetFetchRequestGroup::default()
        };
        let groups = vec![of("g", vec![by_name, by_id]), of("h", Vec::new())];
        let fetch = OffsetFetchRequest { groups, ..OffsetFetchRequest::default() };
        assert_eq!(named(fetch), ["group \"g\"", "topic \"t\"", id, "group \"h\""]);
        let single = OffsetFetchRequest { group_id: group("g"), ..OffsetFetchRequest::default() };
        assert_eq!(named(single), ["group \"g\""]);
    }

    #[test]
    fn topics_are_named_by_name_or_id_and_all_topics_by_none() {
        let by_name = MetadataRequestTopic::default().with_name(Some(topic("t\n")));
        let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_u128(7));
        let some = MetadataRequest::default().with_topics(Some(vec![by_name, by_id]));
        assert_eq!(named(some), ["topic \"t\\n\"", "topic id 00000000-0000-0000-0000-000000000007"]);
        assert!(named(MetadataRequest::default().with_topics(None)).is_empty());
    }

    #[test]
    fn keys_of_coordinators_and_configs_are_named_by_their_type() {
        let keys = vec![str_bytes("a"), str_bytes("b")];
        let several = FindCoordinatorRequest::default().with_key_type(TRANSACTION_KEY).with_coordinator_keys(keys);
        assert_eq!(named(several), ["transactional id \"a\"", "transactional id \"b\""]);
        assert_eq!(named(FindCoordinatorRequest::default().with_key(str_bytes("g"))), ["group \"g\""]);
        let resource = |kind, name| {
            DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(str_bytes(name))
        };
        let of = vec![resource(config_resource::TOPIC, "t"), resource(config_resource::BROKER, "1")];
        assert_eq!(named(DescribeConfigsRequest::default().with_resources(of)), ["topic \"t\"", "the cluster"]);
    }

    #[test]
    fn a_producer_is_named_by_its_transactional_id_if_it_has_one() {
        let id = TransactionalId(str_bytes("x"));
        let transactional = InitProducerIdRequest::default().with_transactional_id(Some(id));
        assert_eq!(named(transactional), ["transactional id \"x\""]);
        assert!(named(InitProducerIdRequest::default().with_transactional_id(None)).is_empty());
        assert_eq!(named(ListGroupsRequest::default()), ["the cluster"]);
    }
}
