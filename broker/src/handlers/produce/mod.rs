//! Produce (key 0, v3-v13; v0-v2 are advertised and refused): appends record batches.
//!
//! v7 zstd (KIP-110), v8 record errors (KIP-467), v10 leader hints (KIP-951), v13 topic ids. acks 0: no response, an
//! error closes the connection; acks 1 and -1: answered when the batch is applied; others INVALID_REQUIRED_ACKS.
//! Batches are enqueued before [`start`] returns, so that pipelined requests keep their order. A request that must wait
//! until its partition is found, or until the coordinator of its transaction has answered, returns `false`, and no later request
//! of the connection overtakes it.

pub mod partition_cache;
pub mod pending_refusals;
mod transactional;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::mutants::{self, Bug};
use ottla_protocol::batch::RawHeader;
use ottla_protocol::compression::Codec;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::produce::{
    CurrentLeader, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse, ProduceTopic,
    ProduceTopicResponse, RecordError,
};

use self::partition_cache::{CachedPartition, PartitionCache};
use self::transactional::{Begin, Client, Opening};
use super::support::{endpoints, text};
use crate::handlers::context::Context;
use crate::metrics::TopicMetrics;
use crate::partition::{
    Acks, AppendError, AppendOptions, Appended, Appending, ConnectionId, Origin, PartitionError, TopicRef,
};
use crate::server::dispatch::CloseReason;

/// The response, `None` for acks 0, or why the connection is closed.
pub(crate) type Outcome = Result<Option<ProduceResponse>, CloseReason>;

/// The state of an append.
enum Pending {
    Enqueued(Appending),
    /// It may open a transaction: the coordinator is asked for all of these at once.
    Opening(Box<Opening>),
    /// The coordinator is being asked.
    Asked,
    /// Its partition is not found yet.
    Unresolved(Bytes),
    Resolving(BoxFuture<'static, (Option<Arc<TopicMetrics>>, Result<Appended, AppendError>)>),
    Settled(Result<Appended, AppendError>),
}

/// One partition of the request.
struct Part {
    index: i32,
    pending: Pending,
    cached: Option<Arc<CachedPartition>>,
    /// Its batch, if it belongs to a transaction: what is known of that may have changed before the batch is applied.
    again: Option<Bytes>,
    bytes: u64,
    records: u64,
}

impl Part {
    /// Its outcome is known; one whose partition was cached is counted here.
    fn settle(&mut self, outcome: Result<Appended, AppendError>) {
        if let Some(cached) = &self.cached {
            count(&cached.metrics, self, &outcome);
            if matches!(outcome, Err(AppendError::Partition(PartitionError::NotLeaderOrFollower))) {
                cached.mark_stale();
            }
        }
        self.pending = Pending::Settled(outcome);
    }
}

/// The future of a Produce request; resolves to its [`Outcome`].
pub(crate) struct Producing {
    ctx: Arc<Context>,
    options: AppendOptions,
    client: Client,
    /// What the coordinator of the request's transaction is asked: the parts that this enqueues or refuses.
    asking: Option<BoxFuture<'static, Vec<(usize, Result<Appending, AppendError>)>>>,
    /// The topics of the request; their partitions are the next `parts`.
    topics: Vec<(ProduceTopic, usize)>,
    parts: Vec<Part>,
    /// All parts before this one are settled.
    settled: usize,
    /// A response that needs no append.
    ready: Option<ProduceResponse>,
}

/// Starts a request: enqueues the batches whose partition is found. True if that was all of them: only then may a later
/// request start before this one is answered.
pub(crate) fn start(
    ctx: Arc<Context>,
    version: i16,
    request: ProduceRequest,
    cache: &mut PartitionCache,
) -> (Producing, bool) {
    let acks = acks(request.acks);
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let options = AppendOptions::new(Origin::Client(connection_of(&ctx)), timeout);
    let options = AppendOptions { acks: acks.unwrap_or(Acks::All), ..options };
    let transactional_id = request.transactional_id.as_ref().map(|id| Arc::from(id.as_str()));
    let client = Client { version, transactional_id };
    let (topics, parts) = (Vec::new(), Vec::new());
    let mut producing = Producing { ctx, options, client, asking: None, topics, parts, settled: 0, ready: None };
    if acks.is_none() {
        producing.ready = Some(refused(request, ErrorCode::InvalidRequiredAcks));
        return (producing, true);
    }
    let enqueued = producing.enqueue_all(request.topics, cache);
    (producing, enqueued)
}

fn connection_of(ctx: &Context) -> ConnectionId {
    ConnectionId(ctx.connection.peer.connection)
}

fn acks(acks: i16) -> Option<Acks> {
    match acks {
        -1 => Some(Acks::All),
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        _ => None,
    }
}

/// The topic's name and id, for the lookup of its partition.
fn without_partitions(topic: &ProduceTopic) -> ProduceTopic {
    ProduceTopic { name: topic.name.clone(), id: topic.id, partitions: Vec::new() }
}

fn topic_ref(topic: &ProduceTopic) -> TopicRef<'_> {
    match (&topic.name, topic.id) {
        (Some(name), _) => TopicRef::Name(name),
        (None, id) => TopicRef::Id(id.unwrap_or_default()),
    }
}

/// Enqueues a batch if its partition is cached or found without waiting.
fn enqueue(
    ctx: &Context,
    client: &Client,
    topic: &ProduceTopic,
    partition: ProducePartition,
    options: &AppendOptions,
    cache: &mut PartitionCache,
) -> Part {
    let (index, batch) = (partition.index, partition.records.unwrap_or_default());
    let (bytes, records) = (batch.len() as u64, record_count(&batch));
    let part = |pending, cached| Part { index, pending, cached, again: None, bytes, records };
    if client.version < ZSTD_FROM && is_zstd(&batch) {
        return part(Pending::Settled(Err(AppendError::UnsupportedCompressionType)), None);
    }
    let cached = match cache.get(topic, index) {
        Some(cached) => cached,
        None => match ctx.partitions.find_now(topic_ref(topic), index) {
            Ok(Some(found)) => {
                let metrics = ctx.metrics.topic(&found.topic().name);
                cache.insert(topic, index, found, metrics)
            }
            // A topic that the local metadata do not have may be new: `find` makes sure.
            Ok(None) | Err(PartitionError::UnknownTopicOrPartition | PartitionError::UnknownTopicId) => {
                return part(Pending::Unresolved(batch), None);
            }
            Err(error) => {
                ctx.pending_refusals.record(topic, index, &batch, &error);
                return part(Pending::Settled(Err(error.into())), None);
            }
        },
    };
    ctx.pending_refusals.report_to(topic, index, &cached.partition, connection_of(ctx));
    match transactional::begin(client, &cached.partition, batch) {
        Begin::Enqueue(batch, None) => part(Pending::Enqueued(cached.partition.append(batch, options)), Some(cached)),
        // This node may have begun to lead since it looked, without the marker of the transaction before or with it.
        Begin::Enqueue(batch, transaction) => {
            let options = AppendOptions { transaction, ..options.clone() };
            let again = (!mutants::is_on(Bug::TransactionNotAskedAgain)).then(|| batch.clone());
            Part { again, ..part(Pending::Enqueued(cached.partition.append(batch, &options)), Some(cached)) }
        }
        Begin::Ask(opening) => {
            let again = Some(opening.batch.clone());
            Part { again, ..part(Pending::Opening(opening), Some(cached)) }
        }
    }
}

impl Producing {
    fn enqueue_all(&mut self, topics: Vec<ProduceTopic>, cache: &mut PartitionCache) -> bool {
        let cache = cache.valid_for(self.ctx.partitions.image_index());
        self.topics.reserve_exact(topics.len());
        for mut topic in topics {
            let partitions = std::mem::take(&mut topic.partitions);
            let count = partitions.len();
            self.parts.reserve_exact(count);
            for partition in partitions {
                self.parts.push(enqueue(&self.ctx, &self.client, &topic, partition, &self.options, cache));
            }
            self.topics.push((topic, count));
        }
        let unresolved = self.parts.iter().any(|part| matches!(part.pending, Pending::Unresolved(_)));
        if unresolved {
            cache.clear();
        }
        self.ask_coordinator();
        !unresolved && self.asking.is_none()
    }

    /// Asks once for all parts that may open the transaction of the request.
    fn ask_coordinator(&mut self) {
        let (mut numbers, mut openings) = (Vec::new(), Vec::new());
        for (number, part) in self.parts.iter_mut().enumerate() {
            if matches!(part.pending, Pending::Opening(_))
                && let Pending::Opening(opening) = std::mem::replace(&mut part.pending, Pending::Asked)
            {
                numbers.push(number);
                openings.push(*opening);
            }
        }
        if openings.is_empty() {
            return;
        }
        let (ctx, client, options) = (self.ctx.clone(), self.client.clone(), self.options.clone());
        self.asking = Some(
            async move {
                let begun = transactional::ask(&ctx, &client, openings, &options).await;
                numbers.into_iter().zip(begun).collect()
            }
            .boxed(),
        );
    }

    fn poll_coordinator(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let Some(asking) = &mut self.asking else { return Poll::Ready(()) };
        let begun = ready!(asking.as_mut().poll(task));
        self.asking = None;
        for (number, outcome) in begun {
            match outcome {
                Ok(appending) => self.parts[number].pending = Pending::Enqueued(appending),
                Err(error) => self.parts[number].settle(Err(error)),
            }
        }
        Poll::Ready(())
    }

    /// The topic that a part belongs to.
    fn topic_of(&self, part: usize) -> &ProduceTopic {
        let mut end = 0;
        let mut ends = self.topics.iter().map(|(topic, count)| {
            end += count;
            (topic, end)
        });
        let found = ends.find(|(_, end)| part < *end);
        found.map_or_else(|| panic!("part {part} of {} belongs to no topic", self.parts.len()), |(topic, _)| topic)
    }

    fn poll_part(&mut self, number: usize, task: &mut Task<'_>) -> Poll<()> {
        let part = &mut self.parts[number];
        let settled = match &mut part.pending {
            Pending::Settled(_) => return Poll::Ready(()),
            Pending::Enqueued(appending) => match ready!(Pin::new(appending).poll(task)) {
                Err(AppendError::TransactionEnded) => match part.again.take() {
                    Some(batch) => return self.append_again(number, batch, task),
                    None => Err(AppendError::TransactionEnded),
                },
                settled => settled,
            },
            Pending::Opening(_) | Pending::Asked => unreachable!("part {number} is polled before its coordinator"),
            Pending::Resolving(resolving) => {
                let (metrics, result) = ready!(resolving.as_mut().poll(task));
                if let Some(metrics) = metrics {
                    count(&metrics, part, &result);
                }
                result
            }
            Pending::Unresolved(batch) => {
                let (batch, index) = (std::mem::take(batch), part.index);
                let topic = without_partitions(self.topic_of(number));
                let found = find_and_append(&self.ctx, &self.client, topic, index, batch, &self.options);
                self.parts[number].pending = Pending::Resolving(found);
                return self.poll_part(number, task);
            }
        };
        part.settle(settled);
        Poll::Ready(())
    }

    /// Its transaction may be another one by now: its coordinator is asked once more.
    fn append_again(&mut self, number: usize, batch: Bytes, task: &mut Task<'_>) -> Poll<()> {
        let cached = self.parts[number].cached.clone();
        let cached = cached.unwrap_or_else(|| panic!("part {number} was enqueued without a partition"));
        let (ctx, client, options) = (self.ctx.clone(), self.client.clone(), self.options.clone());
        self.parts[number].pending = Pending::Resolving(
            async move {
                // Counted with the part, whose partition is cached.
                (None, transactional::append(&ctx, &client, &cached.partition, batch, &options).await)
            }
            .boxed(),
        );
        self.poll_part(number, task)
    }

    /// The outcome when all parts are settled.
    fn outcome(&mut self) -> Outcome {
        let mut response = ProduceResponse { topics: Vec::with_capacity(self.topics.len()), ..Default::default() };
        let mut parts = std::mem::take(&mut self.parts).into_iter();
        for (topic, count) in std::mem::take(&mut self.topics) {
            let answers = parts.by_ref().take(count).map(|part| answer(&self.ctx, self.client.version, &topic, part));
            let partitions = answers.collect();
            response.topics.push(ProduceTopicResponse { name: topic.name, id: topic.id, partitions });
        }
        if self.options.acks == Acks::None {
            let failed = response.topics.iter().flat_map(|topic| &topic.partitions).find(|part| part.error.is_error());
            return match failed {
                None => Ok(None),
                Some(part) => Err(CloseReason(format!("a produce request with acks=0 failed: {}", part.error))),
            };
        }
        hint_at_leaders(&self.ctx, &mut response);
        Ok(Some(response))
    }
}

impl Future for Producing {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Outcome> {
        if let Some(response) = self.ready.take() {
            return Poll::Ready(Ok(Some(response)));
        }
        ready!(self.poll_coordinator(task));
        while self.settled < self.parts.len() {
            let number = self.settled;
            ready!(self.poll_part(number, task));
            self.settled += 1;
        }
        Poll::Ready(self.outcome())
    }
}

/// Waits for a partition that the local metadata do not have yet, then appends.
fn find_and_append(
    ctx: &Arc<Context>,
    client: &Client,
    topic: ProduceTopic,
    index: i32,
    batch: Bytes,
    options: &AppendOptions,
) -> BoxFuture<'static, (Option<Arc<TopicMetrics>>, Result<Appended, AppendError>)> {
    let (ctx, client, options) = (ctx.clone(), client.clone(), options.clone());
    async move {
        match ctx.partitions.find(topic_ref(&topic), index).await {
            Ok(found) => {
                ctx.pending_refusals.report_to(&topic, index, &found, connection_of(&ctx));
                let metrics = ctx.metrics.topic(&found.topic().name);
                (Some(metrics), transactional::append(&ctx, &client, &found, batch, &options).await)
            }
            Err(error) => {
                ctx.pending_refusals.record(&topic, index, &batch, &error);
                (None, Err(error.into()))
            }
        }
    }
    .boxed()
}

fn count(metrics: &TopicMetrics, part: &Part, result: &Result<Appended, AppendError>) {
    match result {
        Ok(_) => {
            metrics.bytes_in.inc_by(part.bytes);
            metrics.records_in.inc_by(part.records);
        }
        Err(_) => metrics.refused.inc(),
    }
}

/// The response of one append.
fn answer(ctx: &Context, version: i16, topic: &ProduceTopic, part: Part) -> ProducePartitionResponse {
    let Pending::Settled(settled) = part.pending else {
        let connection = ctx.connection.peer.connection;
        unreachable!("connection {connection}: partition {} is answered before its append is settled", part.index);
    };
    match settled {
        Ok(Appended { base_offset, log_append_time_ms, log_start }) => {
            ProducePartitionResponse::appended(part.index, base_offset, log_append_time_ms.unwrap_or(-1), log_start)
        }
        Err(error) => rejected(ctx, version, topic, part.index, &error),
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

/// Adds the addresses of the leaders that the response names (KIP-951).
fn hint_at_leaders(ctx: &Context, response: &mut ProduceResponse) {
    let hints = response.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|part| part.current_leader);
    let mut leaders: Vec<_> = hints.map(|hint| hint.leader).collect();
    if leaders.is_empty() {
        return;
    }
    leaders.sort_unstable();
    leaders.dedup();
    let image = ctx.metadata.image();
    response.node_endpoints =
        leaders.into_iter().filter_map(|leader| endpoints::endpoint(ctx, &image, leader)).collect();
}

/// The same error for every partition.
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

fn is_zstd(batch: &[u8]) -> bool {
    RawHeader::of(batch).is_some_and(|header| header.attributes().codec() == Some(Codec::Zstd))
}

/// The record count in the batch's header, for the metrics of accepted batches.
fn record_count(batch: &[u8]) -> u64 {
    RawHeader::of(batch).map_or(0, |header| u64::from(header.record_count().cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use ottla_protocol::produce::{ProducePartition, ProduceTopic};

    use super::*;

    #[test]
    fn a_request_that_is_refused_whole_is_answered_for_each_partition() {
        let part = |index| ProducePartition { index, records: None };
        let topic = |id, parts: &[i32]| ProduceTopic {
            name: None,
            id: Some(uuid::Uuid::from_u128(id)),
            partitions: parts.iter().copied().map(part).collect(),
        };
        let topics = vec![topic(1, &[0, 3]), topic(2, &[1])];
        let request = ProduceRequest { transactional_id: None, acks: 1, timeout_ms: 1, topics };
        let answer = refused(request, ErrorCode::InvalidRequiredAcks);
        let told = answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(|part| (topic.id, part)));
        let told: Vec<_> = told.map(|(id, part)| (id.map(|id| id.as_u128()), part.index, part.error)).collect();
        let error = ErrorCode::InvalidRequiredAcks;
        assert_eq!(told, [(Some(1), 0, error), (Some(1), 3, error), (Some(2), 1, error)]);
    }
}
