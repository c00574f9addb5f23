//! DeleteRecords (key 21, v0-v2): moves a partition's log start forward, also into the middle of a batch (KIP-107).
//!
//! Offset -1 means the high watermark. OFFSET_OUT_OF_RANGE above it, POLICY_VIOLATION where `cleanup.policy` has no
//! `delete`; the response with the new log start is sent once it is committed.

use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use ottla_env::rt;
use ottla_protocol::ids::Offset;

use crate::handlers::context::Context;
use crate::partition::{PartitionError, TopicRef};

/// Kafka moves the log start before it applies the request's timeout, which is for followers. Here the move is a
/// committed entry: a client whose timeout is 0 still waits for it.
const TIMEOUT_MIN: Duration = Duration::from_secs(5);

pub(super) async fn handle(ctx: &Context, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).max(TIMEOUT_MIN);
    let topics = request.topics.into_iter().map(|topic| async move {
        let partitions = join_all(topic.partitions.iter().map(|asked| one(ctx, &topic.name, asked, timeout))).await;
        DeleteRecordsTopicResult::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(join_all(topics).await)
}

async fn one(
    ctx: &Context,
    topic: &str,
    asked: &DeleteRecordsPartition,
    timeout: Duration,
) -> DeleteRecordsPartitionResult {
    let answer = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
    let deleted = rt::timeout(timeout, delete(ctx, topic, asked)).await.unwrap_or(Err(PartitionError::TimedOut));
    match deleted {
        Ok(log_start) => answer.with_low_watermark(log_start.0),
        Err(error) => answer.with_low_watermark(-1).with_error_code(error.code().code()),
    }
}

async fn delete(ctx: &Context, topic: &str, asked: &DeleteRecordsPartition) -> Result<Offset, PartitionError> {
    let partition = ctx.partitions.find(TopicRef::Name(topic), asked.partition_index).await?;
    partition.delete_records(asked.offset).await
}
