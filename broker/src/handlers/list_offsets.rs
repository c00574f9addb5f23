//! ListOffsets (key 2, v1-v11): the offset of a timestamp, or of an end of the log.
//!
//! v2 isolation, v4 leader epoch (KIP-320), v7 -3 greatest timestamp (KIP-734), v8 -4 earliest local (KIP-405), v9 -5
//! latest tiered (KIP-1005), v10 timeout, v11 -6 earliest pending upload (KIP-1023). A special timestamp that the version
//! does not have: UNSUPPORTED_VERSION. A partition named twice: INVALID_REQUEST for it. Nothing found: offset and timestamp
//! -1, no error.

use std::collections::HashSet;

use futures_util::future::join_all;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use ottla_env::mutants::{self, Bug};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::LeaderEpoch;

use crate::handlers::context::Context;
use crate::partition::{Isolation, ListedOffset, OffsetQuery, PartitionError, TopicRef};

pub(super) async fn handle(ctx: &Context, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let twice = named_twice(&request.topics);
    let topics = request.topics.iter().map(|topic| {
        let twice = &twice;
        async move {
            let partitions = topic.partitions.iter().map(|asked| async move {
                if twice.contains(&(topic.name.as_str(), asked.partition_index)) {
                    return failed(asked.partition_index, ErrorCode::InvalidRequest);
                }
                one(ctx, version, isolation, &topic.name, asked).await
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(join_all(partitions).await)
        }
    });
    ListOffsetsResponse::default().with_topics(join_all(topics).await)
}

fn named_twice(topics: &[ListOffsetsTopic]) -> HashSet<(&str, i32)> {
    let mut seen = HashSet::new();
    let all = topics.iter().flat_map(|t| t.partitions.iter().map(|p| (t.name.as_str(), p.partition_index)));
    all.filter(|named| !seen.insert(*named)).collect()
}

async fn one(
    ctx: &Context,
    version: i16,
    isolation: Isolation,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    let Some(query) = query(version, asked.timestamp) else {
        return failed(asked.partition_index, ErrorCode::UnsupportedVersion);
    };
    match find(ctx, topic, asked, query, isolation).await {
        Ok(found) => answer(version, asked.partition_index, found),
        Err(error) => failed(asked.partition_index, error.code()),
    }
}

async fn find(
    ctx: &Context,
    topic: &str,
    asked: &ListOffsetsPartition,
    query: OffsetQuery,
    isolation: Isolation,
) -> Result<Option<ListedOffset>, PartitionError> {
    let partition = ctx.partitions.find(TopicRef::Name(topic), asked.partition_index).await?;
    let current = (asked.current_leader_epoch >= 0).then_some(LeaderEpoch(asked.current_leader_epoch));
    partition.list_offset(query, isolation, current).await
}

/// The meaning of a timestamp, if the version has it.
fn query(version: i16, timestamp: i64) -> Option<OffsetQuery> {
    match timestamp {
        0.. => Some(OffsetQuery::Timestamp(timestamp)),
        -1 => Some(OffsetQuery::Latest),
        -2 => Some(OffsetQuery::Earliest),
        -3 if version >= 7 => Some(OffsetQuery::MaxTimestamp),
        -4 if version >= 8 => Some(OffsetQuery::EarliestLocal),
        -5 if version >= 9 => Some(OffsetQuery::Tiered),
        -6 if version >= 11 => Some(OffsetQuery::Tiered),
        _ => None,
    }
}

fn answer(version: i16, index: i32, found: Option<ListedOffset>) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
    let unknown = if mutants::is_on(Bug::UnknownOffsetAsZero) { 0 } else { -1 };
    let Some(found) = found else { return answer.with_offset(unknown).with_timestamp(-1).with_leader_epoch(-1) };
    let epoch = found.leader_epoch.filter(|_| version >= 4).map_or(-1, |epoch| epoch.0);
    answer.with_offset(found.offset.0).with_timestamp(found.timestamp_ms).with_leader_epoch(epoch)
}

fn failed(index: i32, error: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(error.code())
        .with_offset(-1)
        .with_timestamp(-1)
        .with_leader_epoch(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_timestamps_need_their_version() {
        assert_eq!(query(6, -3), None);
        assert_eq!(query(7, -3), Some(OffsetQuery::MaxTimestamp));
        assert_eq!(query(7, -4), None);
        assert_eq!(query(9, -5), Some(OffsetQuery::Tiered));
        assert_eq!(query(10, -6), None);
        assert_eq!(query(11, -6), Some(OffsetQuery::Tiered));
        assert_eq!(query(1, 0), Some(OffsetQuery::Timestamp(0)));
    }
}
