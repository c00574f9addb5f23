//! The part of requests between nodes about shards in the fuzz targets.

use std::collections::BTreeMap;

use bytes::Bytes;
use ottla_protocol::ids::{NodeId, Offset};
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::lag_request::{CommittedPosition, ControlCount, EndsAnswer, LagRequest, PartitionEnds, TopicPositions};
use super::rpc::{ElectionOutcome, LeadershipUpdate, LedShard, NodeRequest, SetClockOutcome};
use crate::metadata::ShardId;

/// A request from one node to another.
pub(crate) fn request(data: &[u8]) {
    if let Ok(request) = NodeRequest::decode(data) {
        assert_eq!(NodeRequest::decode(&request.encode()).as_ref(), Ok(&request));
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let led = |term, in_sync: &[u64]| LedShard { term, in_sync: in_sync.iter().copied().map(ReplicaId).collect() };
    let led = BTreeMap::from([(ShardId(1), led(4, &[1, 300])), (ShardId(7), led(u64::MAX, &[]))]);
    let position = |partition, known, needs_time| {
        let position = Offset(300);
        CommittedPosition { partition, position, known, needs_time }
    };
    let partitions = vec![position(0, None, true), position(9, Some(Offset(0)), false)];
    let topics = [(7, partitions), (8, Vec::new())];
    let topics = topics.map(|(id, partitions)| TopicPositions { topic: Uuid::from_u128(id), partitions });
    let requests = [
        NodeRequest::LeadershipUpdate(LeadershipUpdate { node: NodeId(3), session: 9, number: 2, wall_ms: 1_000, led }),
        NodeRequest::ElectPreferred(ShardId(7)),
        NodeRequest::Ping,
        NodeRequest::ConsumerLag(LagRequest::Ends(topics.to_vec())),
        NodeRequest::ConsumerLag(LagRequest::Groups(Bytes::from_static(b"groups"))),
        NodeRequest::SetClock(ShardId(7), None),
        NodeRequest::SetClock(ShardId(7), Some(-9)),
        NodeRequest::Transactions(Bytes::from_static(b"transactions")),
        NodeRequest::ConsumerLag(LagRequest::EndsAndControl(topics.to_vec())),
    ];
    requests.map(|request| request.encode().to_vec()).to_vec()
}

/// The response to a request to elect or to set the clock, or the ends of partitions.
pub(crate) fn response(data: &[u8]) {
    if let Some(outcome) = ElectionOutcome::decode(data) {
        assert_eq!(ElectionOutcome::decode(&outcome.encode()), Some(outcome));
    }
    if let Some(outcome) = SetClockOutcome::decode(data) {
        assert_eq!(SetClockOutcome::decode(&outcome.encode()), Some(outcome));
    }
    if let Ok(answers) = EndsAnswer::decode_all(data) {
        assert_eq!(EndsAnswer::decode_all(&EndsAnswer::encode_all(&answers)), Ok(answers));
    }
}

pub(crate) fn response_seeds() -> Vec<Vec<u8>> {
    use ElectionOutcome::{Done, NotAvailable, NotLeader, NotNeeded, TimedOut};
    let elections = [Done, NotNeeded, NotAvailable, NotLeader, TimedOut].map(ElectionOutcome::encode);
    let clocks = [
        SetClockOutcome::Done(1_700_000_000_000),
        SetClockOutcome::NotLeader,
        SetClockOutcome::NotConfirmed,
        SetClockOutcome::Ahead,
        SetClockOutcome::LevelTooLow,
        SetClockOutcome::TimedOut,
    ]
    .map(SetClockOutcome::encode);
    let ends = |first_uncommitted_ms, control| {
        let (log_start, high_watermark, last_stable) = (Offset(5), Offset(1_000), Offset(900));
        EndsAnswer::Ends(PartitionEnds { log_start, high_watermark, last_stable, first_uncommitted_ms, control })
    };
    let (unchanged, not_leader) = (EndsAnswer::Unchanged, EndsAnswer::NotLeader);
    let answers = [unchanged, ends(None, None), ends(Some(0), None), not_leader, ends(Some(1 << 41), None)];
    let control = ControlCount { below_last_stable: 3, below_high_watermark: 300 };
    let counted = [unchanged, ends(None, Some(control)), not_leader, ends(Some(7), Some(ControlCount::default()))];
    let answers = [EndsAnswer::encode_all(&answers), EndsAnswer::encode_all(&counted)];
    elections.into_iter().chain(clocks).chain(answers).map(|bytes| bytes.to_vec()).collect()
}
