//! DescribeTopicPartitions (key 75, v0): topics page by page, with a cursor (KIP-966).
//!
//! Topics are sorted by name; no names = all topics. A response holds at most `response_partition_limit` partitions
//! (2,000 at most, Kafka's `max.request.partition.size.limit`); the cursor is the start of the next page. Eligible
//! leader replicas are empty: Raft has no such notion.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};
use ottla_protocol::error::ErrorCode;

use super::support::partition_metadata::PartitionLookup;
use super::support::{authorized_operations, text};
use crate::handlers::context::Context;
use crate::metadata::{Topic, names};

const PARTITIONS_MAX: usize = 2_000;

pub(super) async fn handle(ctx: &Context, request: DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let mut image = ctx.metadata.image();
    let named: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
    let mut error = ErrorCode::UnknownTopicOrPartition;
    if named.iter().any(|name| image.topic(name).is_none()) {
        if ctx.metadata.read_index().await.is_err() {
            // Newer metadata of other nodes may have the topic.
            error = ErrorCode::LeaderNotAvailable;
        }
        image = ctx.metadata.image();
    }
    let begin = request.cursor.as_ref().map(|cursor| (cursor.topic_name.as_str(), cursor.partition_index));
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(1).clamp(1, PARTITIONS_MAX);
    let mut page = Page {
        views: PartitionLookup::new(ctx, &image),
        unknown: error,
        begin,
        left: limit,
        topics: Vec::new(),
        next: None,
    };
    if named.is_empty() {
        page.fill(image.topics.values().map(|topic| (topic.name.as_ref(), Some(topic))));
    } else {
        page.fill(named.into_iter().map(|name| (name, image.topic(name))));
    }
    DescribeTopicPartitionsResponse::default().with_topics(page.topics).with_next_cursor(page.next)
}

/// The response while it is filled.
struct Page<'a> {
    views: PartitionLookup<'a>,
    /// The error of a name that does not exist.
    unknown: ErrorCode,
    begin: Option<(&'a str, i32)>,
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<Cursor>,
}

impl<'a> Page<'a> {
    fn fill(&mut self, topics: impl Iterator<Item = (&'a str, Option<&'a Arc<Topic>>)>) {
        let (begin_name, begin_index) = self.begin.unwrap_or(("", 0));
        for (name, topic) in topics.skip_while(|(name, _)| *name < begin_name) {
            let from = if name == begin_name { begin_index.max(0) } else { 0 };
            if self.left == 0 {
                self.next = Some(cursor(name, from));
                return;
            }
            match topic {
                None => self.topics.push(unknown(name, self.unknown)),
                Some(topic) => {
                    if let Some(next) = self.push(topic, from) {
                        self.next = Some(cursor(name, next));
                        return;
                    }
                }
            }
        }
    }

    /// Adds the partitions of a topic that fit; returns the first one that did not.
    fn push(&mut self, topic: &Topic, from: i32) -> Option<i32> {
        let room = i32::try_from(self.left).unwrap_or(i32::MAX);
        let end = topic.partition_count().min(from.saturating_add(room));
        let partitions: Vec<_> = (from..end).map(|index| self.partition(topic, index)).collect();
        self.left -= partitions.len();
        self.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(TopicName(text(&topic.name))))
                .with_topic_id(topic.id)
                .with_is_internal(topic.internal)
                .with_topic_authorized_operations(authorized_operations::TOPIC)
                .with_partitions(partitions),
        );
        (end < topic.partition_count()).then_some(end)
    }

    fn partition(&mut self, topic: &Topic, index: i32) -> DescribeTopicPartitionsResponsePartition {
        let view = self.views.of(topic, index);
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(view.error.code())
            .with_partition_index(index)
            .with_leader_id(view.leader)
            .with_leader_epoch(view.leader_epoch)
            .with_replica_nodes(view.replicas)
            .with_isr_nodes(view.in_sync)
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(view.offline)
    }
}

fn cursor(topic: &str, index: i32) -> Cursor {
    Cursor::default().with_topic_name(TopicName(text(topic))).with_partition_index(index)
}

fn unknown(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    let error = if names::check_name(name).is_ok() { error } else { ErrorCode::InvalidTopic };
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_error_code(error.code())
        .with_topic_authorized_operations(authorized_operations::NOT_REQUESTED)
}
