//! The schema of every request that kafka-protocol decodes, field by field and version by version.
//!
//! Fields stand in the order of the wire; tags need no entry, because all of them are skipped. A test encodes
//! every request in every version and checks that the walk ends exactly at the last byte.

use super::{Field, Kind};
use crate::versions::ApiKey;

const I8: Field = Field::new(Kind::Fixed(1));
const BOOL: Field = Field::new(Kind::Fixed(1));
const I16: Field = Field::new(Kind::Fixed(2));
const I32: Field = Field::new(Kind::Fixed(4));
const I64: Field = Field::new(Kind::Fixed(8));
const UUID: Field = Field::new(Kind::Fixed(16));
const TEXT: Field = Field::new(Kind::Text);
const BLOB: Field = Field::new(Kind::Blob);
const I8S: Field = Field::new(Kind::Each(&Kind::Fixed(1)));
const I32S: Field = Field::new(Kind::Each(&Kind::Fixed(4)));
const TEXTS: Field = Field::new(Kind::Each(&Kind::Text));

const fn structs(fields: &'static [Field]) -> Field {
    Field::new(Kind::Structs(fields))
}

/// The shape of this request; empty for the two that are decoded by hand.
pub(super) fn schema(api_key: ApiKey) -> &'static [Field] {
    match api_key {
        ApiKey::Produce | ApiKey::Fetch => &[],
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::DescribeGroups => DESCRIBE_GROUPS,
        ApiKey::ListGroups => LIST_GROUPS,
        ApiKey::SaslHandshake => SASL_HANDSHAKE,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::DeleteRecords => DELETE_RECORDS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => OFFSET_FOR_LEADER_EPOCH,
        ApiKey::AddPartitionsToTxn => ADD_PARTITIONS_TO_TXN,
        ApiKey::AddOffsetsToTxn => ADD_OFFSETS_TO_TXN,
        ApiKey::EndTxn => END_TXN,
        ApiKey::WriteTxnMarkers => WRITE_TXN_MARKERS,
        ApiKey::TxnOffsetCommit => TXN_OFFSET_COMMIT,
        ApiKey::DescribeAcls => ACL_FILTER,
        ApiKey::CreateAcls => CREATE_ACLS,
        ApiKey::DeleteAcls => DELETE_ACLS,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        ApiKey::AlterConfigs => ALTER_CONFIGS,
        ApiKey::AlterReplicaLogDirs => ALTER_REPLICA_LOG_DIRS,
        ApiKey::DescribeLogDirs => DESCRIBE_LOG_DIRS,
        ApiKey::CreatePartitions => CREATE_PARTITIONS,
        ApiKey::DeleteGroups => DELETE_GROUPS,
        ApiKey::ElectLeaders => ELECT_LEADERS,
        ApiKey::IncrementalAlterConfigs => INCREMENTAL_ALTER_CONFIGS,
        ApiKey::AlterPartitionReassignments => ALTER_PARTITION_REASSIGNMENTS,
        ApiKey::ListPartitionReassignments => LIST_PARTITION_REASSIGNMENTS,
        ApiKey::OffsetDelete => OFFSET_DELETE,
        ApiKey::DescribeQuorum => DESCRIBE_QUORUM,
        ApiKey::UpdateFeatures => UPDATE_FEATURES,
        ApiKey::DescribeCluster => DESCRIBE_CLUSTER,
        ApiKey::DescribeProducers => DESCRIBE_PRODUCERS,
        ApiKey::UnregisterBroker => UNREGISTER_BROKER,
        ApiKey::DescribeTransactions => DESCRIBE_TRANSACTIONS,
        ApiKey::ListTransactions => LIST_TRANSACTIONS,
        ApiKey::ListConfigResources => LIST_CONFIG_RESOURCES,
        ApiKey::DescribeTopicPartitions => DESCRIBE_TOPIC_PARTITIONS,
    }
}

// Replica id, isolation, topics (name, partitions (index, leader epoch, timestamp)), timeout.
const LIST_OFFSETS: &[Field] = &[I32, I8.since(2), structs(&[TEXT, structs(&[I32, I32.since(4), I64])]), I32.since(10)];

// Topics (id, name), auto-create, authorized operations of the cluster and of topics.
const METADATA: &[Field] = &[structs(&[UUID.since(10), TEXT]), BOOL.since(4), BOOL.since(8).until(10), BOOL.since(8)];

// Group, generation, member, instance, retention, topics (name or id, partitions (index, offset, epoch, metadata)).
const OFFSET_COMMIT: &[Field] = &[
    TEXT,
    I32,
    TEXT,
    TEXT.since(7),
    I64.until(4),
    structs(&[TEXT.until(9), UUID.since(10), structs(&[I32, I64, I32.since(6), TEXT])]),
];

// Group, topics (name, indexes); from v8 groups (id, member, epoch, topics (name or id, indexes)); require stable.
const OFFSET_FETCH: &[Field] = &[
    TEXT.until(7),
    structs(&[TEXT, I32S]).until(7),
    structs(&[TEXT, TEXT.since(9), I32.since(9), structs(&[TEXT.until(9), UUID.since(10), I32S])]).since(8),
    BOOL.since(7),
];

const FIND_COORDINATOR: &[Field] = &[TEXT.until(3), I8.since(1), TEXTS.since(4)];

// Group, two timeouts, member, instance, protocol type, protocols (name, metadata), reason.
const JOIN_GROUP: &[Field] =
    &[TEXT, I32, I32.since(1), TEXT, TEXT.since(5), TEXT, structs(&[TEXT, BLOB]), TEXT.since(8)];

const HEARTBEAT: &[Field] = &[TEXT, I32, TEXT, TEXT.since(3)];

// Group, member; from v3 members (id, instance, reason).
const LEAVE_GROUP: &[Field] = &[TEXT, TEXT.until(2), structs(&[TEXT, TEXT, TEXT.since(5)]).since(3)];

// Group, generation, member, instance, protocol type and name, assignments (member, assignment).
const SYNC_GROUP: &[Field] = &[TEXT, I32, TEXT, TEXT.since(3), TEXT.since(5), TEXT.since(5), structs(&[TEXT, BLOB])];

const DESCRIBE_GROUPS: &[Field] = &[TEXTS, BOOL.since(3)];

const LIST_GROUPS: &[Field] = &[TEXTS.since(4), TEXTS.since(5)];

// Mechanism.
const SASL_HANDSHAKE: &[Field] = &[TEXT];

// Name and version of the client's software, cluster, node.
const API_VERSIONS: &[Field] = &[TEXT.since(3), TEXT.since(3), TEXT.since(5), I32.since(5)];

// Topics (name, partitions, factor, assignments (index, brokers), configs (name, value)), timeout, validate only.
const CREATE_TOPICS: &[Field] = &[structs(&[TEXT, I32, I16, structs(&[I32, I32S]), structs(&[TEXT, TEXT])]), I32, BOOL];

// From v6 topics (name, id), before names; timeout.
const DELETE_TOPICS: &[Field] = &[structs(&[TEXT, UUID]).since(6), TEXTS.until(5), I32];

const DELETE_RECORDS: &[Field] = &[structs(&[TEXT, structs(&[I32, I64])]), I32];

const INIT_PRODUCER_ID: &[Field] = &[TEXT, I32, I64.since(3), I16.since(3)];

// Replica id, topics (name, partitions (index, current epoch, epoch)).
const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[I32.since(3), structs(&[TEXT, structs(&[I32, I32, I32])])];

// From v4 transactions (id, producer, epoch, verify only, topics (name, partitions)); before it one of them.
const ADD_PARTITIONS_TO_TXN: &[Field] = &[
    structs(&[TEXT, I64, I16, BOOL, structs(&[TEXT, I32S])]).since(4),
    TEXT.until(3),
    I64.until(3),
    I16.until(3),
    structs(&[TEXT, I32S]).until(3),
];

// Id, producer, epoch, group.
const ADD_OFFSETS_TO_TXN: &[Field] = &[TEXT, I64, I16, TEXT];

// Id, producer, epoch, committed.
const END_TXN: &[Field] = &[TEXT, I64, I16, BOOL];

// Markers (producer, epoch, committed, topics (name, partitions), coordinator's epoch).
const WRITE_TXN_MARKERS: &[Field] = &[structs(&[I64, I16, BOOL, structs(&[TEXT, I32S]), I32, I8.since(2)])];

// Id, group, producer, epoch, generation, member, instance, topics (name, partitions (index, offset, epoch, metadata)).
const TXN_OFFSET_COMMIT: &[Field] = &[
    TEXT,
    TEXT,
    I64,
    I16,
    I32.since(3),
    TEXT.since(3),
    TEXT.since(3),
    structs(&[TEXT.until(5), UUID.since(6), structs(&[I32, I64, I32.since(2), TEXT])]),
];

// Resource type and name, pattern type, principal, host, operation, permission.
const ACL_FILTER: &[Field] = &[I8, TEXT, I8, TEXT, TEXT, I8, I8];

// Creations, each with the fields of a filter.
const CREATE_ACLS: &[Field] = &[structs(ACL_FILTER)];

const DELETE_ACLS: &[Field] = &[structs(ACL_FILTER)];

// Resources (type, name, keys), synonyms, documentation.
const DESCRIBE_CONFIGS: &[Field] = &[structs(&[I8, TEXT, TEXTS]), BOOL, BOOL.since(3)];

// Resources (type, name, configs (name, value)), validate only.
const ALTER_CONFIGS: &[Field] = &[structs(&[I8, TEXT, structs(&[TEXT, TEXT])]), BOOL];

// Directories (path, topics (name, partitions)).
const ALTER_REPLICA_LOG_DIRS: &[Field] = &[structs(&[TEXT, structs(&[TEXT, I32S])])];

const DESCRIBE_LOG_DIRS: &[Field] = &[structs(&[TEXT, I32S])];

// Topics (name, count, assignments (brokers)), timeout, validate only.
const CREATE_PARTITIONS: &[Field] = &[structs(&[TEXT, I32, structs(&[I32S])]), I32, BOOL];

const DELETE_GROUPS: &[Field] = &[TEXTS];

// Kind of election, topics (name, partitions), timeout.
const ELECT_LEADERS: &[Field] = &[I8.since(1), structs(&[TEXT, I32S]), I32];

// Resources (type, name, configs (name, operation, value)), validate only.
const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[structs(&[I8, TEXT, structs(&[TEXT, I8, TEXT])]), BOOL];

// Timeout, another factor allowed, topics (name, partitions (index, replicas)).
const ALTER_PARTITION_REASSIGNMENTS: &[Field] = &[I32, BOOL.since(1), structs(&[TEXT, structs(&[I32, I32S])])];

// Timeout, topics (name, partitions).
const LIST_PARTITION_REASSIGNMENTS: &[Field] = &[I32, structs(&[TEXT, I32S])];

const OFFSET_DELETE: &[Field] = &[TEXT, structs(&[TEXT, structs(&[I32])])];

// Topics (name, partitions (index)).
const DESCRIBE_QUORUM: &[Field] = &[structs(&[TEXT, structs(&[I32])])];

// Timeout, features (name, level, whether it may be lower, kind of change), validate only.
const UPDATE_FEATURES: &[Field] = &[I32, structs(&[TEXT, I16, BOOL.until(0), I8.since(1)]), BOOL.since(1)];

const DESCRIBE_CLUSTER: &[Field] = &[BOOL, I8.since(1), BOOL.since(2)];

const DESCRIBE_PRODUCERS: &[Field] = &[structs(&[TEXT, I32S])];

const UNREGISTER_BROKER: &[Field] = &[I32];

const DESCRIBE_TRANSACTIONS: &[Field] = &[TEXTS];

// States, producer ids, duration, pattern.
const LIST_TRANSACTIONS: &[Field] = &[TEXTS, Field::new(Kind::Each(&Kind::Fixed(8))), I64.since(1), TEXT.since(2)];

const LIST_CONFIG_RESOURCES: &[Field] = &[I8S.since(1)];

// Topics (name), limit, cursor (name, index).
const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[structs(&[TEXT]), I32, Field::new(Kind::Optional(&[TEXT, I32]))];
