//! Produce (key 0, v3-v13; v0-v2 are advertised and refused): appends record batches.
//!
//! v7 zstd (KIP-110), v8 record errors (KIP-467), v10 leader hints (KIP-951), v13 topic ids. acks 0: no answer, an
//! error closes the connection; acks 1 and -1: answered when the batch is applied; others INVALID_REQUIRED_ACKS.
//! Batches are enqueued before [`start`] returns, so that pipelined requests keep their order; what must wait for a
//! partition first says so, and no later request of the connection overtakes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::produce::{
    CurrentLeader, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicResponse, RecordError,
};

use super::brokers::{self, text};
use crate::metrics::TopicMetrics;
use crate::partition::{
    Acks, AppendError, AppendOptions, Appended, ConnectionId, Origin, Partition, PartitionError, TopicRef,
};
use crate::server::Context;
use crate::server::dispatch::CloseReason;

/// The answer, `None` for acks 0, or the end of the connection.
pub(crate) type Outcome = Result<Option<ProduceResponse>, CloseReason>;

/// A Produce request under way.
pub(crate) struct Started {
    /// Gives the answer.
    pub(crate) outcome: BoxFuture<'static, Outcome>,
    /// Whether everything was enqueued: only then may a later request start before this one is answered.
    pub(crate) enqueued: bool,
}

/// An append: its result will come, or its partition must be found first.
enum Pending {
    Enqueued(BoxFuture<'static, Result<Appended, AppendError>>),
    Refused(AppendError),
    Unfound(Bytes),
}

/// One partition of the request.
struct Part {
    index: i32,
    pending: Pending,
    metrics: Option<TopicMetrics>,
    bytes: u64,
    records: u64,
}

pub(crate) fn start(ctx: &Arc<Context>, version: i16, request: ProduceRequest) -> Started {
    let Some(acks) = acks(request.acks) else {
        let outcome = Ok(Some(refused(request, ErrorCode::InvalidRequiredAcks)));
        return Started { outcome: futures_util::future::ready(outcome).boxed(), enqueued: true };
    };
    let options = AppendOptions {
        acks,
        timeout: Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)),
        origin: Origin::Client(ConnectionId(ctx.connection.peer.connection)),
        guard: None,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut enqueued = true;
    for mut topic in request.topics {
        let partitions = std::mem::take(&mut topic.partitions);
        let parts: Vec<Part> =
            partitions.into_iter().map(|partition| enqueue(ctx, version, &topic, partition, &options)).collect();
        enqueued &= !parts.iter().any(|part| matches!(part.pending, Pending::Unfound(_)));
        topics.push((topic, parts));
    }
    Started { outcome: finish(ctx.clone(), version, topics, options).boxed(), enqueued }
}

fn acks(acks: i16) -> Option<Acks> {
    match acks {
        -1 => Some(Acks::All),
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        _ => None,
    }
}

fn topic_ref(topic: &ProduceTopic) -> TopicRef<'_> {
    match (&topic.name, topic.id) {
        (Some(name), _) => TopicRef::Name(name),
        (None, id) => TopicRef::Id(id.unwrap_or_default()),
    }
}

/// Enqueues a batch if its partition is at hand.
fn enqueue(
    ctx: &Context,
    version: i16,
    topic: &ProduceTopic,
    partition: ProducePartition,
    options: &AppendOptions,
) -> Part {
    let batch = partition.records.unwrap_or_default();
    let mut part = Part {
        index: partition.index,
        metrics: None,
        bytes: batch.len() as u64,
        records: record_count(&batch),
        pending: Pending::Refused(AppendError::UnsupportedCompressionType),
    };
    if version < ZSTD_FROM && is_zstd(&batch) {
        return part;
    }
    part.pending = match ctx.partitions.find_now(topic_ref(topic), partition.index) {
        Ok(Some(found)) => {
            part.metrics = Some(ctx.metrics.topic(&found.topic().name));
            Pending::Enqueued(append(&found, batch, options))
        }
        Ok(None) => Pending::Unfound(batch),
        // What looks unknown from the tables may be new: `find` makes sure.
        Err(PartitionError::UnknownTopicOrPartition | PartitionError::UnknownTopicId) => Pending::Unfound(batch),
        Err(error) => Pending::Refused(error.into()),
    };
    part
}

fn append(
    partition: &Partition,
    batch: Bytes,
    options: &AppendOptions,
) -> BoxFuture<'static, Result<Appended, AppendError>> {
    partition.append(batch, options.clone()).boxed()
}

async fn finish(
    ctx: Arc<Context>,
    version: i16,
    topics: Vec<(ProduceTopic, Vec<Part>)>,
    options: AppendOptions,
) -> Outcome {
    let mut response = ProduceResponse::default();
    for (topic, parts) in topics {
        let mut partitions = Vec::with_capacity(parts.len());
        for part in parts {
            let answer = settle(&ctx, version, &topic, part, &options).await;
            partitions.push(answer);
        }
        response.topics.push(ProduceTopicResponse { name: topic.name, id: topic.id, partitions });
    }
    if options.acks == Acks::None {
        let failed = response.topics.iter().flat_map(|topic| &topic.partitions).find(|part| part.error.is_error());
        return match failed {
            None => Ok(None),
            Some(part) => Err(CloseReason(format!("a produce request with acks=0 failed: {}", part.error))),
        };
    }
    hint_at_leaders(&ctx, &mut response);
    Ok(Some(response))
}

/// Waits for one append and says what came of it.
async fn settle(
    ctx: &Context,
    version: i16,
    topic: &ProduceTopic,
    mut part: Part,
    options: &AppendOptions,
) -> ProducePartitionResponse {
    let outcome = match part.pending {
        Pending::Enqueued(result) => result.await,
        Pending::Refused(error) => Err(error),
        Pending::Unfound(batch) => match ctx.partitions.find(topic_ref(topic), part.index).await {
            Ok(found) => {
                part.metrics = Some(ctx.metrics.topic(&found.topic().name));
                append(&found, batch, options).await
            }
            Err(error) => Err(error.into()),
        },
    };
    match outcome {
        Ok(appended) => {
            if let Some(metrics) = part.metrics {
                metrics.bytes_in.inc_by(part.bytes);
                metrics.records_in.inc_by(part.records);
            }
            let log_append_time_ms = appended.log_append_time_ms.unwrap_or(-1);
            ProducePartitionResponse::appended(part.index, appended.base_offset, log_append_time_ms, appended.log_start)
        }
        Err(error) => {
            if let Some(metrics) = part.metrics {
                metrics.refused.inc();
            }
            rejected(ctx, version, topic, part.index, &error)
        }
    }
}

fn rejected(
    ctx: &Context,
    version: i16,
    topic: &ProduceTopic,
    index: i32,
    error: &AppendError,
) -> ProducePartitionResponse {
    let mut answer = ProducePartitionResponse::failed(index, error.code());
    answer.error_message = Some(text(&error.to_string()));
    if let AppendError::InvalidRecord { records, .. } | AppendError::InvalidTimestamp { records, .. } = error {
        let faults = records.iter().map(|record| RecordError {
            batch_index: record.batch_index,
            message: record.message.as_deref().map(text),
        });
        answer.record_errors = faults.collect();
    }
    if version >= LEADER_HINTS_FROM && answer.error == ErrorCode::NotLeaderOrFollower {
        let image = ctx.metadata.image();
        let known = match topic_ref(topic) {
            TopicRef::Name(name) => image.topic(name),
            TopicRef::Id(id) => image.topic_by_id(&id),
        };
        answer.current_leader = known.and_then(|topic| {
            let leadership = ctx.partitions.leadership(topic, index);
            leadership.leader.map(|leader| CurrentLeader { leader, epoch: leadership.leader_epoch })
        });
    }
    answer
}

/// Adds the addresses of the leaders that answers name (KIP-951).
fn hint_at_leaders(ctx: &Context, response: &mut ProduceResponse) {
    let hints = response.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|part| part.current_leader);
    let mut leaders: Vec<_> = hints.map(|hint| hint.leader).collect();
    if leaders.is_empty() {
        return;
    }
    leaders.sort_unstable();
    leaders.dedup();
    let image = ctx.metadata.image();
    response.node_endpoints = leaders.into_iter().filter_map(|leader| brokers::endpoint(ctx, &image, leader)).collect();
}

/// The same answer for every partition.
fn refused(request: ProduceRequest, error: ErrorCode) -> ProduceResponse {
    let topics = request.topics.into_iter().map(|topic| ProduceTopicResponse {
        name: topic.name,
        id: topic.id,
        partitions: topic.partitions.iter().map(|part| ProducePartitionResponse::failed(part.index, error)).collect(),
    });
    ProduceResponse { topics: topics.collect(), ..ProduceResponse::default() }
}

const ZSTD_FROM: i16 = 7;
const LEADER_HINTS_FROM: i16 = 10;
const ATTRIBUTES_AT: usize = 21;
const RECORD_COUNT_AT: usize = 57;
const CODEC_MASK: u8 = 0x07;
const ZSTD: u8 = 4;

fn is_zstd(batch: &Bytes) -> bool {
    batch.get(ATTRIBUTES_AT + 1).is_some_and(|attributes| attributes & CODEC_MASK == ZSTD)
}

/// The count that the batch's head claims, for the metrics of what was accepted.
fn record_count(batch: &Bytes) -> u64 {
    let field = batch.get(RECORD_COUNT_AT..).and_then(|rest| rest.first_chunk::<4>());
    field.map_or(0, |field| u64::from(u32::from_be_bytes(*field)))
}
