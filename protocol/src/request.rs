//! Every request that is served, as one enum, and its decoding.
//!
//! A frame is checked in this order: head (8 bytes), API and version against the one table, schema walk
//! that bounds every length (see `schema`), then decoding. kafka-protocol allocates from the wire's
//! lengths, so it decodes nothing that the walk has not accepted. May not know: what a request means.

use bytes::Bytes;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest,
    AlterReplicaLogDirsRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteAclsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeAclsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeTransactionsRequest, ElectLeadersRequest,
    EndTxnRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest, OffsetDeleteRequest,
    OffsetForLeaderEpochRequest, SaslHandshakeRequest, SyncGroupRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};
use kafka_protocol::protocol::Decodable;

use crate::fetch::FetchRequest;
use crate::header::{self, FixedHead, RequestHeader};
use crate::messages::{
    ApiVersionsRequest, OffsetCommitRequest, OffsetFetchRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
};
use crate::produce::ProduceRequest;
use crate::schema;
use crate::versions::ApiKey;
use crate::wire::WireError;

/// Why a frame is not a request that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// ApiVersions in an unknown version: respond with a version 0 body with UNSUPPORTED_VERSION (35) and the version
    /// table, and keep the connection (KIP-511).
    #[error("unknown version {version} of ApiVersions")]
    ApiVersionsTooNew {
        /// The requested version.
        version: i16,
        /// Repeated in the response.
        correlation_id: i32,
    },
    /// An API that is not served: close.
    #[error("unknown API key {api_key}")]
    UnknownApi {
        /// The requested number.
        api_key: i16,
    },
    /// A version outside the table: close.
    #[error("version {version} of {} is not served", api_key.name())]
    UnsupportedVersion {
        /// The API.
        api_key: ApiKey,
        /// The requested version.
        version: i16,
    },
    /// A length, tag or string that contradicts the frame: close.
    #[error("malformed {}: {cause}", api_key.map_or("header", ApiKey::name))]
    Malformed {
        /// The API, if the head was readable.
        api_key: Option<ApiKey>,
        /// What is wrong.
        cause: WireError,
    },
    /// The walk accepted what the decoder refuses, e.g. null where null has no meaning: close.
    #[error("undecodable {} v{version}", api_key.name())]
    Undecodable {
        /// The API.
        api_key: ApiKey,
        /// The requested version.
        version: i16,
    },
}

/// Decodes one frame (without its length prefix).
///
/// The records of a Produce request stay slices of the frame. Every other request gets a copy of its frame first:
/// names, member ids and metadata are kept for hours by groups and sessions, and as slices of the connection's
/// buffer each would keep all of that buffer alive.
pub fn decode(frame: Bytes) -> Result<(RequestHeader, Request), RequestError> {
    let head = FixedHead::parse(&frame).map_err(|cause| RequestError::Malformed { api_key: None, cause })?;
    let Some(api_key) = ApiKey::from_code(head.api_key) else {
        return Err(RequestError::UnknownApi { api_key: head.api_key });
    };
    let FixedHead { version, correlation_id, .. } = head;
    if !api_key.range().serves(version) {
        return Err(match api_key {
            ApiKey::ApiVersions => RequestError::ApiVersionsTooNew { version, correlation_id },
            _ => RequestError::UnsupportedVersion { api_key, version },
        });
    }
    let frame = if api_key == ApiKey::Produce { frame } else { Bytes::copy_from_slice(&frame) };
    let malformed = |cause| RequestError::Malformed { api_key: Some(api_key), cause };
    let header_version = api_key.request_header_version(version);
    let (client_id, header_length) = header::parse_rest(&frame, header_version).map_err(malformed)?;
    let request = Request::decode_body(api_key, version, frame.slice(header_length..))?;
    if has_null_too_early(&request, version) {
        return Err(RequestError::Undecodable { api_key, version });
    }
    Ok((RequestHeader { api_key, version, correlation_id, client_id }, request))
}

/// True where the codec accepts a null that the version does not have yet: a topic of Metadata has a name before v10.
fn has_null_too_early(request: &Request, version: i16) -> bool {
    match request {
        Request::Metadata(request) if version < 10 => request.topics.iter().flatten().any(|topic| topic.name.is_none()),
        _ => false,
    }
}

macro_rules! requests {
    ($($api:ident($type:ty) $(as up to $newest:literal)?,)*) => {
        /// A decoded request: Produce and Fetch in our own types, the rest in kafka-protocol's, or in those of [`crate::messages`].
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Request {
            Produce(ProduceRequest),
            Fetch(FetchRequest),
            $($api($type),)*
        }

        $(impl From<$type> for Request {
            fn from(request: $type) -> Self {
                Self::$api(request)
            }
        })*

        impl Request {
            /// The API that this request belongs to.
            #[must_use]
            pub fn api_key(&self) -> ApiKey {
                match self {
                    Self::Produce(_) => ApiKey::Produce,
                    Self::Fetch(_) => ApiKey::Fetch,
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            /// Decodes a body of a served version.
            pub fn decode_body(api_key: ApiKey, version: i16, body: Bytes) -> Result<Self, RequestError> {
                let malformed = |cause| RequestError::Malformed { api_key: Some(api_key), cause };
                match api_key {
                    ApiKey::Produce => ProduceRequest::decode(version, &body).map(Self::Produce).map_err(malformed),
                    ApiKey::Fetch => FetchRequest::decode(version, &body).map(Self::Fetch).map_err(malformed),
                    $(ApiKey::$api => {
                        let length = schema::walk(api_key, version, &body).map_err(malformed)?;
                        checked::<$type>(api_key, codec_version(api_key, version), body.slice(..length)).map(Self::$api)
                    })*
                }
            }
        }

        /// The version to encode or decode a request by: kafka-protocol does not know some that have the bytes of the one before.
        pub(crate) fn codec_version(api_key: ApiKey, version: i16) -> i16 {
            match api_key {
                ApiKey::Produce | ApiKey::Fetch => version,
                $(ApiKey::$api => version$(.min($newest))?,)*
            }
        }
    };
}

requests! {
    ListOffsets(ListOffsetsRequest) as up to 10,
    Metadata(MetadataRequest),
    OffsetCommit(OffsetCommitRequest),
    OffsetFetch(OffsetFetchRequest),
    FindCoordinator(FindCoordinatorRequest),
    JoinGroup(JoinGroupRequest),
    Heartbeat(HeartbeatRequest),
    LeaveGroup(LeaveGroupRequest),
    SyncGroup(SyncGroupRequest),
    DescribeGroups(DescribeGroupsRequest),
    ListGroups(ListGroupsRequest),
    SaslHandshake(SaslHandshakeRequest),
    ApiVersions(ApiVersionsRequest),
    CreateTopics(CreateTopicsRequest),
    DeleteTopics(DeleteTopicsRequest),
    DeleteRecords(DeleteRecordsRequest),
    InitProducerId(InitProducerIdRequest),
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest),
    AddPartitionsToTxn(AddPartitionsToTxnRequest),
    AddOffsetsToTxn(AddOffsetsToTxnRequest),
    EndTxn(EndTxnRequest),
    WriteTxnMarkers(WriteTxnMarkersRequest),
    TxnOffsetCommit(TxnOffsetCommitRequest),
    DescribeAcls(DescribeAclsRequest),
    CreateAcls(CreateAclsRequest),
    DeleteAcls(DeleteAclsRequest),
    DescribeConfigs(DescribeConfigsRequest),
    AlterConfigs(AlterConfigsRequest),
    AlterReplicaLogDirs(AlterReplicaLogDirsRequest),
    DescribeLogDirs(DescribeLogDirsRequest) as up to 4,
    CreatePartitions(CreatePartitionsRequest),
    DeleteGroups(DeleteGroupsRequest) as up to 2,
    ElectLeaders(ElectLeadersRequest),
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest),
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest),
    ListPartitionReassignments(ListPartitionReassignmentsRequest),
    OffsetDelete(OffsetDeleteRequest),
    DescribeQuorum(DescribeQuorumRequest),
    UpdateFeatures(UpdateFeaturesRequest),
    DescribeCluster(DescribeClusterRequest),
    DescribeProducers(DescribeProducersRequest),
    UnregisterBroker(UnregisterBrokerRequest),
    DescribeTransactions(DescribeTransactionsRequest),
    ListTransactions(ListTransactionsRequest),
    ListConfigResources(ListConfigResourcesRequest),
    DescribeTopicPartitions(DescribeTopicPartitionsRequest),
}

/// Decodes exactly what the walk has accepted.
fn checked<T: Decodable>(api_key: ApiKey, version: i16, mut body: Bytes) -> Result<T, RequestError> {
    match T::decode(&mut body, version) {
        Ok(request) if body.is_empty() => Ok(request),
        _ => Err(RequestError::Undecodable { api_key, version }),
    }
}
