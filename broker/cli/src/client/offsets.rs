//! Start and end offsets of partitions, and offsets by timestamp: ListOffsets requests to each leader.
//!
//! May not know: groups, records.

use std::collections::BTreeMap;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};
use ottla_protocol::error::ErrorCode;

use super::cluster::{Cluster, TopicPartition, topic_name};
use super::error::ClientError;
use super::retry::Retry;

/// Timestamp of the log start offset.
pub const EARLIEST: i64 = -2;
/// Timestamp of the end offset, after the last record.
pub const LATEST: i64 = -1;

/// The result of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` if no record is as young as the timestamp.
    pub offset: Option<i64>,
    /// The leader's epoch there; -1 if unknown.
    pub epoch: i32,
}

impl Cluster {
    /// Looks offsets up by timestamp, [`EARLIEST`] or [`LATEST`]; retries where leaders have moved.
    ///
    /// # Errors
    /// When a topic does not exist or no broker responds; the errors of single partitions are in the result.
    pub async fn offsets(
        &mut self,
        mut wanted: BTreeMap<TopicPartition, i64>,
    ) -> Result<BTreeMap<TopicPartition, Result<ListedOffset, ClientError>>, ClientError> {
        let mut found = BTreeMap::new();
        let mut retry = Retry::new();
        while !wanted.is_empty() {
            let mut failed = self.offsets_once(&mut wanted, &mut found).await?;
            if wanted.is_empty() || retry.backoff().await {
                continue;
            }
            for at in std::mem::take(&mut wanted).into_keys() {
                let error = failed.remove(&at).unwrap_or_else(|| refused(&at, ErrorCode::LeaderNotAvailable.code()));
                found.insert(at, Err(error));
            }
        }
        Ok(found)
    }

    /// As [`Cluster::offsets`], with the same timestamp for all partitions.
    ///
    /// # Errors
    /// As [`Cluster::offsets`], and when one partition is refused.
    pub async fn offsets_at(
        &mut self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        timestamp: i64,
    ) -> Result<BTreeMap<TopicPartition, ListedOffset>, ClientError> {
        let wanted = partitions.into_iter().map(|at| (at, timestamp)).collect();
        self.offsets(wanted).await?.into_iter().map(|(at, place)| Ok((at, place?))).collect()
    }

    /// One round of requests; removes answered partitions from `wanted`, and returns the errors of the others.
    async fn offsets_once(
        &mut self,
        wanted: &mut BTreeMap<TopicPartition, i64>,
        found: &mut BTreeMap<TopicPartition, Result<ListedOffset, ClientError>>,
    ) -> Result<BTreeMap<TopicPartition, ClientError>, ClientError> {
        let mut topics: Vec<String> = wanted.keys().map(|(topic, _)| topic.clone()).collect();
        topics.dedup();
        let leaders = self.leaders(&topics).await?;
        let mut by_leader: BTreeMap<i32, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for (at, timestamp) in wanted.iter() {
            if let Some(leader) = leaders.get(at) {
                by_leader.entry(*leader).or_default().push((at.clone(), *timestamp));
            }
        }
        let mut failed = BTreeMap::new();
        for (leader, asked) in by_leader {
            match self.brokers.send(leader, 1..=9, |version| request(version, &asked)).await {
                Ok(answer) => {
                    for (at, place) in places(answer) {
                        match place {
                            Err(error) if error.is_retriable() => drop(failed.insert(at, error)),
                            place => {
                                wanted.remove(&at);
                                found.insert(at, place);
                            }
                        }
                    }
                }
                Err(ClientError::Connection { address, source }) => {
                    for (at, _) in asked {
                        let source = std::io::Error::new(source.kind(), source.to_string());
                        failed.insert(at, ClientError::Connection { address: address.clone(), source });
                    }
                }
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error),
            }
        }
        // A partition that the topic does not have never gets a leader.
        let missing: Vec<TopicPartition> = wanted.keys().filter(|at| !leaders.contains_key(*at)).cloned().collect();
        if !missing.is_empty() {
            for topic in self.topics(Some(&topics)).await?.into_iter().flatten() {
                let is_none = |at: &&TopicPartition| {
                    at.0 == topic.name && topic.partitions.iter().all(|known| known.index != at.1)
                };
                for at in missing.iter().filter(is_none) {
                    wanted.remove(at);
                    found.insert(at.clone(), Err(refused(at, ErrorCode::UnknownTopicOrPartition.code())));
                }
            }
        }
        Ok(failed)
    }
}

fn refused((topic, partition): &TopicPartition, code: i16) -> ClientError {
    ClientError::Refused { what: format!("topic {topic} partition {partition}"), code, message: None }
}

fn request(version: i16, asked: &[(TopicPartition, i64)]) -> ListOffsetsRequest {
    let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
    for ((topic, index), timestamp) in asked {
        let partition = ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*timestamp);
        let partition = if version >= 4 { partition.with_current_leader_epoch(-1) } else { partition };
        topics.entry(topic).or_default().push(partition);
    }
    let topic = |(name, partitions): (&str, Vec<_>)| {
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    };
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.into_iter().map(topic).collect())
}

fn places(answer: ListOffsetsResponse) -> Vec<(TopicPartition, Result<ListedOffset, ClientError>)> {
    let mut all = Vec::new();
    for topic in answer.topics {
        for partition in topic.partitions {
            let at = (topic.name.to_string(), partition.partition_index);
            let place = place(&at, &partition);
            all.push((at, place));
        }
    }
    all
}

fn place(at: &TopicPartition, partition: &ListOffsetsPartitionResponse) -> Result<ListedOffset, ClientError> {
    if partition.error_code != 0 {
        return Err(refused(at, partition.error_code));
    }
    Ok(ListedOffset { offset: Some(partition.offset).filter(|offset| *offset >= 0), epoch: partition.leader_epoch })
}
