//! Sessions: epochs, what is sent again and what is not, forgotten partitions, order, bounds.

use bytes::Bytes;
use ottla_protocol::fetch::{FetchTopic, ForgottenTopic};
use ottla_protocol::ids::{LeaderEpoch, NodeId};

use super::*;

fn request(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
    let partitions = partitions.iter().map(|index| FetchPartition {
        index: *index,
        current_leader_epoch: LeaderEpoch(-1),
        fetch_offset: Offset(0),
        last_fetched_epoch: LeaderEpoch(-1),
        log_start: Offset(-1),
        max_bytes: 1 << 20,
    });
    FetchRequest {
        replica_id: NodeId(-1),
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        isolation_level: 0,
        session_id: id,
        session_epoch: epoch,
        topics: vec![FetchTopic {
            name: Some(StrBytes::from_static_str("t")),
            id: None,
            partitions: partitions.collect(),
        }],
        forgotten: Vec::new(),
        rack_id: StrBytes::default(),
    }
}

fn answers(plan: &Plan, high_watermark: i64, with_records: &[i32]) -> Vec<(Key, FetchPartitionResponse)> {
    plan.wanted
        .iter()
        .map(|wanted| {
            let mut answer = FetchPartitionResponse::failed(wanted.key.index, ErrorCode::None);
            answer.high_watermark = Offset(high_watermark);
            answer.log_start = Offset(0);
            if with_records.contains(&wanted.key.index) {
                answer.records = vec![Bytes::from_static(b"batch")];
            }
            (wanted.key.clone(), answer)
        })
        .collect()
}

fn indexes(plan: &Plan) -> Vec<i32> {
    plan.wanted.iter().map(|wanted| wanted.key.index).collect()
}

fn told(answers: &[(Key, FetchPartitionResponse)]) -> Vec<i32> {
    answers.iter().map(|(key, _)| key.index).collect()
}

fn open(sessions: &FetchSessions, partitions: &[i32]) -> i32 {
    let plan = sessions.begin(request(0, 0, partitions), false).unwrap();
    let mut all = answers(&plan, 5, &[]);
    sessions.finish(plan, false, &mut all)
}

#[test]
fn an_incremental_answer_tells_only_what_is_new() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, &[0, 1, 2]);
    assert_ne!(id, 0);
    let plan = sessions.begin(request(id, 1, &[]), false).unwrap();
    assert_eq!(indexes(&plan), [0, 1, 2]);
    let mut all = answers(&plan, 5, &[1]);
    assert_eq!(sessions.finish(plan, false, &mut all), id);
    assert_eq!(told(&all), [1]);
    // A partition that returned records is last in the next round.
    let plan = sessions.begin(request(id, 2, &[]), false).unwrap();
    assert_eq!(indexes(&plan), [0, 2, 1]);
    let mut all = answers(&plan, 6, &[]);
    sessions.finish(plan, false, &mut all);
    assert_eq!(told(&all), [0, 2, 1]);
}

#[test]
fn an_error_is_told_and_its_end_too() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, &[0]);
    for (epoch, error, expected) in
        [(1, ErrorCode::NotLeaderOrFollower, 1), (2, ErrorCode::None, 1), (3, ErrorCode::None, 0)]
    {
        let plan = sessions.begin(request(id, epoch, &[]), false).unwrap();
        let mut all = answers(&plan, 5, &[]);
        all[0].1.error = error;
        sessions.finish(plan, false, &mut all);
        assert_eq!(all.len(), expected, "epoch {epoch}");
    }
}

#[test]
fn a_partition_that_was_found_once_stays_known_whatever_becomes_of_its_id() {
    let sessions = FetchSessions::new(10);
    let plan = sessions.begin(request(0, 0, &[0, 1]), false).unwrap();
    let mut all = answers(&plan, 5, &[]);
    all[1].1.error = ErrorCode::UnknownTopicId;
    let id = sessions.finish(plan, false, &mut all);
    for (epoch, error) in [(1, ErrorCode::None), (2, ErrorCode::UnknownTopicOrPartition)] {
        let plan = sessions.begin(request(id, epoch, &[]), false).unwrap();
        let knew: Vec<bool> = plan.wanted.iter().map(|wanted| plan.had_found(wanted)).collect();
        assert_eq!(knew, [true, false], "epoch {epoch}");
        let mut all = answers(&plan, 5, &[]);
        all[0].1.error = error;
        all[1].1.error = ErrorCode::UnknownTopicId;
        sessions.finish(plan, false, &mut all);
    }
}

#[test]
fn partitions_join_and_are_forgotten() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, &[0, 1]);
    let mut change = request(id, 1, &[7]);
    change.forgotten =
        vec![ForgottenTopic { name: Some(StrBytes::from_static_str("t")), id: None, partitions: vec![0, 99] }];
    let plan = sessions.begin(change, false).unwrap();
    assert_eq!(indexes(&plan), [1, 7]);
}

#[test]
fn wrong_sessions_and_epochs_are_refused() {
    let sessions = FetchSessions::new(10);
    let id = open(&sessions, &[0]);
    assert_eq!(sessions.begin(request(id + 1, 1, &[]), false).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(sessions.begin(request(id, 2, &[]), false).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(sessions.begin(request(id, 1, &[]), true).unwrap_err(), ErrorCode::FetchSessionTopicIdError);
    assert!(sessions.begin(request(id, 1, &[]), false).is_ok());
    assert_eq!(sessions.begin(request(id, 1, &[]), false).unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
    sessions.begin(request(id, -1, &[0]), false).unwrap();
    assert_eq!(sessions.count(), 0);
}

#[test]
fn the_cache_is_bounded_and_larger_sessions_win() {
    let sessions = FetchSessions::new(2);
    let (small, large) = (open(&sessions, &[0]), open(&sessions, &[0, 1, 2]));
    assert_eq!(open(&sessions, &[5]), 0);
    assert_ne!(open(&sessions, &[5, 6]), 0);
    assert_eq!(sessions.count(), 2);
    assert_eq!(sessions.begin(request(small, 1, &[]), false).unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert!(sessions.begin(request(large, 1, &[]), false).is_ok());
}
