//! Reads a topic's records: fetches from all leaders concurrently, each partition in order.
//!
//! Without a group: positions are kept in memory only. May not know: what is done with the records.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use ottla_protocol::error::ErrorCode;

use super::cluster::{Cluster, TopicPartition, topic_name};
use super::connection::Connection;
use super::error::ClientError;
use super::offsets::{EARLIEST, LATEST};
use super::records::{self, ReadRecord};
use super::retry::Retry;

/// The longest wait of a Fetch request for records.
const WAIT_MS: i32 = 500;
/// Byte limits of a response, and of one partition in it; a single batch may exceed both.
const FETCH_BYTES_MAX: i32 = 8 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;

/// The start position of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the log start offset.
    Earliest,
    /// At the end: only new records.
    Latest,
    /// At an offset.
    Offset(i64),
    /// At the first record of this time, milliseconds since 1970, or later.
    Time(i64),
}

/// The read position of a partition.
#[derive(Debug, Clone, Copy)]
struct Position {
    next: i64,
    /// Where reading ends.
    end: Option<i64>,
}

impl Position {
    fn is_open(&self) -> bool {
        self.end.is_none_or(|end| self.next < end)
    }
}

/// A completed fetch.
struct Fetched {
    leader: i32,
    outcome: Result<(Connection, FetchResponse), ClientError>,
}

/// Reads one topic.
pub struct Reader {
    cluster: Cluster,
    topic: String,
    positions: BTreeMap<i32, Position>,
    leaders: BTreeMap<i32, i32>,
    idle: BTreeMap<i32, Connection>,
    fetches: FuturesUnordered<BoxFuture<'static, Fetched>>,
    busy: BTreeSet<i32>,
    /// True if some partition's leader must be looked up again.
    is_stale: bool,
    retry: Retry,
    notes: Vec<String>,
}

impl Reader {
    /// Finds the topic and the start positions. `partitions`: empty for all. `to_end`: reading ends at the current end.
    ///
    /// # Errors
    /// When the topic or a partition does not exist, or no broker responds.
    pub async fn open(
        mut cluster: Cluster,
        topic: &str,
        partitions: &[i32],
        start: Start,
        to_end: bool,
    ) -> Result<Self, ClientError> {
        let view = cluster.topic(topic).await?;
        let known: Vec<i32> = view.partitions.iter().map(|partition| partition.index).collect();
        if let Some(unknown) = partitions.iter().find(|index| !known.contains(index)) {
            return Err(refused(topic, *unknown, ErrorCode::UnknownTopicOrPartition.code()));
        }
        let chosen: Vec<TopicPartition> = known
            .into_iter()
            .filter(|index| partitions.is_empty() || partitions.contains(index))
            .map(|index| (topic.to_owned(), index))
            .collect();
        let ends = if to_end { Some(cluster.offsets_at(chosen.iter().cloned(), LATEST).await?) } else { None };
        let end_of = |at: &TopicPartition| ends.as_ref().and_then(|ends| ends.get(at)?.offset);
        let begins = begins(&mut cluster, &chosen, start).await?;
        let position =
            |at: &TopicPartition| (at.1, Position { next: begins.get(at).copied().unwrap_or(0), end: end_of(at) });
        Ok(Self {
            positions: chosen.iter().map(position).collect(),
            cluster,
            topic: topic.to_owned(),
            leaders: BTreeMap::new(),
            idle: BTreeMap::new(),
            fetches: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            is_stale: true,
            retry: Retry::new(),
            notes: Vec::new(),
        })
    }

    /// Notes for the caller since the last call.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// The next fetched records, possibly none; `None` when all ends are reached.
    ///
    /// # Errors
    /// When a partition fails with a fatal error, or retries end.
    pub async fn next(&mut self) -> Result<Option<Vec<ReadRecord>>, ClientError> {
        if !self.positions.values().any(Position::is_open) {
            return Ok(None);
        }
        if self.is_stale {
            self.find_leaders().await?;
        }
        self.start_fetches();
        let Some(fetched) = self.fetches.next().await else {
            let unavailable = ErrorCode::LeaderNotAvailable.code();
            let open = self.positions.iter().find(|(_, position)| position.is_open());
            let error = refused(&self.topic, open.map_or(-1, |(index, _)| *index), unavailable);
            self.pause(error).await?;
            return Ok(Some(Vec::new()));
        };
        self.busy.remove(&fetched.leader);
        match fetched.outcome {
            Ok((connection, answer)) => {
                self.idle.insert(fetched.leader, connection);
                self.take(answer).await.map(Some)
            }
            Err(error) if error.is_retriable() => {
                self.pause(error).await?;
                Ok(Some(Vec::new()))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits before the leaders are looked up again.
    async fn pause(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.is_stale = true;
        if self.retry.backoff().await { Ok(()) } else { Err(error) }
    }

    async fn find_leaders(&mut self) -> Result<(), ClientError> {
        match self.cluster.leaders(std::slice::from_ref(&self.topic)).await {
            Ok(leaders) => {
                self.leaders = leaders.into_iter().map(|((_, index), leader)| (index, leader)).collect();
                let has_none =
                    |(index, position): (&i32, &Position)| position.is_open() && !self.leaders.contains_key(index);
                self.is_stale = self.positions.iter().any(has_none);
                Ok(())
            }
            Err(error) if error.is_retriable() => self.pause(error).await,
            Err(error) => Err(error),
        }
    }

    /// Sends a Fetch request to every leader without one in flight.
    fn start_fetches(&mut self) {
        let mut wanted: BTreeMap<i32, Vec<(i32, i64)>> = BTreeMap::new();
        for (index, position) in self.positions.iter().filter(|(_, position)| position.is_open()) {
            if let Some(leader) = self.leaders.get(index).filter(|leader| !self.busy.contains(leader)) {
                wanted.entry(*leader).or_default().push((*index, position.next));
            }
        }
        for (leader, partitions) in wanted {
            self.busy.insert(leader);
            let topic = self.topic.clone();
            let make = move |_| request(&topic, &partitions);
            let open = self.idle.remove(&leader);
            let address = self.cluster.brokers.address_of(leader);
            self.fetches.push(Box::pin(async move {
                let outcome = async {
                    let mut connection = match open {
                        Some(connection) => connection,
                        None => Connection::open(&address?).await?,
                    };
                    let answer = connection.call(4..=11, make).await?;
                    Ok((connection, answer))
                };
                Fetched { leader, outcome: outcome.await }
            }));
        }
    }

    async fn take(&mut self, answer: FetchResponse) -> Result<Vec<ReadRecord>, ClientError> {
        ClientError::check(answer.error_code, None, || format!("topic {}", self.topic))?;
        let mut all = Vec::new();
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            let index = partition.partition_index;
            match ErrorCode::from_code(partition.error_code) {
                Some(ErrorCode::None) => self.take_partition(&partition, &mut all)?,
                Some(ErrorCode::OffsetOutOfRange) => self.reset_position(index).await?,
                _ => {
                    let error = refused(&self.topic, index, partition.error_code);
                    if !error.is_retriable() {
                        return Err(error);
                    }
                    self.pause(error).await?;
                }
            }
        }
        if !self.is_stale {
            self.retry = Retry::new();
        }
        Ok(all)
    }

    fn take_partition(&mut self, partition: &PartitionData, all: &mut Vec<ReadRecord>) -> Result<(), ClientError> {
        let index = partition.partition_index;
        let (Some(position), Some(bytes)) = (self.positions.get_mut(&index), &partition.records) else { return Ok(()) };
        let what = || format!("topic {} partition {index}", self.topic);
        let end = position.end.unwrap_or(i64::MAX);
        position.next = records::read(bytes, index, position.next..end, what, all)?;
        Ok(())
    }

    /// Handles a position out of range: expired while it was read, or beyond the end.
    async fn reset_position(&mut self, index: i32) -> Result<(), ClientError> {
        let at = (self.topic.clone(), index);
        let earliest = self.cluster.offsets_at([at.clone()], EARLIEST).await?.get(&at).and_then(|place| place.offset);
        let Some(position) = self.positions.get_mut(&index) else { return Ok(()) };
        match earliest {
            Some(earliest) if position.next < earliest => {
                self.notes.push(format!(
                    "topic {} partition {index}: offset {} is not there any more, reading goes on at {earliest}",
                    self.topic, position.next
                ));
                position.next = earliest;
                Ok(())
            }
            _ => {
                let what = format!("topic {} partition {index}, offset {}", self.topic, position.next);
                Err(ClientError::Refused { what, code: ErrorCode::OffsetOutOfRange.code(), message: None })
            }
        }
    }
}

/// The start position of each partition.
async fn begins(
    cluster: &mut Cluster,
    chosen: &[TopicPartition],
    start: Start,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    let timestamp = match start {
        Start::Offset(offset) => return Ok(chosen.iter().map(|at| (at.clone(), offset)).collect()),
        Start::Earliest => EARLIEST,
        Start::Latest => LATEST,
        Start::Time(ms) => ms,
    };
    let places = cluster.offsets_at(chosen.iter().cloned(), timestamp).await?;
    let mut begins: BTreeMap<TopicPartition, i64> =
        places.iter().filter_map(|(at, place)| Some((at.clone(), place.offset?))).collect();
    // No record is as young as the timestamp: reading starts at the end.
    let rest: Vec<TopicPartition> = chosen.iter().filter(|at| !begins.contains_key(*at)).cloned().collect();
    if !rest.is_empty() {
        let ends = cluster.offsets_at(rest, LATEST).await?;
        begins.extend(ends.into_iter().filter_map(|(at, place)| Some((at, place.offset?))));
    }
    Ok(begins)
}

fn request(topic: &str, partitions: &[(i32, i64)]) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_current_leader_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(PARTITION_BYTES_MAX)
    };
    let topic =
        FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions.iter().map(partition).collect());
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(WAIT_MS)
        .with_min_bytes(1)
        .with_max_bytes(FETCH_BYTES_MAX)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

fn refused(topic: &str, partition: i32, code: i16) -> ClientError {
    ClientError::Refused { what: format!("topic {topic} partition {partition}"), code, message: None }
}
