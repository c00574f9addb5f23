//! Kafka's error codes, all of 4.x: number, name, whether the error is retriable, and a message.
//!
//! Numbers, names and retriability are Kafka's (its clients act on them); the messages are Ottla's.
//! May not know: which cause maps to which code; each crate's error type does that itself.

use std::fmt;

macro_rules! codes {
    ($($name:ident = $code:literal, $kafka:ident, $class:ident, $message:literal;)*) => {
        /// The error code of a response.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(i16)]
        #[allow(missing_docs)]
        pub enum ErrorCode {
            #[default]
            None = 0,
            $($name = $code,)*
        }

        impl ErrorCode {
            /// All codes, with success.
            pub const ALL: &[Self] = &[Self::None, $(Self::$name,)*];

            /// The code with this number.
            #[must_use]
            pub fn from_code(code: i16) -> Option<Self> {
                match code {
                    0 => Some(Self::None),
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name for it; also the label of metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Self::None => "NONE",
                    $(Self::$name => stringify!($kafka),)*
                }
            }

            /// The message.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self {
                    Self::None => "success",
                    $(Self::$name => $message,)*
                }
            }

            /// True if Kafka's clients treat it as transient and retry.
            #[must_use]
            pub fn is_retriable(self) -> bool {
                match self {
                    Self::None => false,
                    $(Self::$name => codes!(@ $class),)*
                }
            }
        }
    };
    (@ retriable) => { true };
    (@ final) => { false };
}

codes! {
    UnknownServerError = -1, UNKNOWN_SERVER_ERROR, final, "the server failed in a way it did not expect";
    OffsetOutOfRange = 1, OFFSET_OUT_OF_RANGE, final, "the offset lies outside what the partition holds";
    CorruptMessage = 2, CORRUPT_MESSAGE, retriable, "the batch is damaged: its checksum, its size or its structure is wrong";
    UnknownTopicOrPartition = 3, UNKNOWN_TOPIC_OR_PARTITION, retriable, "the topic or partition does not exist here";
    InvalidFetchSize = 4, INVALID_FETCH_SIZE, final, "the fetch size makes no sense";
    LeaderNotAvailable = 5, LEADER_NOT_AVAILABLE, retriable, "the partition has no leader at the moment";
    NotLeaderOrFollower = 6, NOT_LEADER_OR_FOLLOWER, retriable, "this node does not lead the partition, or carries no replica of it";
    RequestTimedOut = 7, REQUEST_TIMED_OUT, retriable, "the request was not finished in time";
    BrokerNotAvailable = 8, BROKER_NOT_AVAILABLE, final, "the broker cannot be reached";
    ReplicaNotAvailable = 9, REPLICA_NOT_AVAILABLE, retriable, "the replica cannot serve the partition at the moment";
    MessageTooLarge = 10, MESSAGE_TOO_LARGE, final, "the batch is larger than the topic allows";
    StaleControllerEpoch = 11, STALE_CONTROLLER_EPOCH, final, "the controller has moved on";
    OffsetMetadataTooLarge = 12, OFFSET_METADATA_TOO_LARGE, final, "the metadata of the committed offset is too long";
    NetworkException = 13, NETWORK_EXCEPTION, retriable, "the connection broke before the answer came";
    CoordinatorLoadInProgress = 14, COORDINATOR_LOAD_IN_PROGRESS, retriable, "the coordinator is not ready yet";
    CoordinatorNotAvailable = 15, COORDINATOR_NOT_AVAILABLE, retriable, "the coordinator cannot be reached at the moment";
    NotCoordinator = 16, NOT_COORDINATOR, retriable, "another node coordinates this group or transaction";
    InvalidTopic = 17, INVALID_TOPIC_EXCEPTION, final, "the topic's name is not valid, or the topic may not be used like this";
    RecordListTooLarge = 18, RECORD_LIST_TOO_LARGE, final, "the batch is larger than a segment";
    NotEnoughReplicas = 19, NOT_ENOUGH_REPLICAS, retriable, "too few replicas are in sync; nothing was written";
    NotEnoughReplicasAfterAppend = 20, NOT_ENOUGH_REPLICAS_AFTER_APPEND, retriable, "the batch was written, but to too few replicas in sync";
    InvalidRequiredAcks = 21, INVALID_REQUIRED_ACKS, final, "acks must be -1, 0 or 1";
    IllegalGeneration = 22, ILLEGAL_GENERATION, final, "the group has moved to another generation";
    InconsistentGroupProtocol = 23, INCONSISTENT_GROUP_PROTOCOL, final, "the member shares no protocol with the group, or brought none";
    InvalidGroupId = 24, INVALID_GROUP_ID, final, "the group id is not valid";
    UnknownMemberId = 25, UNKNOWN_MEMBER_ID, final, "the group does not know this member";
    InvalidSessionTimeout = 26, INVALID_SESSION_TIMEOUT, final, "the session timeout lies outside what the broker allows";
    RebalanceInProgress = 27, REBALANCE_IN_PROGRESS, final, "the group is rebalancing; join again";
    InvalidCommitOffsetSize = 28, INVALID_COMMIT_OFFSET_SIZE, final, "the commit is too large";
    TopicAuthorizationFailed = 29, TOPIC_AUTHORIZATION_FAILED, final, "not authorised for the topic";
    GroupAuthorizationFailed = 30, GROUP_AUTHORIZATION_FAILED, final, "not authorised for the group";
    ClusterAuthorizationFailed = 31, CLUSTER_AUTHORIZATION_FAILED, final, "not authorised for the cluster";
    InvalidTimestamp = 32, INVALID_TIMESTAMP, final, "the timestamp lies outside what the topic allows";
    UnsupportedSaslMechanism = 33, UNSUPPORTED_SASL_MECHANISM, final, "the SASL mechanism is not enabled";
    IllegalSaslState = 34, ILLEGAL_SASL_STATE, final, "the request is not allowed at this point of authentication";
    UnsupportedVersion = 35, UNSUPPORTED_VERSION, final, "this version of the request is not supported";
    TopicAlreadyExists = 36, TOPIC_ALREADY_EXISTS, final, "a topic of this name exists";
    InvalidPartitions = 37, INVALID_PARTITIONS, final, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, INVALID_REPLICATION_FACTOR, final, "the replication factor is below 1 or above the number of brokers";
    InvalidReplicaAssignment = 39, INVALID_REPLICA_ASSIGNMENT, final, "the replica assignment is not valid";
    InvalidConfig = 40, INVALID_CONFIG, final, "the configuration is not valid";
    NotController = 41, NOT_CONTROLLER, retriable, "another node is the controller";
    InvalidRequest = 42, INVALID_REQUEST, final, "the request contradicts itself";
    UnsupportedForMessageFormat = 43, UNSUPPORTED_FOR_MESSAGE_FORMAT, final, "the message format does not allow this";
    PolicyViolation = 44, POLICY_VIOLATION, final, "the request breaks a policy of this cluster";
    OutOfOrderSequenceNumber = 45, OUT_OF_ORDER_SEQUENCE_NUMBER, final, "a batch of this producer is missing before this one";
    DuplicateSequenceNumber = 46, DUPLICATE_SEQUENCE_NUMBER, final, "a batch with this sequence was appended long ago";
    InvalidProducerEpoch = 47, INVALID_PRODUCER_EPOCH, final, "the producer's epoch is old";
    InvalidTxnState = 48, INVALID_TXN_STATE, final, "the transaction's state does not allow this";
    InvalidProducerIdMapping = 49, INVALID_PRODUCER_ID_MAPPING, final, "the producer id does not belong to the transactional id";
    InvalidTransactionTimeout = 50, INVALID_TRANSACTION_TIMEOUT, final, "the transaction timeout is above what the broker allows";
    ConcurrentTransactions = 51, CONCURRENT_TRANSACTIONS, retriable, "another operation on this transaction is under way";
    TransactionCoordinatorFenced = 52, TRANSACTION_COORDINATOR_FENCED, final, "the marker came from an old transaction coordinator";
    TransactionalIdAuthorizationFailed = 53, TRANSACTIONAL_ID_AUTHORIZATION_FAILED, final, "not authorised for the transactional id";
    SecurityDisabled = 54, SECURITY_DISABLED, final, "security features are switched off";
    OperationNotAttempted = 55, OPERATION_NOT_ATTEMPTED, final, "the operation was not tried because another one failed";
    KafkaStorageError = 56, KAFKA_STORAGE_ERROR, retriable, "the disk failed";
    LogDirNotFound = 57, LOG_DIR_NOT_FOUND, final, "the node has no such log directory";
    SaslAuthenticationFailed = 58, SASL_AUTHENTICATION_FAILED, final, "authentication failed";
    UnknownProducerId = 59, UNKNOWN_PRODUCER_ID, final, "nothing is known of the producer any more";
    ReassignmentInProgress = 60, REASSIGNMENT_IN_PROGRESS, final, "the partition is being reassigned";
    DelegationTokenAuthDisabled = 61, DELEGATION_TOKEN_AUTH_DISABLED, final, "delegation tokens are switched off";
    DelegationTokenNotFound = 62, DELEGATION_TOKEN_NOT_FOUND, final, "there is no such delegation token";
    DelegationTokenOwnerMismatch = 63, DELEGATION_TOKEN_OWNER_MISMATCH, final, "the delegation token belongs to somebody else";
    DelegationTokenRequestNotAllowed = 64, DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, final, "delegation tokens cannot be requested over this connection";
    DelegationTokenAuthorizationFailed = 65, DELEGATION_TOKEN_AUTHORIZATION_FAILED, final, "not authorised for the delegation token";
    DelegationTokenExpired = 66, DELEGATION_TOKEN_EXPIRED, final, "the delegation token has expired";
    InvalidPrincipalType = 67, INVALID_PRINCIPAL_TYPE, final, "the type of principal is not supported";
    NonEmptyGroup = 68, NON_EMPTY_GROUP, final, "the group has members";
    GroupIdNotFound = 69, GROUP_ID_NOT_FOUND, final, "the group does not exist";
    FetchSessionIdNotFound = 70, FETCH_SESSION_ID_NOT_FOUND, retriable, "the fetch session is gone";
    InvalidFetchSessionEpoch = 71, INVALID_FETCH_SESSION_EPOCH, retriable, "the fetch session's epoch is not the next one";
    ListenerNotFound = 72, LISTENER_NOT_FOUND, retriable, "the leader has no listener of this name";
    TopicDeletionDisabled = 73, TOPIC_DELETION_DISABLED, final, "topics cannot be deleted here";
    FencedLeaderEpoch = 74, FENCED_LEADER_EPOCH, retriable, "the client's leader epoch is older than the broker's";
    UnknownLeaderEpoch = 75, UNKNOWN_LEADER_EPOCH, retriable, "the client's leader epoch is newer than the broker's";
    UnsupportedCompressionType = 76, UNSUPPORTED_COMPRESSION_TYPE, final, "the compression is not supported, or not in this version";
    StaleBrokerEpoch = 77, STALE_BROKER_EPOCH, final, "the broker's epoch has changed";
    OffsetNotAvailable = 78, OFFSET_NOT_AVAILABLE, retriable, "the replica cannot answer for this offset yet";
    MemberIdRequired = 79, MEMBER_ID_REQUIRED, final, "join again with the member id that was given";
    PreferredLeaderNotAvailable = 80, PREFERRED_LEADER_NOT_AVAILABLE, retriable, "the preferred leader cannot be reached";
    GroupMaxSizeReached = 81, GROUP_MAX_SIZE_REACHED, final, "the group is full";
    FencedInstanceId = 82, FENCED_INSTANCE_ID, final, "another member uses this group instance id";
    EligibleLeadersNotAvailable = 83, ELIGIBLE_LEADERS_NOT_AVAILABLE, retriable, "no replica may become leader";
    ElectionNotNeeded = 84, ELECTION_NOT_NEEDED, retriable, "the partition needs no election";
    NoReassignmentInProgress = 85, NO_REASSIGNMENT_IN_PROGRESS, final, "the partition is not being reassigned";
    GroupSubscribedToTopic = 86, GROUP_SUBSCRIBED_TO_TOPIC, final, "the group is subscribed to the topic";
    InvalidRecord = 87, INVALID_RECORD, final, "a record or its batch is not valid";
    UnstableOffsetCommit = 88, UNSTABLE_OFFSET_COMMIT, retriable, "a transaction with offsets is still open";
    ThrottlingQuotaExceeded = 89, THROTTLING_QUOTA_EXCEEDED, retriable, "the quota is used up";
    ProducerFenced = 90, PRODUCER_FENCED, final, "a newer producer uses this transactional id";
    ResourceNotFound = 91, RESOURCE_NOT_FOUND, final, "the resource does not exist";
    DuplicateResource = 92, DUPLICATE_RESOURCE, final, "the request names a resource twice";
    UnacceptableCredential = 93, UNACCEPTABLE_CREDENTIAL, final, "the credential is not good enough";
    InconsistentVoterSet = 94, INCONSISTENT_VOTER_SET, final, "sender and receiver disagree about the voters";
    InvalidUpdateVersion = 95, INVALID_UPDATE_VERSION, final, "the version of the update is not valid";
    FeatureUpdateFailed = 96, FEATURE_UPDATE_FAILED, final, "the feature could not be updated";
    PrincipalDeserializationFailure = 97, PRINCIPAL_DESERIALIZATION_FAILURE, final, "the forwarded principal cannot be read";
    SnapshotNotFound = 98, SNAPSHOT_NOT_FOUND, final, "there is no such snapshot";
    PositionOutOfRange = 99, POSITION_OUT_OF_RANGE, final, "the position lies outside the snapshot";
    UnknownTopicId = 100, UNKNOWN_TOPIC_ID, retriable, "the topic id is not known here";
    DuplicateBrokerRegistration = 101, DUPLICATE_BROKER_REGISTRATION, final, "the broker id is in use";
    BrokerIdNotRegistered = 102, BROKER_ID_NOT_REGISTERED, final, "the broker id is not registered";
    InconsistentTopicId = 103, INCONSISTENT_TOPIC_ID, retriable, "the topic id is not the one of this log";
    InconsistentClusterId = 104, INCONSISTENT_CLUSTER_ID, final, "the cluster id is another one";
    TransactionalIdNotFound = 105, TRANSACTIONAL_ID_NOT_FOUND, final, "the transactional id does not exist";
    FetchSessionTopicIdError = 106, FETCH_SESSION_TOPIC_ID_ERROR, retriable, "the fetch session mixes topic ids and names";
    IneligibleReplica = 107, INELIGIBLE_REPLICA, final, "a replica may not be in sync";
    NewLeaderElected = 108, NEW_LEADER_ELECTED, final, "the partition was changed and has a new leader";
    OffsetMovedToTieredStorage = 109, OFFSET_MOVED_TO_TIERED_STORAGE, final, "the offset lies in tiered storage";
    FencedMemberEpoch = 110, FENCED_MEMBER_EPOCH, final, "the member's epoch is fenced; give up all partitions and join again";
    UnreleasedInstanceId = 111, UNRELEASED_INSTANCE_ID, final, "the instance id is still in use by another member";
    UnsupportedAssignor = 112, UNSUPPORTED_ASSIGNOR, final, "the group does not support the assignor";
    StaleMemberEpoch = 113, STALE_MEMBER_EPOCH, final, "the member's epoch is old; retry with the next heartbeat's";
    MismatchedEndpointType = 114, MISMATCHED_ENDPOINT_TYPE, final, "the request came to the wrong kind of endpoint";
    UnsupportedEndpointType = 115, UNSUPPORTED_ENDPOINT_TYPE, final, "this kind of endpoint is not supported";
    UnknownControllerId = 116, UNKNOWN_CONTROLLER_ID, final, "there is no such controller";
    UnknownSubscriptionId = 117, UNKNOWN_SUBSCRIPTION_ID, final, "the telemetry subscription is not valid or old";
    TelemetryTooLarge = 118, TELEMETRY_TOO_LARGE, final, "the telemetry is too large";
    InvalidRegistration = 119, INVALID_REGISTRATION, final, "the registration is not valid";
    TransactionAbortable = 120, TRANSACTION_ABORTABLE, final, "the transaction failed; abort it and go on";
    InvalidRecordState = 121, INVALID_RECORD_STATE, final, "the record's state does not allow the acknowledgement";
    ShareSessionNotFound = 122, SHARE_SESSION_NOT_FOUND, retriable, "the share session is gone";
    InvalidShareSessionEpoch = 123, INVALID_SHARE_SESSION_EPOCH, retriable, "the share session's epoch is not the next one";
    FencedStateEpoch = 124, FENCED_STATE_EPOCH, final, "the share group's state has moved on";
    InvalidVoterKey = 125, INVALID_VOTER_KEY, final, "the voter's key is not that of this replica";
    DuplicateVoter = 126, DUPLICATE_VOTER, final, "the voter is in the set already";
    VoterNotFound = 127, VOTER_NOT_FOUND, final, "the voter is not in the set";
    InvalidRegularExpression = 128, INVALID_REGULAR_EXPRESSION, final, "the regular expression is not valid";
    RebootstrapRequired = 129, REBOOTSTRAP_REQUIRED, final, "the client's metadata is too old; start again from the bootstrap servers";
    StreamsInvalidTopology = 130, STREAMS_INVALID_TOPOLOGY, final, "the topology is not valid";
    StreamsInvalidTopologyEpoch = 131, STREAMS_INVALID_TOPOLOGY_EPOCH, final, "the topology's epoch is not valid";
    StreamsTopologyFenced = 132, STREAMS_TOPOLOGY_FENCED, final, "the topology's epoch is old";
    ShareSessionLimitReached = 133, SHARE_SESSION_LIMIT_REACHED, retriable, "no more share sessions";
    GroupDeletionFailed = 134, GROUP_DELETION_FAILED, final, "the group was not deleted";
    StreamsTopologyDescriptionUpdateFailed = 135, STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED, final, "the topology's description was not taken";
    ControllerIdNotRegistered = 136, CONTROLLER_ID_NOT_REGISTERED, final, "the controller id is not registered";
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// True unless it is success.
    #[must_use]
    pub fn is_error(self) -> bool {
        self != Self::None
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name(), self.code(), self.message())
    }
}

impl std::error::Error for ErrorCode {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_kafka_4_has_one_name() {
        assert_eq!(ErrorCode::ALL.len(), 138);
        for code in -1..=136 {
            let error = ErrorCode::from_code(code).unwrap();
            assert_eq!(error.code(), code);
            assert!(ErrorCode::ALL.contains(&error));
            assert!(!error.message().is_empty());
        }
        assert_eq!(ErrorCode::from_code(137), None);
        assert_eq!(ErrorCode::from_code(-2), None);
    }

    /// The crate's table is older than 4.2, but where it has a code, name and class must agree.
    /// CONCURRENT_TRANSACTIONS became retriable in Kafka 3.9 (KIP-890).
    #[test]
    fn names_and_classes_agree_with_the_kafka_protocol_crate() {
        for error in ErrorCode::ALL {
            if error.code() > 118 {
                continue;
            }
            let Some(theirs) = kafka_protocol::ResponseError::try_from_code(error.code()) else {
                assert_eq!(*error, ErrorCode::None);
                continue;
            };
            let plain = |name: &str| name.replace('_', "").to_lowercase();
            assert_eq!(
                plain(error.name()).trim_end_matches("exception"),
                plain(&theirs.to_string()).trim_end_matches("exception")
            );
            if *error != ErrorCode::ConcurrentTransactions {
                assert_eq!(error.is_retriable(), theirs.is_retriable(), "{error}");
            }
        }
    }
}
