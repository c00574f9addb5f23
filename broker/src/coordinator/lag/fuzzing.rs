//! The part of lag reports between nodes in the fuzz targets.

#![allow(clippy::unwrap_used)]

use ottla_protocol::ids::NodeId;

use super::report::{Filter, GroupLag, MeasuredLag, PartitionLag, Request, TopicLag, decode_answer, encode_answer};
use super::status::Status;
use crate::config::NameFilter;

/// A request for groups and their lag.
pub(crate) fn request(data: &[u8]) {
    if let Ok(request) = Request::decode(data) {
        let bytes = request.encode();
        assert_eq!(Request::decode(&bytes).unwrap().encode(), bytes);
    }
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    let names = |expression| Some(NameFilter::new(expression).unwrap());
    let filters = [
        Filter::default(),
        Filter::one("g1"),
        Filter { group: names("g.*"), topic: names(".*orders"), exact: Some("g1".to_owned()) },
    ];
    let request =
        |(any_replica, filter)| Request { filter, any_replica, partitions: vec![0, 49, 300] }.encode().to_vec();
    [false, true, true].into_iter().zip(filters).map(request).collect()
}

/// Its answer.
pub(crate) fn answer(data: &[u8]) {
    if let Ok(answer) = decode_answer(data) {
        assert_eq!(decode_answer(&encode_answer(&answer)), Ok(answer));
    }
}

pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    let lag = |behind_ms| MeasuredLag { end: 1_000, lag: 900, age_ms: 250, behind_ms };
    let at = |index, status, measured| PartitionLag { index, committed: 100, status, window_commits: 3, measured };
    let partitions = vec![
        at(0, Status::Ok, None),
        at(1, Status::Warn, Some(lag(None))),
        at(2, Status::Err, Some(lag(Some(0)))),
        at(300, Status::Stop, Some(lag(Some(1_500)))),
        at(4, Status::Stall, None),
        at(5, Status::Rewind, None),
    ];
    let group = |coordinator, topics| GroupLag {
        name: "g".to_owned(),
        protocol_type: "consumer".to_owned(),
        generation: 4,
        members: 300,
        coordinator,
        topics,
    };
    let topics = vec![TopicLag { name: "t".to_owned(), partitions }];
    let groups = vec![group(None, Vec::new()), group(Some(NodeId(3)), topics)];
    vec![encode_answer(&[]).to_vec(), encode_answer(&[(0, groups), (49, Vec::new())]).to_vec()]
}
