//! Offsets in transactions: each transactional id has a group, and what a transaction commits for it is the transaction's number.
//!
//! May not know: records, what an answer has to be.

use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, GroupId, OffsetFetchRequest, ProducerId, TopicName,
    TransactionalId, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};

use super::TOPIC;
use super::producer::{Insisted, Lost, Producer};
use crate::wire::{Client, text};
use crate::workload::committer::coordinator;
use crate::world::World;

/// Of `transaction.version` 1.
const ADD_OFFSETS: i16 = 3;
const COMMIT_BEFORE_BUMPS: i16 = 3;
/// Of version 2: the commit adds the group's partition to the transaction.
const COMMIT_WITH_BUMPS: i16 = 5;
const FETCH: i16 = 8;

/// The group of a transactional id.
pub(super) fn group_of(id: &str) -> String {
    format!("group-of-{id}")
}

impl Producer {
    /// Commits the number of a transaction in it, until that is acknowledged.
    pub(super) async fn commit_offset(&mut self, transaction: usize) -> Result<(), Lost> {
        let group = group_of(&self.id);
        let offset = self.world.oracle().transfers.commits_offset(transaction, &group);
        if !self.bumps {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(TransactionalId(text(&self.id)))
                .with_producer_id(ProducerId(self.producer.0))
                .with_producer_epoch(self.producer.1)
                .with_group_id(GroupId(text(&group)));
            self.ask(ADD_OFFSETS, &request, |answer: &AddOffsetsToTxnResponse| answer.error_code).await.1?;
        }
        let request = self.offset_request(&group, offset);
        let version = if self.bumps { COMMIT_WITH_BUMPS } else { COMMIT_BEFORE_BUMPS };
        let code_of = |answer: &TxnOffsetCommitResponse| Some(answer.topics.first()?.partitions.first()?.error_code);
        // Version 1 cannot tell a request that comes late from one of the next transaction, which has the same epoch.
        let is_repeatable = self.bumps;
        match self.insist(version, &request, |world| coordinator(world, &group), code_of, is_repeatable).await {
            Insisted::Done => Ok(()),
            Insisted::Refused(node, code) => {
                self.world.trace(None, format!("node {} refuses {offset} of {group}: {code}", node.0));
                self.judge_refusal(node, code);
                Err(Lost)
            }
            Insisted::Unknown => Err(Lost),
        }
    }

    fn offset_request(&self, group: &str, offset: i64) -> TxnOffsetCommitRequest {
        let partition =
            TxnOffsetCommitRequestPartition::default().with_partition_index(0).with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC)));
        TxnOffsetCommitRequest::default()
            .with_transactional_id(TransactionalId(text(&self.id)))
            .with_group_id(GroupId(text(group)))
            .with_producer_id(ProducerId(self.producer.0))
            .with_producer_epoch(self.producer.1)
            .with_topics(vec![topic.with_partitions(vec![partition])])
    }
}

/// Asks for the offset of a group that is stable: `None` if that cannot be told now.
pub(super) async fn stable_offset(world: &World, client: &mut Client, group: &str) -> Option<i64> {
    let topic = OffsetFetchRequestTopics::default().with_name(TopicName(text(TOPIC))).with_partition_indexes(vec![0]);
    let asked = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![asked]).with_require_stable(true);
    let answer = client.call(coordinator(world, group), FETCH, &request).await?;
    let of_group = answer.groups.first().filter(|group| group.error_code == 0)?;
    let of_partition = of_group.topics.first()?.partitions.first().filter(|partition| partition.error_code == 0)?;
    Some(of_partition.committed_offset)
}
