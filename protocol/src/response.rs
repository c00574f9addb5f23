//! Every response, as one enum, and its encoding with length prefix and header.
//!
//!     0        4                8
//!     | length | correlation id | tags (header v1) | body ...
//!
//! May not know: what a response means. A field that a version lacks must hold its default when the
//! codec refuses to drop it, so handlers gate by version; such a slip is an [`EncodeError`], not a panic.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, AlterConfigsResponse, AlterPartitionReassignmentsResponse,
    AlterReplicaLogDirsResponse, ApiVersionsResponse, CreateAclsResponse, CreatePartitionsResponse,
    CreateTopicsResponse, DeleteAclsResponse, DeleteRecordsResponse, DeleteTopicsResponse, DescribeAclsResponse,
    DescribeClusterResponse, DescribeConfigsResponse, DescribeGroupsResponse, DescribeProducersResponse,
    DescribeQuorumResponse, DescribeTopicPartitionsResponse, DescribeTransactionsResponse, ElectLeadersResponse,
    EndTxnResponse, FindCoordinatorResponse, HeartbeatResponse, IncrementalAlterConfigsResponse,
    InitProducerIdResponse, JoinGroupResponse, LeaveGroupResponse, ListConfigResourcesResponse, ListGroupsResponse,
    ListOffsetsResponse, ListPartitionReassignmentsResponse, ListTransactionsResponse, MetadataResponse,
    OffsetCommitResponse, OffsetDeleteResponse, OffsetFetchResponse, OffsetForLeaderEpochResponse,
    SaslHandshakeResponse, SyncGroupResponse, UnregisterBrokerResponse, UpdateFeaturesResponse,
    WriteTxnMarkersResponse, api_versions_response::ApiVersion,
};
use kafka_protocol::protocol::Encodable;

use crate::error::ErrorCode;
use crate::fetch::FetchResponse;
use crate::messages::{DeleteGroupsResponse, DescribeLogDirsResponse, TxnOffsetCommitResponse};
use crate::produce::ProduceResponse;
use crate::versions::{ApiKey, SUPPORTED};

/// A response that its version cannot express: a bug of the broker, never a client's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The codec's message.
    #[error("{} v{version} cannot be encoded: {reason}", api_key.name())]
    Codec {
        /// The API.
        api_key: ApiKey,
        /// The requested version.
        version: i16,
        /// The codec's message.
        reason: String,
    },
    /// The response is larger than a frame can be.
    #[error("{} response of {bytes} bytes does not fit a frame", api_key.name())]
    TooLarge {
        /// The API.
        api_key: ApiKey,
        /// Its size.
        bytes: usize,
    },
    /// The response is not one of this API.
    #[error("a {} response for a {} request", response.name(), request.name())]
    WrongApi {
        /// The API of the request.
        request: ApiKey,
        /// The API of the response.
        response: ApiKey,
    },
}

/// Appends the whole frame of a response: length, header, body. On an error nothing is appended.
pub fn encode(
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &Response,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if response.api_key() != api_key {
        return Err(EncodeError::WrongApi { request: api_key, response: response.api_key() });
    }
    let start = out.len();
    let outcome = begin(api_key, version, correlation_id, out, |out| response.encode_body(version, out));
    if outcome.is_err() {
        out.truncate(start);
    }
    outcome
}

fn begin(
    api_key: ApiKey,
    version: i16,
    correlation_id: i32,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    put_head(api_key, version, correlation_id, out);
    body(out)?;
    let bytes = out.len() - start - 4;
    let length = i32::try_from(bytes).map_err(|_| EncodeError::TooLarge { api_key, bytes })?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Appends an empty length and the response header.
pub(crate) fn put_head(api_key: ApiKey, version: i16, correlation_id: i32, out: &mut BytesMut) {
    out.put_i32(0);
    out.put_i32(correlation_id);
    if api_key.response_header_version(version) >= 1 {
        out.put_u8(0);
    }
}

/// The version table in the form of ApiVersions.
#[must_use]
pub fn advertised_versions() -> Vec<ApiVersion> {
    SUPPORTED
        .iter()
        .map(|row| {
            ApiVersion::default().with_api_key(row.key.code()).with_min_version(row.min).with_max_version(row.max)
        })
        .collect()
}

/// Appends the response to an ApiVersions request of an unknown version: the body of version 0 with
/// UNSUPPORTED_VERSION and the table, from which the client chooses again (KIP-511).
pub fn encode_api_versions_too_new(correlation_id: i32, out: &mut BytesMut) -> Result<(), EncodeError> {
    let body = ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(advertised_versions());
    encode(ApiKey::ApiVersions, 0, correlation_id, &Response::ApiVersions(body), out)
}

macro_rules! responses {
    ($($api:ident($type:ty) $(as up to $newest:literal)?,)*) => {
        /// A response: Produce and Fetch in our own types, the rest in kafka-protocol's, or in those of [`crate::messages`].
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs)]
        pub enum Response {
            Produce(ProduceResponse),
            Fetch(FetchResponse),
            $($api($type),)*
        }

        impl Response {
            /// The API that this response belongs to.
            #[must_use]
            pub fn api_key(&self) -> ApiKey {
                match self {
                    Self::Produce(_) => ApiKey::Produce,
                    Self::Fetch(_) => ApiKey::Fetch,
                    $(Self::$api(_) => ApiKey::$api,)*
                }
            }

            /// Appends the body alone.
            pub fn encode_body(&self, version: i16, out: &mut BytesMut) -> Result<(), EncodeError> {
                match self {
                    Self::Produce(body) => { body.encode(version, out); Ok(()) }
                    Self::Fetch(body) => { body.encode(version, out); Ok(()) }
                    $(Self::$api(body) => body.encode(out, version$(.min($newest))?).map_err(|error| EncodeError::Codec {
                        api_key: ApiKey::$api, version, reason: error.to_string(),
                    }),)*
                }
            }
        }

        $(impl From<$type> for Response {
            fn from(body: $type) -> Self {
                Self::$api(body)
            }
        })*
    };
}

responses! {
    ListOffsets(ListOffsetsResponse) as up to 10,
    Metadata(MetadataResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponse),
    FindCoordinator(FindCoordinatorResponse),
    JoinGroup(JoinGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    SyncGroup(SyncGroupResponse),
    DescribeGroups(DescribeGroupsResponse),
    ListGroups(ListGroupsResponse),
    SaslHandshake(SaslHandshakeResponse),
    ApiVersions(ApiVersionsResponse) as up to 4,
    CreateTopics(CreateTopicsResponse),
    DeleteTopics(DeleteTopicsResponse),
    DeleteRecords(DeleteRecordsResponse),
    InitProducerId(InitProducerIdResponse),
    OffsetForLeaderEpoch(OffsetForLeaderEpochResponse),
    AddPartitionsToTxn(AddPartitionsToTxnResponse),
    AddOffsetsToTxn(AddOffsetsToTxnResponse),
    EndTxn(EndTxnResponse),
    WriteTxnMarkers(WriteTxnMarkersResponse) as up to 1,
    TxnOffsetCommit(TxnOffsetCommitResponse),
    DescribeAcls(DescribeAclsResponse),
    CreateAcls(CreateAclsResponse),
    DeleteAcls(DeleteAclsResponse),
    DescribeConfigs(DescribeConfigsResponse),
    AlterConfigs(AlterConfigsResponse),
    AlterReplicaLogDirs(AlterReplicaLogDirsResponse),
    DescribeLogDirs(DescribeLogDirsResponse),
    CreatePartitions(CreatePartitionsResponse),
    DeleteGroups(DeleteGroupsResponse),
    ElectLeaders(ElectLeadersResponse),
    IncrementalAlterConfigs(IncrementalAlterConfigsResponse),
    AlterPartitionReassignments(AlterPartitionReassignmentsResponse),
    ListPartitionReassignments(ListPartitionReassignmentsResponse),
    OffsetDelete(OffsetDeleteResponse),
    DescribeQuorum(DescribeQuorumResponse),
    UpdateFeatures(UpdateFeaturesResponse),
    DescribeCluster(DescribeClusterResponse),
    DescribeProducers(DescribeProducersResponse),
    UnregisterBroker(UnregisterBrokerResponse),
    DescribeTransactions(DescribeTransactionsResponse),
    ListTransactions(ListTransactionsResponse),
    ListConfigResources(ListConfigResourcesResponse),
    DescribeTopicPartitions(DescribeTopicPartitionsResponse),
}

impl From<ProduceResponse> for Response {
    fn from(body: ProduceResponse) -> Self {
        Self::Produce(body)
    }
}

impl From<FetchResponse> for Response {
    fn from(body: FetchResponse) -> Self {
        Self::Fetch(body)
    }
}
