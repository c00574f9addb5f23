//! Requests of every API with every field of a version filled, for the tests of walk, decoder and golden files.

mod group_offsets;
mod security;
mod transactions;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use crate::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::produce::{ProducePartition, ProduceRequest, ProduceTopic};
use crate::request::{Request, codec_version};
use crate::versions::ApiKey;

pub(crate) fn s(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

pub(crate) fn topic(name: &'static str) -> TopicName {
    TopicName(s(name))
}

pub(crate) fn group(name: &'static str) -> GroupId {
    GroupId(s(name))
}

pub(crate) fn id() -> Uuid {
    Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
}

/// The value, in versions that have the field.
fn when<T>(has_field: bool, value: T) -> Option<T> {
    has_field.then_some(value)
}

/// A full request and, where arrays or nulls make a difference, an empty one.
pub(crate) fn requests(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::Produce => vec![Request::Produce(produce(version))],
        ApiKey::Fetch => vec![Request::Fetch(fetch(version))],
        ApiKey::ListOffsets | ApiKey::Metadata | ApiKey::OffsetForLeaderEpoch => offsets_and_metadata(api_key, version),
        ApiKey::OffsetCommit | ApiKey::OffsetFetch | ApiKey::OffsetDelete | ApiKey::FindCoordinator => {
            of_groups(api_key, version)
        }
        ApiKey::JoinGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::SyncGroup
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteGroups => groups(api_key, version),
        ApiKey::CreateTopics
        | ApiKey::DeleteTopics
        | ApiKey::DeleteRecords
        | ApiKey::CreatePartitions
        | ApiKey::DescribeLogDirs => topics(api_key, version),
        ApiKey::DescribeAcls | ApiKey::CreateAcls | ApiKey::DeleteAcls | ApiKey::SaslHandshake => {
            security::requests(api_key)
        }
        ApiKey::DescribeConfigs
        | ApiKey::AlterConfigs
        | ApiKey::IncrementalAlterConfigs
        | ApiKey::ListConfigResources => configs(api_key, version),
        ApiKey::ApiVersions
        | ApiKey::InitProducerId
        | ApiKey::DescribeCluster
        | ApiKey::DescribeProducers
        | ApiKey::DescribeTopicPartitions => others(api_key, version),
        ApiKey::DescribeQuorum
        | ApiKey::ElectLeaders
        | ApiKey::AlterPartitionReassignments
        | ApiKey::AlterReplicaLogDirs
        | ApiKey::ListPartitionReassignments
        | ApiKey::UnregisterBroker
        | ApiKey::UpdateFeatures => operators(api_key, version),
        ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::WriteTxnMarkers
        | ApiKey::TxnOffsetCommit
        | ApiKey::DescribeTransactions
        | ApiKey::ListTransactions => transactions::requests(api_key, version),
    }
}

/// The body as kafka-protocol writes it; Produce and Fetch through kafka-protocol's types as well.
pub(crate) fn encode(request: &Request, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    let version = codec_version(request.api_key(), version);
    macro_rules! each {
        ($($api:ident)*) => {
            match request {
                Request::Produce(request) => theirs_produce(request, version).encode(&mut out, version),
                Request::Fetch(request) => theirs_fetch(request, version).encode(&mut out, version),
                $(Request::$api(request) => request.encode(&mut out, version),)*
            }
        };
    }
    each!(ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup SyncGroup
        DescribeGroups ListGroups ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId
        OffsetForLeaderEpoch DescribeConfigs AlterConfigs AlterReplicaLogDirs DescribeLogDirs CreatePartitions DeleteGroups
        ElectLeaders IncrementalAlterConfigs
        AlterPartitionReassignments ListPartitionReassignments OffsetDelete DescribeQuorum UpdateFeatures DescribeCluster DescribeProducers UnregisterBroker ListConfigResources
        DescribeTopicPartitions DescribeAcls CreateAcls DeleteAcls SaslHandshake AddPartitionsToTxn AddOffsetsToTxn EndTxn WriteTxnMarkers
        TxnOffsetCommit DescribeTransactions ListTransactions)
    .unwrap_or_else(|error| panic!("{} v{version}: {error}", request.api_key().name()));
    out.freeze()
}

/// A whole frame without its length: header and body.
pub(crate) fn frame(request: &Request, version: i16) -> Bytes {
    let api_key = request.api_key();
    let header = RequestHeader::default()
        .with_request_api_key(api_key.code())
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(s("golden")));
    let mut out = BytesMut::new();
    header.encode(&mut out, api_key.request_header_version(version)).unwrap();
    out.extend_from_slice(&encode(request, version));
    out.freeze()
}

fn produce(version: i16) -> ProduceRequest {
    let by_id = version >= 13;
    let partition = |index, records| ProducePartition { index, records };
    let partitions = vec![
        partition(0, Some(Bytes::from_static(b"not a batch, but any bytes will do"))),
        partition(1, Some(Bytes::new())),
        partition(2, None),
    ];
    ProduceRequest {
        transactional_id: Some(s("transaction")),
        acks: -1,
        timeout_ms: 30_000,
        topics: vec![ProduceTopic { name: when(!by_id, s("prices")), id: when(by_id, id()), partitions }],
    }
}

fn theirs_produce(request: &ProduceRequest, version: i16) -> kafka_protocol::messages::ProduceRequest {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let partition = |ours: &ProducePartition| {
        PartitionProduceData::default().with_index(ours.index).with_records(ours.records.clone())
    };
    let topic = |ours: &ProduceTopic| {
        let theirs = TopicProduceData::default().with_partition_data(ours.partitions.iter().map(partition).collect());
        if version >= 13 {
            theirs.with_topic_id(ours.id.unwrap_or_default())
        } else {
            theirs.with_name(TopicName(ours.name.clone().unwrap_or_default()))
        }
    };
    kafka_protocol::messages::ProduceRequest::default()
        .with_transactional_id(request.transactional_id.clone().map(TransactionalId))
        .with_acks(request.acks)
        .with_timeout_ms(request.timeout_ms)
        .with_topic_data(request.topics.iter().map(topic).collect())
}

fn fetch(version: i16) -> FetchRequest {
    let by_id = version >= 13;
    let name = || when(!by_id, s("prices"));
    let topic_id = || when(by_id, id());
    let partition = FetchPartition {
        index: 3,
        current_leader_epoch: LeaderEpoch(if version >= 9 { 5 } else { -1 }),
        fetch_offset: Offset(1 << 40),
        last_fetched_epoch: LeaderEpoch(if version >= 12 { 4 } else { -1 }),
        log_start: Offset(-1),
        max_bytes: 1 << 20,
    };
    let topics = vec![FetchTopic { name: name(), id: topic_id(), partitions: vec![partition, partition] }];
    let forgotten = vec![ForgottenTopic { name: name(), id: topic_id(), partitions: vec![1, 2] }];
    let has_session = version >= 7;
    FetchRequest {
        replica_id: NodeId(if version >= 15 { 9 } else { -1 }),
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation_level: 1,
        session_id: if has_session { 77 } else { 0 },
        session_epoch: if has_session { 3 } else { -1 },
        topics,
        forgotten: if has_session { forgotten } else { Vec::new() },
        rack_id: if version >= 11 { s("zone-b") } else { StrBytes::new() },
    }
}

fn theirs_fetch(request: &FetchRequest, version: i16) -> kafka_protocol::messages::FetchRequest {
    use kafka_protocol::messages::fetch_request as theirs;
    let by_id = version >= 13;
    let partition = |ours: &FetchPartition| {
        theirs::FetchPartition::default()
            .with_partition(ours.index)
            .with_current_leader_epoch(ours.current_leader_epoch.0)
            .with_fetch_offset(ours.fetch_offset.0)
            .with_last_fetched_epoch(ours.last_fetched_epoch.0)
            .with_log_start_offset(ours.log_start.0)
            .with_partition_max_bytes(ours.max_bytes)
            .with_replica_directory_id(if version >= 17 { id() } else { Uuid::nil() })
            .with_high_watermark(if version >= 18 { 11 } else { i64::MAX })
    };
    let topic = |ours: &FetchTopic| {
        let theirs = theirs::FetchTopic::default().with_partitions(ours.partitions.iter().map(partition).collect());
        match by_id {
            true => theirs.with_topic_id(ours.id.unwrap_or_default()),
            false => theirs.with_topic(TopicName(ours.name.clone().unwrap_or_default())),
        }
    };
    let forgotten = |ours: &ForgottenTopic| {
        let theirs = theirs::ForgottenTopic::default().with_partitions(ours.partitions.clone());
        match by_id {
            true => theirs.with_topic_id(ours.id.unwrap_or_default()),
            false => theirs.with_topic(TopicName(ours.name.clone().unwrap_or_default())),
        }
    };
    let body = kafka_protocol::messages::FetchRequest::default()
        .with_max_wait_ms(request.max_wait_ms)
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(request.max_bytes)
        .with_isolation_level(request.isolation_level)
        .with_session_id(request.session_id)
        .with_session_epoch(request.session_epoch)
        .with_topics(request.topics.iter().map(topic).collect())
        .with_forgotten_topics_data(request.forgotten.iter().map(forgotten).collect())
        .with_rack_id(request.rack_id.clone());
    let body = if version >= 12 { body.with_cluster_id(Some(s("cluster"))) } else { body };
    if version >= 15 {
        let state =
            theirs::ReplicaState::default().with_replica_id(BrokerId(request.replica_id.0)).with_replica_epoch(2);
        body.with_replica_state(state)
    } else {
        body.with_replica_id(BrokerId(request.replica_id.0))
    }
}

fn offsets_and_metadata(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::ListOffsets => {
            use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-2);
            let partition = if version >= 4 { partition.with_current_leader_epoch(8) } else { partition };
            let full = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_isolation_level(i8::from(version >= 2))
                .with_topics(vec![
                    ListOffsetsTopic::default().with_name(topic("prices")).with_partitions(vec![partition; 2]),
                    ListOffsetsTopic::default().with_name(topic("")),
                ]);
            let full = if version >= 10 { full.with_timeout_ms(9) } else { full };
            vec![full.into(), ListOffsetsRequest::default().into()]
        }
        ApiKey::Metadata => {
            use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
            let named = MetadataRequestTopic::default().with_name(Some(topic("prices")));
            let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(id());
            let topics = if version >= 10 { vec![named, by_id] } else { vec![named] };
            let full = MetadataRequest::default()
                .with_topics(Some(topics))
                .with_allow_auto_topic_creation(version < 4)
                .with_include_cluster_authorized_operations((8..=10).contains(&version))
                .with_include_topic_authorized_operations(version >= 8);
            let none = MetadataRequest::default().with_topics(when(version == 0, Vec::new()));
            vec![full.into(), none.into()]
        }
        _ => {
            use kafka_protocol::messages::offset_for_leader_epoch_request::{
                OffsetForLeaderPartition, OffsetForLeaderTopic,
            };
            let partition =
                OffsetForLeaderPartition::default().with_partition(1).with_current_leader_epoch(4).with_leader_epoch(3);
            let topics =
                vec![OffsetForLeaderTopic::default().with_topic(topic("prices")).with_partitions(vec![partition])];
            let full = OffsetForLeaderEpochRequest::default()
                .with_replica_id(BrokerId(if version >= 3 { -1 } else { -2 }))
                .with_topics(topics);
            vec![full.into()]
        }
    }
}

fn of_groups(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::OffsetCommit => group_offsets::offset_commit(version),
        ApiKey::OffsetFetch => group_offsets::offset_fetch(version),
        ApiKey::OffsetDelete => {
            use kafka_protocol::messages::offset_delete_request::*;
            let partitions = vec![OffsetDeleteRequestPartition::default().with_partition_index(3)];
            let topics =
                vec![OffsetDeleteRequestTopic::default().with_name(topic("prices")).with_partitions(partitions)];
            vec![OffsetDeleteRequest::default().with_group_id(group("readers")).with_topics(topics).into()]
        }
        _ => {
            let full = FindCoordinatorRequest::default().with_key_type(i8::from(version >= 1));
            let full = if version >= 4 {
                full.with_coordinator_keys(vec![s("readers"), s("")])
            } else {
                full.with_key(s("readers"))
            };
            vec![full.into()]
        }
    }
}

fn groups(api_key: ApiKey, version: i16) -> Vec<Request> {
    let instance = |since| when(version >= since, s("instance"));
    match api_key {
        ApiKey::JoinGroup => {
            use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(s("range"))
                .with_metadata(Bytes::from_static(b"\0\x01\0\0\0\x01\0\x06prices"));
            let full = JoinGroupRequest::default()
                .with_group_id(group("readers"))
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(if version >= 1 { 60_000 } else { -1 })
                .with_member_id(s("member"))
                .with_group_instance_id(instance(5))
                .with_protocol_type(s("consumer"))
                .with_protocols(vec![protocol; 2])
                .with_reason(when(version >= 8, s("why not")));
            vec![full.into(), JoinGroupRequest::default().into()]
        }
        ApiKey::Heartbeat => {
            let full = HeartbeatRequest::default()
                .with_group_id(group("readers"))
                .with_generation_id(4)
                .with_member_id(s("member"))
                .with_group_instance_id(instance(3));
            vec![full.into(), HeartbeatRequest::default().into()]
        }
        ApiKey::LeaveGroup => {
            use kafka_protocol::messages::leave_group_request::MemberIdentity;
            let full = LeaveGroupRequest::default().with_group_id(group("readers"));
            if version <= 2 {
                return vec![full.with_member_id(s("member")).into()];
            }
            let member = MemberIdentity::default()
                .with_member_id(s("member"))
                .with_group_instance_id(instance(3))
                .with_reason(when(version >= 5, s("enough")));
            vec![full.with_members(vec![member, MemberIdentity::default()]).into()]
        }
        ApiKey::SyncGroup => {
            use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
            let assignment = SyncGroupRequestAssignment::default()
                .with_member_id(s("member"))
                .with_assignment(Bytes::from_static(b"all of it"));
            let full = SyncGroupRequest::default()
                .with_group_id(group("readers"))
                .with_generation_id(4)
                .with_member_id(s("member"))
                .with_group_instance_id(instance(3))
                .with_protocol_type(when(version >= 5, s("consumer")))
                .with_protocol_name(when(version >= 5, s("range")))
                .with_assignments(vec![assignment]);
            vec![full.into(), SyncGroupRequest::default().into()]
        }
        ApiKey::DescribeGroups => {
            let full = DescribeGroupsRequest::default()
                .with_groups(vec![group("readers"), group("")])
                .with_include_authorized_operations(version >= 3);
            vec![full.into()]
        }
        ApiKey::ListGroups => {
            let full = ListGroupsRequest::default();
            let full = if version >= 4 { full.with_states_filter(vec![s("Stable"), s("Empty")]) } else { full };
            vec![if version >= 5 { full.with_types_filter(vec![s("classic")]) } else { full }.into()]
        }
        _ => vec![DeleteGroupsRequest::default().with_groups_names(vec![group("readers"), group("others")]).into()],
    }
}

fn topics(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::CreateTopics => {
            use kafka_protocol::messages::create_topics_request::*;
            let assignment =
                CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(vec![BrokerId(1)]);
            let config = CreatableTopicConfig::default().with_name(s("retention.ms")).with_value(Some(s("1000")));
            let full = CreatableTopic::default()
                .with_name(topic("prices"))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![assignment])
                .with_configs(vec![config.clone(), config.with_value(None)]);
            let full = CreateTopicsRequest::default()
                .with_topics(vec![full, CreatableTopic::default()])
                .with_timeout_ms(5_000)
                .with_validate_only(true);
            vec![full.into()]
        }
        ApiKey::DeleteTopics => {
            use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
            let full = DeleteTopicsRequest::default().with_timeout_ms(5_000);
            let named = DeleteTopicState::default().with_name(Some(topic("prices")));
            let by_id = DeleteTopicState::default().with_topic_id(id());
            let full = if version >= 6 {
                full.with_topics(vec![named, by_id])
            } else {
                full.with_topic_names(vec![topic("prices"), topic("news")])
            };
            vec![full.into()]
        }
        ApiKey::DeleteRecords => {
            use kafka_protocol::messages::delete_records_request::*;
            let partition = DeleteRecordsPartition::default().with_partition_index(1).with_offset(-1);
            let topics =
                vec![DeleteRecordsTopic::default().with_name(topic("prices")).with_partitions(vec![partition; 3])];
            vec![DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(1).into()]
        }
        ApiKey::CreatePartitions => {
            use kafka_protocol::messages::create_partitions_request::*;
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
            let full = CreatePartitionsTopic::default()
                .with_name(topic("prices"))
                .with_count(6)
                .with_assignments(Some(vec![assignment]));
            let unassigned = CreatePartitionsTopic::default().with_name(topic("news")).with_assignments(None);
            let full = CreatePartitionsRequest::default()
                .with_topics(vec![full, unassigned])
                .with_timeout_ms(5_000)
                .with_validate_only(true);
            vec![full.into()]
        }
        _ => {
            use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
            let one = DescribableLogDirTopic::default().with_topic(topic("prices")).with_partitions(vec![0, 1, 2]);
            let full = DescribeLogDirsRequest::default().with_topics(Some(vec![one]));
            vec![full.into(), DescribeLogDirsRequest::default().with_topics(None).into()]
        }
    }
}

fn configs(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::DescribeConfigs => {
            use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
            let some = DescribeConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(s("prices"))
                .with_configuration_keys(Some(vec![s("retention.ms"), s("cleanup.policy")]));
            let all = some.clone().with_configuration_keys(None);
            let full = DescribeConfigsRequest::default()
                .with_resources(vec![some, all])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            vec![full.into()]
        }
        ApiKey::AlterConfigs => {
            use kafka_protocol::messages::alter_configs_request::*;
            let config = AlterableConfig::default().with_name(s("retention.ms"));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(s("prices"))
                .with_configs(vec![config.clone().with_value(Some(s("1"))), config.with_value(None)]);
            vec![AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true).into()]
        }
        ApiKey::IncrementalAlterConfigs => {
            use kafka_protocol::messages::incremental_alter_configs_request::*;
            let config = AlterableConfig::default().with_name(s("retention.ms")).with_config_operation(1);
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(s("prices"))
                .with_configs(vec![config.clone().with_value(Some(s("1"))), config.with_value(None)]);
            let full = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
            vec![full.with_validate_only(true).into()]
        }
        _ => {
            let full = ListConfigResourcesRequest::default();
            vec![if version >= 1 { full.with_resource_types(vec![2, 4]) } else { full }.into()]
        }
    }
}

fn others(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::ApiVersions => {
            use crate::messages::ApiVersionsRequest;
            let named = ApiVersionsRequest {
                client_software_name: s("golden"),
                client_software_version: s("1.0"),
                ..ApiVersionsRequest::default()
            };
            let meant = ApiVersionsRequest { cluster_id: Some(s("cluster")), node_id: 3, ..named.clone() };
            match version {
                ..3 => vec![ApiVersionsRequest::default().into()],
                3..5 => vec![named.into()],
                5.. => vec![meant.into(), named.into()],
            }
        }
        ApiKey::InitProducerId => {
            let full = InitProducerIdRequest::default()
                .with_transactional_id(Some(TransactionalId(s("transaction"))))
                .with_transaction_timeout_ms(60_000);
            let resumed = full.clone().with_producer_id(ProducerId(12)).with_producer_epoch(3);
            let plain = InitProducerIdRequest::default().with_transactional_id(None);
            vec![if version >= 3 { resumed } else { full }.into(), plain.into()]
        }
        ApiKey::DescribeCluster => {
            let full = DescribeClusterRequest::default()
                .with_include_cluster_authorized_operations(true)
                .with_endpoint_type(if version >= 1 { 2 } else { 1 })
                .with_include_fenced_brokers(version >= 2);
            vec![full.into()]
        }
        ApiKey::DescribeProducers => {
            use kafka_protocol::messages::describe_producers_request::TopicRequest;
            let one = TopicRequest::default().with_name(topic("prices")).with_partition_indexes(vec![0, 5]);
            vec![DescribeProducersRequest::default().with_topics(vec![one]).into()]
        }
        _ => {
            use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
            let cursor = Cursor::default().with_topic_name(topic("prices")).with_partition_index(7);
            let one = TopicRequest::default().with_name(topic("prices"));
            let full =
                DescribeTopicPartitionsRequest::default().with_topics(vec![one]).with_response_partition_limit(9);
            vec![full.clone().with_cursor(Some(cursor)).into(), full.with_cursor(None).into()]
        }
    }
}

fn operators(api_key: ApiKey, version: i16) -> Vec<Request> {
    match api_key {
        ApiKey::ElectLeaders => {
            use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
            let some = TopicPartitions::default().with_topic(topic("prices")).with_partitions(vec![0, 3]);
            let full = ElectLeadersRequest::default()
                .with_election_type(i8::from(version >= 1))
                .with_topic_partitions(Some(vec![some]))
                .with_timeout_ms(5_000);
            vec![full.clone().into(), full.with_topic_partitions(None).into()]
        }
        ApiKey::AlterPartitionReassignments => {
            use kafka_protocol::messages::alter_partition_reassignments_request::*;
            let moved = ReassignablePartition::default().with_partition_index(3);
            let kept = moved.clone().with_replicas(None);
            let moved = moved.with_replicas(Some(vec![BrokerId(1), BrokerId(2)]));
            let one = ReassignableTopic::default().with_name(topic("prices")).with_partitions(vec![moved, kept]);
            let full = AlterPartitionReassignmentsRequest::default().with_timeout_ms(9).with_topics(vec![one]);
            vec![full.with_allow_replication_factor_change(version < 1).into()]
        }
        ApiKey::AlterReplicaLogDirs => {
            use kafka_protocol::messages::alter_replica_log_dirs_request::*;
            let one = AlterReplicaLogDirTopic::default().with_name(topic("prices")).with_partitions(vec![0, 3]);
            let one = AlterReplicaLogDir::default().with_path(s("/data-2")).with_topics(vec![one]);
            vec![AlterReplicaLogDirsRequest::default().with_dirs(vec![one]).into()]
        }
        ApiKey::UpdateFeatures => {
            use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
            let one = FeatureUpdateKey::default().with_feature(s("ottla.version")).with_max_version_level(2);
            let one = if version == 0 { one.with_allow_downgrade(true) } else { one.with_upgrade_type(3) };
            let full = UpdateFeaturesRequest::default().with_timeout_ms(9).with_feature_updates(vec![one]);
            vec![full.with_validate_only(version >= 1).into()]
        }
        ApiKey::UnregisterBroker => vec![UnregisterBrokerRequest::default().with_broker_id(BrokerId(7)).into()],
        ApiKey::ListPartitionReassignments => {
            use kafka_protocol::messages::list_partition_reassignments_request::*;
            let one = ListPartitionReassignmentsTopics::default();
            let one = one.with_name(topic("prices")).with_partition_indexes(vec![0, 7]);
            let full = ListPartitionReassignmentsRequest::default().with_timeout_ms(9).with_topics(Some(vec![one]));
            vec![full.clone().into(), full.with_topics(None).into()]
        }
        _ => {
            use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
            let one = PartitionData::default().with_partition_index(0);
            let metadata = TopicData::default().with_topic_name(topic("__cluster_metadata")).with_partitions(vec![one]);
            vec![DescribeQuorumRequest::default().with_topics(vec![metadata]).into()]
        }
    }
}
