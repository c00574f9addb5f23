//! The part of lag reports between nodes in the fuzz targets.

#![allow(clippy::unwrap_used)]

use ottla_protocol::ids::NodeId;

use super::report::{
    Filter, GroupLag, LagByEnd, MeasuredLag, PartitionLag, Request, TopicLag, Version, decode_answer, encode_answer,
};
use super::status::Status;
use crate::config::NameFilter;
use crate::partition::Isolation;

/// A request for groups and their lag.
pub(crate) fn request(data: &[u8]) {
    if let Ok((version, request)) = Request::decode(data) {
        let bytes = request.encode(version);
        assert_eq!(Request::decode(&bytes).unwrap().1.encode(version), bytes);
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let names = |expression| Some(NameFilter::new(expression).unwrap());
    let filters = [
        Filter::default(),
        Filter::one("g1"),
        Filter { group: names("g.*"), topic: names(".*orders"), exact: Some("g1".to_owned()) },
    ];
    let request = |(any_replica, filter)| Request { filter, any_replica, partitions: vec![0, 49, 300] };
    let requests: Vec<_> = [false, true, true].into_iter().zip(filters).map(request).collect();
    let all = |version| requests.iter().map(move |request| request.encode(version).to_vec());
    all(Version::ByHighWatermark).chain(all(Version::Newest)).collect()
}

/// Its answer.
pub(crate) fn answer(data: &[u8]) {
    if let Ok(answer) = decode_answer(data) {
        let version = if data.first() == Some(&1) { Version::ByHighWatermark } else { Version::Newest };
        assert_eq!(decode_answer(&encode_answer(version, &answer)), Ok(answer));
    }
}

pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    let by_end = LagByEnd { last_stable: 950, high_watermark_lag: 899, last_stable_lag: 850 };
    let lag = |behind_ms: Option<i64>| {
        let by_end = behind_ms.map(|_| by_end);
        MeasuredLag { end: 1_000, lag: 900, age_ms: 250, behind_ms, by_end }
    };
    let at = |index, status, measured| PartitionLag { index, committed: 100, status, window_commits: 3, measured };
    let partitions = vec![
        at(0, Status::Ok, None),
        at(1, Status::Warn, Some(lag(None))),
        at(2, Status::Err, Some(lag(Some(0)))),
        at(300, Status::Stop, Some(lag(Some(1_500)))),
        at(4, Status::Stall, None),
        at(5, Status::Rewind, None),
    ];
    let group = |coordinator, isolation, topics| GroupLag {
        name: "g".to_owned(),
        protocol_type: "consumer".to_owned(),
        generation: 4,
        members: 300,
        coordinator,
        isolation,
        topics,
    };
    let topics = vec![TopicLag { name: "t".to_owned(), partitions }];
    let (all, committed) = (Isolation::ReadUncommitted, Isolation::ReadCommitted);
    let groups = vec![group(None, all, Vec::new()), group(Some(NodeId(3)), committed, topics)];
    let partitions = vec![(0, groups), (49, Vec::new())];
    let of = |version| [encode_answer(version, &Vec::new()).to_vec(), encode_answer(version, &partitions).to_vec()];
    [of(Version::ByHighWatermark), of(Version::Newest)].concat()
}
