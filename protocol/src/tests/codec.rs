//! The hand-written Produce and Fetch codecs against kafka-protocol's, byte for byte, in every version.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{self as theirs, BrokerId, TopicName, fetch_response, produce_response};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use crate::error::ErrorCode;
use crate::fetch::*;
use crate::ids::{LeaderEpoch, NodeId, Offset};
use crate::produce::*;
use crate::request::{Request, RequestError};
use crate::response::{Response, encode, encode_api_versions_too_new};
use crate::samples::{self, s};
use crate::versions::ApiKey;

const PRODUCE: std::ops::RangeInclusive<i16> = 3..=13;
const FETCH: std::ops::RangeInclusive<i16> = 4..=18;

fn by_id(version: i16) -> (Option<StrBytes>, Option<Uuid>) {
    if version >= 13 { (None, Some(Uuid::from_u128(77))) } else { (Some(s("prices")), None) }
}

fn endpoint() -> NodeEndpoint {
    NodeEndpoint { node: NodeId(4), host: s("host.example"), port: 9092, rack: Some(s("zone-b")) }
}

fn leader() -> CurrentLeader {
    CurrentLeader { leader: NodeId(4), epoch: LeaderEpoch(19) }
}

#[test]
fn requests_decode_to_what_was_encoded_in_every_version() {
    for (api_key, versions) in [(ApiKey::Produce, PRODUCE), (ApiKey::Fetch, FETCH)] {
        for version in versions {
            for sample in samples::requests(api_key, version) {
                let body = samples::encode(&sample, version);
                let decoded = Request::decode_body(api_key, version, body.clone());
                assert_eq!(decoded, Ok(sample), "{} v{version}", api_key.name());
                for length in 0..body.len() {
                    let cut = Request::decode_body(api_key, version, body.slice(..length));
                    assert!(cut.is_err(), "{} v{version} cut to {length}", api_key.name());
                }
            }
        }
    }
}

#[test]
fn our_produce_requests_are_theirs() {
    for version in PRODUCE {
        for sample in samples::requests(ApiKey::Produce, version) {
            let Request::Produce(request) = &sample else { unreachable!() };
            let mut ours = BytesMut::new();
            request.encode(version, &mut ours);
            assert_eq!(ours, samples::encode(&sample, version), "v{version}");
        }
    }
}

#[test]
fn records_are_slices_of_the_frame() {
    let body = samples::encode(&samples::requests(ApiKey::Produce, 9)[0], 9);
    let Ok(Request::Produce(request)) = Request::decode_body(ApiKey::Produce, 9, body.clone()) else { panic!() };
    let records = request.topics[0].partitions[0].records.clone().unwrap();
    assert!(body.as_ptr_range().contains(&records.as_ptr()));
}

/// A member id that a group keeps for hours must not keep a connection's buffer alive.
#[test]
fn what_is_not_produce_shares_no_memory_with_the_buffer() {
    let frame = samples::frame(&samples::requests(ApiKey::JoinGroup, 5)[0], 5);
    let (header, Request::JoinGroup(request)) = crate::request::decode(frame.clone()).unwrap() else { panic!() };
    assert!(!frame.as_ptr_range().contains(&request.member_id.as_ptr()));
    assert!(!frame.as_ptr_range().contains(&header.client_id.unwrap().as_ptr()));
}

fn produce_response(version: i16) -> ProduceResponse {
    let (name, id) = by_id(version);
    let failed = ProducePartitionResponse {
        record_errors: vec![
            RecordError { batch_index: 3, message: Some(s("no key")) },
            RecordError { batch_index: 4, message: None },
        ],
        error_message: Some(s("refused")),
        ..ProducePartitionResponse::failed(1, ErrorCode::InvalidRecord)
    };
    let moved = ProducePartitionResponse {
        current_leader: Some(leader()),
        ..ProducePartitionResponse::failed(2, ErrorCode::NotLeaderOrFollower)
    };
    let appended = ProducePartitionResponse::appended(0, Offset(1 << 33), 99, Offset(5));
    let topics = vec![ProduceTopicResponse { name, id, partitions: vec![appended, failed, moved] }];
    ProduceResponse { topics, throttle_time_ms: 12, node_endpoints: vec![endpoint()] }
}

fn their_produce_partition(
    version: i16,
    ours: &ProducePartitionResponse,
) -> produce_response::PartitionProduceResponse {
    let error = |ours: &RecordError| {
        produce_response::BatchIndexAndErrorMessage::default()
            .with_batch_index(ours.batch_index)
            .with_batch_index_error_message(ours.message.clone())
    };
    let partition = produce_response::PartitionProduceResponse::default()
        .with_index(ours.index)
        .with_error_code(ours.error.code())
        .with_base_offset(ours.base_offset.0)
        .with_log_append_time_ms(ours.log_append_time_ms)
        .with_log_start_offset(ours.log_start.0)
        .with_record_errors(ours.record_errors.iter().map(error).collect())
        .with_error_message(ours.error_message.clone());
    match &ours.current_leader {
        Some(hint) if version >= 10 => partition.with_current_leader(
            produce_response::LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(hint.leader.0))
                .with_leader_epoch(hint.epoch.0),
        ),
        _ => partition,
    }
}

#[test]
fn our_produce_responses_are_theirs() {
    for version in PRODUCE {
        for ours in [produce_response(version), ProduceResponse::default()] {
            let topic = |ours: &ProduceTopicResponse| {
                let partitions = ours.partitions.iter().map(|ours| their_produce_partition(version, ours)).collect();
                produce_response::TopicProduceResponse::default()
                    .with_name(TopicName(ours.name.clone().unwrap_or_default()))
                    .with_topic_id(ours.id.unwrap_or_default())
                    .with_partition_responses(partitions)
            };
            let endpoint = |ours: &NodeEndpoint| {
                produce_response::NodeEndpoint::default()
                    .with_node_id(BrokerId(ours.node.0))
                    .with_host(ours.host.clone())
                    .with_port(ours.port)
                    .with_rack(ours.rack.clone())
            };
            let their = theirs::ProduceResponse::default()
                .with_responses(ours.topics.iter().map(topic).collect())
                .with_throttle_time_ms(ours.throttle_time_ms);
            let their = if version >= 10 {
                their.with_node_endpoints(ours.node_endpoints.iter().map(endpoint).collect())
            } else {
                their
            };
            let (mut our_bytes, mut their_bytes) = (BytesMut::new(), BytesMut::new());
            ours.encode(version, &mut our_bytes);
            their.encode(&mut their_bytes, version).unwrap();
            assert_eq!(our_bytes, their_bytes, "v{version}");
        }
    }
}

fn fetch_response(version: i16) -> FetchResponse {
    let (name, id) = by_id(version);
    let full = FetchPartitionResponse {
        index: 0,
        error: ErrorCode::None,
        high_watermark: Offset(1 << 35),
        last_stable_offset: Offset(1 << 34),
        log_start: Offset(4),
        diverging_epoch: None,
        current_leader: None,
        aborted_transactions: Some(vec![AbortedTransaction { producer_id: 9, first_offset: Offset(8) }]),
        preferred_read_replica: NodeId(-1),
        records: vec![Bytes::from_static(b"first chunk, "), Bytes::from(vec![7; 200])],
        later_bytes: 0,
    };
    let moved = FetchPartitionResponse {
        current_leader: (version >= 12).then(leader),
        diverging_epoch: (version >= 12)
            .then_some(DivergingEpoch { epoch: LeaderEpoch(3), end_offset: Offset(1 << 36) }),
        aborted_transactions: Some(Vec::new()),
        preferred_read_replica: NodeId(if version >= 11 { 2 } else { -1 }),
        ..FetchPartitionResponse::failed(1, ErrorCode::FencedLeaderEpoch)
    };
    let topics = vec![FetchTopicResponse { name, id, partitions: vec![full, moved] }];
    let (error, session_id) = if version >= 7 { (ErrorCode::FetchSessionIdNotFound, 55) } else { (ErrorCode::None, 0) };
    FetchResponse { throttle_time_ms: 3, error, session_id, topics, node_endpoints: vec![endpoint()] }
}

fn their_fetch_partition(ours: &FetchPartitionResponse) -> fetch_response::PartitionData {
    let aborted = |ours: &AbortedTransaction| {
        fetch_response::AbortedTransaction::default()
            .with_producer_id(theirs::ProducerId(ours.producer_id))
            .with_first_offset(ours.first_offset.0)
    };
    let mut partition = fetch_response::PartitionData::default()
        .with_partition_index(ours.index)
        .with_error_code(ours.error.code())
        .with_high_watermark(ours.high_watermark.0)
        .with_last_stable_offset(ours.last_stable_offset.0)
        .with_log_start_offset(ours.log_start.0)
        .with_aborted_transactions(ours.aborted_transactions.as_ref().map(|all| all.iter().map(aborted).collect()))
        .with_preferred_read_replica(BrokerId(ours.preferred_read_replica.0))
        .with_records(Some(ours.records.concat().into()));
    if let Some(diverging) = &ours.diverging_epoch {
        partition = partition.with_diverging_epoch(
            fetch_response::EpochEndOffset::default()
                .with_epoch(diverging.epoch.0)
                .with_end_offset(diverging.end_offset.0),
        );
    }
    if let Some(hint) = &ours.current_leader {
        partition = partition.with_current_leader(
            fetch_response::LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(hint.leader.0))
                .with_leader_epoch(hint.epoch.0),
        );
    }
    partition
}

fn their_fetch_response(version: i16, ours: &FetchResponse) -> theirs::FetchResponse {
    let topic = |ours: &FetchTopicResponse| {
        fetch_response::FetchableTopicResponse::default()
            .with_topic(TopicName(ours.name.clone().unwrap_or_default()))
            .with_topic_id(ours.id.unwrap_or_default())
            .with_partitions(ours.partitions.iter().map(their_fetch_partition).collect())
    };
    let endpoint = |ours: &NodeEndpoint| {
        fetch_response::NodeEndpoint::default()
            .with_node_id(BrokerId(ours.node.0))
            .with_host(ours.host.clone())
            .with_port(ours.port)
            .with_rack(ours.rack.clone())
    };
    let endpoints = if version >= 16 { ours.node_endpoints.iter().map(endpoint).collect() } else { Vec::new() };
    theirs::FetchResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_error_code(ours.error.code())
        .with_session_id(ours.session_id)
        .with_responses(ours.topics.iter().map(topic).collect())
        .with_node_endpoints(endpoints)
}

/// The chunks as they are sent, with the server's own bytes in their places.
fn sent(chunks: &[FetchChunk], mut later: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in chunks {
        match chunk {
            FetchChunk::Bytes(bytes) => out.extend_from_slice(bytes),
            FetchChunk::Later(bytes) => out.extend_from_slice(later.split_off(..*bytes).unwrap()),
        }
    }
    assert!(later.is_empty());
    out
}

#[test]
fn our_fetch_responses_are_theirs_copied_or_in_chunks() {
    for version in FETCH {
        for ours in [fetch_response(version), FetchResponse::failed(ErrorCode::None)] {
            let mut their_bytes = BytesMut::new();
            their_fetch_response(version, &ours).encode(&mut their_bytes, version).unwrap();
            let mut our_bytes = BytesMut::new();
            ours.encode(version, &mut our_bytes);
            assert_eq!(our_bytes, their_bytes, "v{version}");

            let mut frame = BytesMut::new();
            encode(ApiKey::Fetch, version, 5, &Response::Fetch(ours.clone()), &mut frame).unwrap();
            let mut chunks = vec![FetchChunk::Bytes(Bytes::from_static(b"earlier answer"))];
            ours.encode_chunks(version, 5, &mut chunks);
            assert_eq!(sent(&chunks[1..], &[]), frame, "v{version}");

            // The server's own bytes are where the records would be.
            let (mut later, mut records) = (ours, Vec::new());
            for partition in later.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                records.extend(partition.records.concat());
                partition.later_bytes = partition.records_bytes();
                partition.records.clear();
            }
            chunks.clear();
            later.encode_chunks(version, 5, &mut chunks);
            assert_eq!(sent(&chunks, &records), frame, "v{version}");
        }
    }
}

#[test]
fn chunks_do_not_copy_records() {
    let response = fetch_response(11);
    let records = response.topics[0].partitions[0].records[1].as_ptr();
    let mut chunks = Vec::new();
    response.encode_chunks(11, 1, &mut chunks);
    assert!(chunks.iter().any(|chunk| matches!(chunk, FetchChunk::Bytes(bytes) if bytes.as_ptr() == records)));
}

/// A client with an unknown version must still be able to read the response (KIP-511).
#[test]
fn api_versions_of_an_unknown_version_is_answered_with_a_version_0_body() {
    let mut frame = BytesMut::new();
    frame.put_i16(18);
    frame.put_i16(99);
    frame.put_i32(1234);
    frame.put_slice(b"whatever follows");
    let error = crate::request::decode(frame.freeze()).unwrap_err();
    assert_eq!(error, RequestError::ApiVersionsTooNew { version: 99, correlation_id: 1234 });
    let mut out = BytesMut::new();
    encode_api_versions_too_new(1234, &mut out).unwrap();
    let expected_start = [&(out.len() as i32 - 4).to_be_bytes()[..], &1234i32.to_be_bytes(), &[0, 35]].concat();
    assert!(out.starts_with(&expected_start));
    assert_eq!(out.len(), 4 + 4 + 2 + 4 + 6 * crate::versions::SUPPORTED.len());
}

/// Clients read the response header of ApiVersions before they know the broker's versions.
#[test]
fn api_versions_answers_carry_no_tags_in_the_header() {
    let body = theirs::ApiVersionsResponse::default();
    let mut out = BytesMut::new();
    encode(ApiKey::ApiVersions, 4, 9, &body.into(), &mut out).unwrap();
    assert_eq!(out[4..], [0, 0, 0, 9, 0, 0, 1, 0, 0, 0, 0, 0]);
}

#[test]
fn an_answer_that_cannot_be_encoded_leaves_no_bytes_behind() {
    let body = theirs::OffsetFetchResponse::default().with_throttle_time_ms(1);
    let mut out = BytesMut::from(&b"earlier"[..]);
    assert!(encode(ApiKey::OffsetFetch, 99, 1, &body.clone().into(), &mut out).is_err());
    assert!(encode(ApiKey::Fetch, 4, 1, &body.into(), &mut out).is_err());
    assert_eq!(&out[..], b"earlier");
}

#[test]
fn unknown_keys_and_versions_are_told_apart() {
    let head = |key: i16, version: i16| {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_slice(&[0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0]);
        crate::request::decode(frame.freeze()).unwrap_err()
    };
    assert_eq!(head(4, 0), RequestError::UnknownApi { api_key: 4 });
    let refused = |api_key, version| RequestError::UnsupportedVersion { api_key, version };
    assert_eq!(head(0, 2), refused(ApiKey::Produce, 2));
    assert_eq!(head(1, 19), refused(ApiKey::Fetch, 19));
    assert_eq!(head(3, -1), refused(ApiKey::Metadata, -1));
}

/// Length -1, or 0 in the flexible encoding, at the first string or array that must not be null.
#[test]
fn null_where_it_has_no_meaning_is_refused() {
    let refused = |api_key, version, body: &'static [u8]| {
        let decoded = Request::decode_body(api_key, version, Bytes::from_static(body));
        assert!(decoded.is_err(), "{} v{version}: {decoded:?}", api_key.name());
    };
    let null_i16 = &[0xff; 64];
    for api_key in [ApiKey::Heartbeat, ApiKey::JoinGroup, ApiKey::SyncGroup, ApiKey::LeaveGroup, ApiKey::OffsetDelete] {
        refused(api_key, 0, null_i16);
    }
    for (api_key, version) in [
        (ApiKey::Heartbeat, 4),
        (ApiKey::CreateTopics, 7),
        (ApiKey::DeleteGroups, 2),
        (ApiKey::FindCoordinator, 3),
        (ApiKey::DescribeTopicPartitions, 0),
    ] {
        refused(api_key, version, &[0; 64]);
    }
    // Produce: no transactional id, acks, timeout, then a null array. Fetch: fixed fields, then a null array.
    refused(ApiKey::Produce, 9, &[0, 0, 1, 0, 0, 0, 1, 0, 0]);
    refused(ApiKey::Produce, 3, &[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    refused(ApiKey::Fetch, 4, &[0xff; 21]);
}

#[test]
fn a_client_id_that_is_not_utf8_is_replaced_not_refused() {
    let mut frame = BytesMut::from(&[0, 18, 0, 0, 0, 0, 0, 1, 0, 3][..]);
    frame.put_slice(&[b'a', 0xff, b'b']);
    let (header, _) = crate::request::decode(frame.freeze()).unwrap();
    assert_eq!(&*header.client_id.unwrap(), "a\u{fffd}b");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn garbage_frames_never_panic(garbage in prop::collection::vec(any::<u8>(), 0..200), key in 0i16..80, version in 0i16..20) {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_slice(&garbage);
        let _ = crate::request::decode(frame.freeze());
    }

    #[test]
    fn flipped_bytes_in_produce_and_fetch_never_panic(
        version in 3i16..=18,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for (api_key, versions) in [(ApiKey::Produce, PRODUCE), (ApiKey::Fetch, FETCH)] {
            if !versions.contains(&version) {
                continue;
            }
            let mut body = samples::encode(&samples::requests(api_key, version)[0], version).to_vec();
            for (place, value) in &flips {
                let place = place.index(body.len());
                body[place] = *value;
            }
            let _ = Request::decode_body(api_key, version, body.into());
        }
    }
}
