//! The messages declared here against kafka-protocol's of the same name, byte for byte, in the versions that both know; and what only
//! the newest versions have, against bytes that Kafka's own classes wrote.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::*;
use crate::samples::{self, group, s, topic};
use crate::versions::ApiKey;

fn bytes_of(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
    assert_eq!(message.compute_size(version).unwrap(), out.len());
    out.freeze()
}

/// Theirs reads what ours wrote, and writes the same.
fn is_theirs<Theirs: Encodable + Decodable>(body: &Bytes, version: i16) {
    let mut rest = body.clone();
    let decoded = Theirs::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty());
    assert_eq!(bytes_of(&decoded, version), body, "v{version}");
}

#[test]
fn requests_are_theirs_in_the_versions_that_both_know() {
    for version in 0..=10 {
        let each = |api_key: ApiKey| {
            let served = api_key.range().serves(version);
            let samples = served.then(|| samples::requests(api_key, version));
            samples.into_iter().flatten().map(move |sample| samples::encode(&sample, version))
        };
        each(ApiKey::OffsetCommit)
            .filter(|_| version <= 9)
            .for_each(|body| is_theirs::<theirs::OffsetCommitRequest>(&body, version));
        each(ApiKey::OffsetFetch)
            .filter(|_| version <= 9)
            .for_each(|body| is_theirs::<theirs::OffsetFetchRequest>(&body, version));
        each(ApiKey::TxnOffsetCommit)
            .filter(|_| version <= 5)
            .for_each(|body| is_theirs::<theirs::TxnOffsetCommitRequest>(&body, version));
        each(ApiKey::WriteTxnMarkers)
            .filter(|_| version <= 1)
            .for_each(|body| is_theirs::<theirs::WriteTxnMarkersRequest>(&body, version));
        each(ApiKey::ApiVersions)
            .filter(|_| version <= 4)
            .for_each(|body| is_theirs::<theirs::ApiVersionsRequest>(&body, version));
    }
}

fn offsets_committed(version: i16) -> TxnOffsetCommitResponse {
    let (name, topic_id) = if version >= 6 { (topic(""), samples::id()) } else { (topic("prices"), uuid::Uuid::nil()) };
    let partitions = vec![TxnOffsetCommitResponsePartition { partition_index: 5, error_code: 100 }];
    let topics = vec![TxnOffsetCommitResponseTopic { name, topic_id, partitions }];
    TxnOffsetCommitResponse { throttle_time_ms: 5, topics }
}

fn deleted() -> DeleteGroupsResponse {
    let result =
        |name, error_code, error_message| DeletableGroupResult { group_id: group(name), error_code, error_message };
    let results = vec![result("a", 0, None), result("b", 68, Some(s("busy")))];
    DeleteGroupsResponse { throttle_time_ms: 5, results }
}

fn directories() -> DescribeLogDirsResponse {
    let partition =
        DescribeLogDirsPartition { partition_index: 1, partition_size: 99, offset_lag: 2, is_future_key: true };
    let topics = vec![DescribeLogDirsTopic { name: topic("prices"), partitions: vec![partition] }];
    let result = DescribeLogDirsResult {
        error_code: 56,
        log_dir: s("/data"),
        topics,
        total_bytes: 10,
        usable_bytes: 7,
        is_cordoned: true,
    };
    DescribeLogDirsResponse {
        throttle_time_ms: 5,
        error_code: 0,
        results: vec![result, DescribeLogDirsResult::default()],
    }
}

#[test]
fn responses_are_theirs_in_the_versions_that_both_know() {
    (0..=2).for_each(|version| is_theirs::<theirs::DeleteGroupsResponse>(&bytes_of(&deleted(), version), version));
    (0..=5).for_each(|version| {
        is_theirs::<theirs::TxnOffsetCommitResponse>(&bytes_of(&offsets_committed(version), version), version);
    });
    (1..=4)
        .for_each(|version| is_theirs::<theirs::DescribeLogDirsResponse>(&bytes_of(&directories(), version), version));
}

/// Written by the classes of kafka-clients 4.4.0.
#[test]
fn the_newest_versions_are_kafkas() {
    let hex = |bytes: &Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&bytes_of(&deleted(), 3)), "00000005030261000000000262004405627573790000");
    assert_eq!(
        hex(&bytes_of(&directories(), 5)),
        "000000050000030038062f646174610207707269636573020000000100000000000000630000000000000002010000000000000000000a0000000000000007010000000101ffffffffffffffffffffffffffffffff000000"
    );
    assert_eq!(DeleteGroupsResponse::decode(&mut bytes_of(&deleted(), 3), 3).unwrap(), deleted());
    assert_eq!(DescribeLogDirsResponse::decode(&mut bytes_of(&directories(), 5), 5).unwrap(), directories());
    let request = |api_key, version| hex(&samples::encode(&samples::requests(api_key, version)[0], version));
    assert_eq!(
        request(ApiKey::OffsetCommit, 10),
        "087265616465727300000006076d656d62657209696e7374616e6365020123456789abcdef0123456789abcdef0300000001000000000000002a00000003056e6f74650000000001000000000000002a0000000300000000"
    );
    assert_eq!(
        request(ApiKey::OffsetFetch, 10),
        "030872656164657273076d656d62657200000004020123456789abcdef0123456789abcdef0300000000000000010000076f746865727300ffffffff00000100"
    );
    assert_eq!(
        request(ApiKey::TxnOffsetCommit, 6),
        "0c7472616e73616374696f6e0667726f7570000000000000000c000300000004076d656d62657209696e7374616e6365020123456789abcdef0123456789abcdef020000000500000000000003e8000000070568657265000000"
    );
    let committed = bytes_of(&offsets_committed(6), 6);
    assert_eq!(hex(&committed), "00000005020123456789abcdef0123456789abcdef02000000050064000000");
    assert_eq!(TxnOffsetCommitResponse::decode(&mut committed.clone(), 6).unwrap(), offsets_committed(6));
    assert_eq!(
        request(ApiKey::WriteTxnMarkers, 2),
        "02000000000000000c00030102077072696365730300000000000000050000000009020000"
    );
    assert_eq!(request(ApiKey::ApiVersions, 5), "07676f6c64656e04312e3008636c75737465720000000300");
}

#[test]
fn a_version_that_a_message_does_not_have_is_refused() {
    assert!(ApiVersionsRequest::default().encode(&mut BytesMut::new(), 6).is_err());
    assert!(OffsetFetchRequest::decode(&mut Bytes::from_static(&[0; 64]), 0).is_err());
}

#[test]
fn whatever_is_cut_off_is_refused() {
    let newest = [
        (ApiKey::OffsetCommit, 10),
        (ApiKey::OffsetFetch, 10),
        (ApiKey::TxnOffsetCommit, 6),
        (ApiKey::WriteTxnMarkers, 2),
        (ApiKey::ApiVersions, 5),
    ];
    for (api_key, version) in newest {
        let body = samples::encode(&samples::requests(api_key, version)[0], version);
        for length in 0..body.len() {
            let mut cut = body.slice(..length);
            let outcome = match api_key {
                ApiKey::OffsetCommit => OffsetCommitRequest::decode(&mut cut, version).map(|_| ()),
                ApiKey::OffsetFetch => OffsetFetchRequest::decode(&mut cut, version).map(|_| ()),
                ApiKey::TxnOffsetCommit => TxnOffsetCommitRequest::decode(&mut cut, version).map(|_| ()),
                ApiKey::WriteTxnMarkers => WriteTxnMarkersRequest::decode(&mut cut, version).map(|_| ()),
                _ => ApiVersionsRequest::decode(&mut cut, version).map(|_| ()),
            };
            assert!(outcome.is_err(), "{} cut to {length}", api_key.name());
        }
    }
}
