//! Fetch (key 1, v4-v18): record batches from an offset on.
//!
//! v5 log start, v7 sessions (KIP-227, [`session`]), v9 leader epochs (KIP-320), v10 zstd (KIP-110), v11 rack
//! (KIP-392), v12 diverging epoch (KIP-595), v13 topic ids (KIP-516), v16 leader hints (KIP-951). The request is
//! answered at once on an error or enough bytes; else it waits for its partitions, for `max_wait_ms` at most. The first
//! batch is returned even above every limit, so that no consumer gets stuck. Only error codes that consumers handle are
//! sent. The response's size is bounded by `fetch.max.bytes` and by the free part of the node's budget.

mod replica_selector;
pub mod session;

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::protocol::StrBytes;
use ottla_env::rt::{self, Instant};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::fetch::{
    AbortedTransaction, CurrentLeader, DivergingEpoch, FetchPartitionResponse, FetchRequest, FetchResponse,
    FetchTopicResponse,
};
use ottla_protocol::ids::{LeaderEpoch, NodeId, Offset};
use ottla_storage::read::{PIECE_BYTES, ReadStream};

use self::session::{Key, Plan, Wanted};
use super::support::endpoints;
use crate::config::CompressionType;
use crate::handlers::context::Context;
use crate::limits::{FETCH_BYTES_FLOOR, GATHERED_BYTES_MAX};
use crate::partition::{Access, FetchSpec, Fetched, FetchedRecords, Isolation, Partition, PartitionError, TopicRef};
use crate::server::budget::Reservation;

const ZSTD_FROM: i16 = 10;
const TOPIC_IDS_FROM: i16 = 13;
const LEADER_HINT_FROM: i16 = 12;

/// The parameters of a request that hold for all its partitions.
struct FetchParams {
    version: i16,
    isolation: Isolation,
    /// The consumer's rack (availability zone).
    rack: Option<StrBytes>,
    bytes_max: usize,
    bytes_min: usize,
    deadline: Instant,
}

impl FetchParams {
    /// A consumer that names its rack may be served by any replica (KIP-392); others get the leader's id from a
    /// follower.
    fn access(&self) -> Access {
        if self.rack.is_some() { Access::AnyReplica } else { Access::Leader }
    }
}

/// The result of one pass over the partitions.
struct Pass {
    answers: Vec<(Key, FetchPartitionResponse)>,
    streams: Vec<ReadStream>,
    bytes: usize,
    /// Memory that the response holds while it is sent.
    held_bytes: usize,
    /// An error or another fact that the client must get at once.
    respond_now: bool,
    /// A limit was reached: waiting would not add bytes.
    full: bool,
    memory: Reservation,
}

/// The response as it is sent.
pub(super) struct FetchReply {
    pub(super) body: FetchResponse,
    /// The streamed records, in the order of the gaps that `body` leaves for them.
    pub(super) streams: Vec<ReadStream>,
    pub(super) memory: Reservation,
}

pub(super) async fn handle(ctx: &Context, version: i16, request: FetchRequest) -> FetchReply {
    let by_ids = version >= TOPIC_IDS_FROM;
    let params = FetchParams {
        version,
        rack: Some(request.rack_id.clone()).filter(|rack| !rack.is_empty()),
        isolation: if request.isolation_level == 1 { Isolation::ReadCommitted } else { Isolation::ReadUncommitted },
        bytes_max: usize::try_from(request.max_bytes).unwrap_or(0).min(ctx.config.network.fetch_bytes_max),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        deadline: rt::now() + Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
    };
    let mut plan = match ctx.sessions.begin(request, by_ids) {
        Ok(plan) => plan,
        Err(error) => {
            let (streams, memory) = (Vec::new(), Reservation::default());
            return FetchReply { body: FetchResponse::failed(error), streams, memory };
        }
    };
    let Pass { mut answers, streams, memory, .. } = read_or_wait(ctx, &params, &mut plan).await;
    ctx.metrics.fetch_sessions.set(i64::try_from(ctx.sessions.count()).unwrap_or(i64::MAX));
    let session_id = ctx.sessions.finish(plan, by_ids, &mut answers);
    FetchReply { body: answer(ctx, version, session_id, answers), streams, memory }
}

type FoundPartition = Result<Partition, ErrorCode>;

async fn find_all(ctx: &Context, params: &FetchParams, plan: &Plan) -> Vec<FoundPartition> {
    let mut found = Vec::with_capacity(plan.wanted.len());
    for wanted in &plan.wanted {
        let topic = topic_ref(&wanted.key);
        let partition = ctx.partitions.find_for(topic, wanted.key.index, params.access()).await;
        found.push(match partition {
            Ok(partition) if params.version < ZSTD_FROM && is_zstd(&partition) => {
                Err(ErrorCode::UnsupportedCompressionType)
            }
            Ok(partition) => {
                plan.found(wanted, &partition);
                Ok(partition)
            }
            Err(PartitionError::UnknownTopicId) if plan.had_found(wanted) => Err(ErrorCode::UnknownTopicOrPartition),
            Err(error) => Err(fetch_error_code(&error)),
        });
    }
    found
}

fn topic_ref(key: &Key) -> TopicRef<'_> {
    match &key.name {
        Some(name) => TopicRef::Name(name),
        None => TopicRef::Id(key.id.unwrap_or_default()),
    }
}

fn is_zstd(partition: &Partition) -> bool {
    partition.topic().config.compression_type == CompressionType::Zstd
}

/// The code for an error, of those that consumers handle.
fn fetch_error_code(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::LeaderNotAvailable | PartitionError::TimedOut => ErrorCode::NotLeaderOrFollower,
        PartitionError::PolicyViolation(_) => ErrorCode::UnknownServerError,
        PartitionError::UnknownTopicOrPartition
        | PartitionError::UnknownTopicId
        | PartitionError::NotLeaderOrFollower
        | PartitionError::FencedLeaderEpoch
        | PartitionError::UnknownLeaderEpoch
        | PartitionError::OffsetOutOfRange
        | PartitionError::OffsetNotAvailable
        | PartitionError::Storage => error.code(),
    }
}

/// Reads; if that is not enough, waits for more and reads once again, as Kafka's delayed fetch does.
async fn read_or_wait(ctx: &Context, params: &FetchParams, plan: &mut Plan) -> Pass {
    let found = find_all(ctx, params, plan).await;
    let pass = read_all(ctx, params, &plan.wanted, &found).await;
    let watch = plan.watch();
    let wants_nothing = plan.wanted.is_empty() && watch.is_none();
    let enough = pass.respond_now || pass.full || pass.bytes >= params.bytes_min || wants_nothing;
    if enough || rt::now() >= params.deadline {
        count(ctx, &found, &pass.answers);
        return pass;
    }
    let missing_bytes = params.bytes_min - pass.bytes;
    drop(pass);
    let found = if let Some(watch) = watch {
        ctx.partitions.wait_for_change(&watch, missing_bytes, params.isolation, params.deadline).await;
        plan.refresh();
        find_all(ctx, params, plan).await
    } else {
        let waits: Vec<(Partition, Offset)> = found
            .iter()
            .zip(&plan.wanted)
            .filter_map(|(found, wanted)| {
                found.as_ref().ok().map(|partition| (partition.clone(), wanted.from.fetch_offset))
            })
            .collect();
        let reader = (params.isolation, params.access());
        ctx.partitions.wait_for_data(&waits, reader, params.bytes_min, params.deadline).await;
        found
    };
    let pass = read_all(ctx, params, &plan.wanted, &found).await;
    count(ctx, &found, &pass.answers);
    pass
}

async fn read_all(ctx: &Context, params: &FetchParams, wanted: &[Wanted], found: &[FoundPartition]) -> Pass {
    let mut memory = ctx.answers.take_some(params.bytes_max);
    let mut left = params.bytes_max.min(memory.bytes().max(FETCH_BYTES_FLOOR));
    // Without reserved memory no records are copied ahead.
    let copy_bytes_max = if memory.bytes() >= GATHERED_BYTES_MAX { GATHERED_BYTES_MAX } else { 0 };
    let mut pass = Pass {
        answers: Vec::with_capacity(wanted.len()),
        streams: Vec::new(),
        bytes: 0,
        held_bytes: 0,
        respond_now: false,
        full: false,
        memory: Reservation::default(),
    };
    for (wanted, found) in wanted.iter().zip(found) {
        let partition_max = usize::try_from(wanted.from.max_bytes).unwrap_or(0);
        let nearer = found.as_ref().ok().zip(params.rack.as_deref()).and_then(|(partition, rack)| {
            replica_selector::nearest_replica(ctx, partition, rack, wanted.from.fetch_offset)
        });
        if let Some(answer) = nearer {
            pass.respond_now = true;
            pass.answers.push((wanted.key.clone(), answer));
            continue;
        }
        let outcome = match found {
            Err(error) => Err(*error),
            Ok(partition) => {
                let max_bytes = left.min(partition_max);
                let spec = spec(params, wanted, max_bytes, pass.bytes == 0, copy_bytes_max);
                read(ctx, params, wanted, partition, spec).await.map_err(|error| fetch_error_code(&error))
            }
        };
        let answer = match outcome {
            Ok(fetched) => {
                let bytes = fetched.records.bytes();
                pass.bytes += bytes;
                pass.full |= bytes > 0 && bytes * 2 >= left.min(partition_max);
                left = left.saturating_sub(bytes);
                pass.respond_now |= fetched.diverging_epoch.is_some();
                pass.partition_response(wanted.key.index, fetched)
            }
            Err(error) => {
                pass.respond_now = true;
                failed(ctx, params.version, wanted, error)
            }
        };
        pass.answers.push((wanted.key.clone(), answer));
    }
    memory.shrink_to(pass.held_bytes + pass.bytes.min(PIECE_BYTES));
    pass.memory = memory;
    pass
}

/// Reads a partition, where it is now: it may have moved to another shard of this node since it was found.
async fn read(
    ctx: &Context,
    params: &FetchParams,
    wanted: &Wanted,
    found: &Partition,
    spec: FetchSpec,
) -> Result<Fetched, PartitionError> {
    let outcome = found.read(spec).await;
    if !matches!(outcome, Err(PartitionError::LeaderNotAvailable)) {
        return outcome;
    }
    match ctx.partitions.find_for(topic_ref(&wanted.key), wanted.key.index, params.access()).await {
        Ok(moved) => moved.read(spec).await,
        // It was deleted, say: the client is told to look for it, as it would be if it had not waited here.
        Err(_) => outcome,
    }
}

fn spec(
    params: &FetchParams,
    wanted: &Wanted,
    max_bytes: usize,
    at_least_one: bool,
    copy_bytes_max: usize,
) -> FetchSpec {
    let given = |epoch: LeaderEpoch| (epoch.0 >= 0).then_some(epoch);
    FetchSpec {
        offset: wanted.from.fetch_offset,
        max_bytes,
        at_least_one,
        copy_bytes_max,
        isolation: params.isolation,
        access: params.access(),
        current_leader_epoch: given(wanted.from.current_leader_epoch),
        last_fetched_epoch: given(wanted.from.last_fetched_epoch),
    }
}

impl Pass {
    fn partition_response(&mut self, index: i32, fetched: Fetched) -> FetchPartitionResponse {
        let aborted = fetched.aborted.map(|aborted| {
            let transactions = aborted.into_iter();
            transactions
                .map(|t| AbortedTransaction { producer_id: t.producer_id.0, first_offset: t.first_offset })
                .collect()
        });
        let diverging = fetched.diverging_epoch;
        let mut answer = FetchPartitionResponse {
            high_watermark: fetched.watermarks.high_watermark,
            last_stable_offset: fetched.watermarks.last_stable,
            log_start: fetched.watermarks.log_start,
            diverging_epoch: diverging.map(|end| DivergingEpoch { epoch: end.epoch, end_offset: end.end_offset }),
            aborted_transactions: aborted,
            ..FetchPartitionResponse::failed(index, ErrorCode::None)
        };
        match fetched.records {
            FetchedRecords::None => {}
            FetchedRecords::Copied(bytes) => {
                self.held_bytes += bytes.len();
                answer.records = vec![bytes];
            }
            FetchedRecords::Streamed(stream) => {
                self.held_bytes += stream.memory_bytes();
                answer.later_bytes = stream.left();
                self.streams.push(*stream);
            }
        }
        answer
    }
}

fn failed(ctx: &Context, version: i16, wanted: &Wanted, error: ErrorCode) -> FetchPartitionResponse {
    let mut answer = FetchPartitionResponse::failed(wanted.key.index, error);
    if error == ErrorCode::OffsetOutOfRange {
        ctx.metrics.offsets_out_of_range.inc();
        tracing::info!(
            client = %ctx.connection.client_id.escape_debug(), partition = wanted.key.index, topic = ?wanted.key.name,
            "offset {} is out of range; the client's reset policy decides what it reads next", wanted.from.fetch_offset
        );
    }
    let moved = matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
    if moved && version >= LEADER_HINT_FROM {
        let image = ctx.metadata.image();
        let topic = match topic_ref(&wanted.key) {
            TopicRef::Name(name) => image.topic(name),
            TopicRef::Id(id) => image.topic_by_id(&id),
        };
        answer.current_leader = topic.and_then(|topic| {
            let leadership = ctx.partitions.leadership(topic, wanted.key.index);
            leadership.leader.map(|leader| CurrentLeader { leader, epoch: leadership.leader_epoch })
        });
    }
    answer
}

fn count(ctx: &Context, found: &[FoundPartition], answers: &[(Key, FetchPartitionResponse)]) {
    for (partition, (_, answer)) in found.iter().zip(answers) {
        if let Ok(partition) = partition
            && answer.records_bytes() > 0
        {
            let bytes = u64::try_from(answer.records_bytes()).unwrap_or(u64::MAX);
            ctx.metrics.topic(&partition.topic().name).bytes_out.inc_by(bytes);
        }
    }
}

/// Groups consecutive partitions of a topic and adds the addresses of hinted leaders.
fn answer(ctx: &Context, version: i16, session_id: i32, answers: Vec<(Key, FetchPartitionResponse)>) -> FetchResponse {
    let mut response = FetchResponse { session_id, ..FetchResponse::failed(ErrorCode::None) };
    let mut leaders = BTreeSet::<NodeId>::new();
    for (key, answer) in answers {
        leaders.extend(answer.current_leader.map(|hint| hint.leader));
        match response.topics.last_mut() {
            Some(topic) if topic.name == key.name && topic.id == key.id => topic.partitions.push(answer),
            _ => response.topics.push(FetchTopicResponse { name: key.name, id: key.id, partitions: vec![answer] }),
        }
    }
    if version >= 16 && !leaders.is_empty() {
        let image = ctx.metadata.image();
        response.node_endpoints =
            leaders.into_iter().filter_map(|leader| endpoints::endpoint(ctx, &image, leader)).collect();
    }
    response
}
