//! The end offsets of partitions as their leaders have them, for consumer lag: from this node's shards or by a request
//! to another node.
//!
//! Beside the ends the leader counts the control records from a position on, which clients are never given: of a
//! partition in which a transaction has ended it walks over the batches before the end, a bounded number of them. What
//! lies beyond the bound counts as records.
//!
//! Requests between nodes travel in the class of messages that may wait. May not know: groups, and what the ends are
//! used for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::rt;
use ottla_protocol::ids::{NodeId, Offset, PartitionId};
use ottla_raft::Priority;
use ottla_storage::data_dir::{DataDir, WalkedBatch};
use ottla_storage::index::{ExtentKey, IndexedBatch};

use super::handle::Shard;
use super::lag_request::{CommittedPosition, ControlCount, EndsAnswer, LagRequest, PartitionEnds, TopicPositions};
use super::manager::Shards;
use super::read_view::LogOffsetSnapshot;
use super::rpc::{NodeRequest, PeerService};
use crate::metadata::MetadataImage;

/// How long another node has to answer with the ends of a batch of partitions, some of which may need a lookup on disk.
const ENDS_WAIT: Duration = Duration::from_secs(3);
/// How long another node has to answer for the groups that it coordinates.
const GROUPS_WAIT: Duration = Duration::from_secs(3);
/// Batches from a position on among which control records are counted.
const WALK_BATCHES_MAX: usize = 256;

impl Shards {
    /// Serves other nodes' requests for groups from now on; the first service stays.
    pub(crate) fn serve_groups(&self, service: PeerService) {
        let _ = self.0.groups_service.set(service);
    }

    pub(super) async fn answer_lag(&self, request: LagRequest) -> Option<Bytes> {
        match request {
            LagRequest::Ends(topics) => Some(EndsAnswer::encode_all(&self.ends_here(&topics, false).await)),
            LagRequest::EndsAndControl(topics) => Some(EndsAnswer::encode_all(&self.ends_here(&topics, true).await)),
            LagRequest::Groups(request) => (self.0.groups_service.get()?.clone())(request).await,
        }
    }

    /// The ends of partitions that `node` leads: an answer for each position in order, `None` if none came.
    pub(crate) async fn ends(&self, node: NodeId, topics: Vec<TopicPositions>) -> Option<Vec<EndsAnswer>> {
        if node == self.0.node {
            return Some(self.ends_here(&topics, true).await);
        }
        let requested = topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
        let request = LagRequest::EndsAndControl(topics);
        let answer = self.ask_about_lag(node, request, LagRequest::without_control, ENDS_WAIT).await?;
        EndsAnswer::decode_all(&answer).ok().filter(|answers| answers.len() == requested)
    }

    /// The response of the coordinator on `node` to a request for groups, or if it does not understand that to one of
    /// an older version.
    pub(crate) async fn ask_groups(&self, node: NodeId, request: Bytes, older: Bytes) -> Option<Bytes> {
        self.ask_about_lag(node, LagRequest::Groups(request), |_| LagRequest::Groups(older), GROUPS_WAIT).await
    }

    /// The response of `node`. A node of a release before refuses at once what it does not know: it gets the request
    /// that it does, in the time that is left.
    async fn ask_about_lag(
        &self,
        node: NodeId,
        request: LagRequest,
        older: impl FnOnce(LagRequest) -> LagRequest,
        wait: Duration,
    ) -> Option<Bytes> {
        let deadline = rt::now() + wait;
        let answer = self.ask_node(node, &NodeRequest::ConsumerLag(request.clone()), Priority::Bulk, wait).await;
        let left = deadline.since(rt::now());
        if answer.is_some() || left.is_zero() {
            return answer;
        }
        self.ask_node(node, &NodeRequest::ConsumerLag(older(request)), Priority::Bulk, left).await
    }

    async fn ends_here(&self, topics: &[TopicPositions], with_control: bool) -> Vec<EndsAnswer> {
        let image = self.0.metadata.image();
        let mut answers = Vec::new();
        for topic in topics {
            for at in &topic.partitions {
                let found = self.leading(&image, topic, at.partition);
                answers.push(match found {
                    Some((shard, id)) => ends_of(&shard, id, at, with_control).await,
                    None => EndsAnswer::NotLeader,
                });
            }
        }
        answers
    }

    /// The shard that carries a partition, if this node leads it.
    fn leading(&self, image: &MetadataImage, topic: &TopicPositions, index: i32) -> Option<(Arc<Shard>, PartitionId)> {
        let topic = image.topic_by_id(&topic.topic)?;
        let shard = self.get(topic.route(index)?.shard)?;
        shard.leading()?;
        Some((shard, topic.partition(index)))
    }
}

async fn ends_of(shard: &Shard, id: PartitionId, at: &CommittedPosition, with_control: bool) -> EndsAnswer {
    let Some(view) = shard.read_view().get(id) else { return EndsAnswer::NotLeader };
    let offsets = view.offsets();
    // If the log start is above the position, the first record that is left is a later one.
    let is_cut_off = offsets.log_start > at.position;
    let first = at.position.max(offsets.log_start);
    let is_behind = first < offsets.high_watermark;
    let looks_up = is_behind && (at.needs_time || is_cut_off);
    // Who asks for control records has everything for what it knows. A group that is caught up but for them needs no
    // time, and its requests say as little of that as those of any group that was caught up.
    let is_lacking = if with_control { is_behind && is_cut_off } else { looks_up };
    if at.known == Some(offsets.high_watermark) && !is_lacking {
        return EndsAnswer::Unchanged;
    }
    let walks = with_control && is_behind && offsets.has_markers;
    let ahead = match shard.directory() {
        Some(directory) if walks => {
            let key = directory.extent(shard.replica, id);
            let walked = directory.walk(key, first, offsets.high_watermark, WALK_BATCHES_MAX).await;
            walked.map_or_else(|_| Ahead::default(), |walked| ahead(&walked, &offsets))
        }
        Some(directory) if looks_up => {
            let batch = first_with_records(directory, directory.extent(shard.replica, id), first).await;
            Ahead { first_ms: batch.map(|batch| batch.max_timestamp_ms), ..Ahead::none() }
        }
        _ if walks => Ahead::default(),
        _ => Ahead::none(),
    };
    EndsAnswer::Ends(PartitionEnds {
        log_start: offsets.log_start,
        high_watermark: offsets.high_watermark,
        last_stable: offsets.last_stable,
        first_uncommitted_ms: ahead.first_ms,
        control: ahead.control.filter(|_| with_control),
    })
}

/// The batch that holds an offset, or the next one if compaction has emptied it; `None` if it cannot be read or is not there.
async fn first_with_records(directory: &DataDir, key: ExtentKey, offset: Offset) -> Option<IndexedBatch> {
    let mut batch = directory.batch_at(key, offset).await.ok()??;
    while batch.is_empty() {
        batch = directory.batch_at(key, batch.end_offset()).await.ok()??;
    }
    Some(batch)
}

/// What lies between a position and the end; by default it is not known.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ahead {
    /// Timestamp of the first batch for clients.
    first_ms: Option<i64>,
    control: Option<ControlCount>,
}

impl Ahead {
    /// No control records, and the first batch is not looked up.
    fn none() -> Self {
        Self { control: Some(ControlCount::default()), ..Self::default() }
    }
}

fn ahead(walked: &[WalkedBatch], offsets: &LogOffsetSnapshot) -> Ahead {
    let first = walked.iter().find(|batch| !batch.is_control && !batch.indexed.is_empty());
    let mut count = ControlCount::default();
    for batch in walked.iter().filter(|batch| batch.is_control) {
        let records = i64::from(batch.indexed.record_count);
        count.below_high_watermark += records;
        if batch.indexed.base_offset < offsets.last_stable {
            count.below_last_stable += records;
        }
    }
    Ahead { first_ms: first.map(|batch| batch.indexed.max_timestamp_ms), control: Some(count) }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::ids::LeaderEpoch;
    use ottla_storage::ids::LogPosition;

    use super::*;

    /// Batches one after the other: their records, and whether they are control batches; times are the offsets.
    fn walked(batches: &[(u32, bool)]) -> Vec<WalkedBatch> {
        let mut next = Offset(0);
        let one = |(record_count, is_control): &(u32, bool)| {
            let indexed = IndexedBatch {
                base_offset: next,
                record_count: *record_count,
                max_timestamp_ms: next.0,
                epoch: LeaderEpoch(1),
                position: LogPosition { segment: 1, byte: 0 },
                bytes: 78,
            };
            next = indexed.end_offset();
            WalkedBatch { indexed, is_control: *is_control }
        };
        batches.iter().map(one).collect()
    }

    fn told(batches: &[(u32, bool)], last_stable: i64) -> (Option<i64>, i64, i64) {
        let offsets = LogOffsetSnapshot { last_stable: Offset(last_stable), ..LogOffsetSnapshot::default() };
        let Ahead { first_ms, control } = ahead(&walked(batches), &offsets);
        let control = control.unwrap_or_default();
        (first_ms, control.below_last_stable, control.below_high_watermark)
    }

    #[test]
    fn what_compaction_has_emptied_is_no_first_record() {
        let mut batches = walked(&[(4, false), (2, false)]);
        batches[0].indexed = IndexedBatch { bytes: 61, max_timestamp_ms: -1, ..batches[0].indexed };
        assert_eq!(ahead(&batches, &LogOffsetSnapshot::default()).first_ms, Some(4));
    }

    #[test]
    fn control_records_are_counted_below_each_end_and_the_first_record_is_none_of_them() {
        assert_eq!(told(&[], 0), (None, 0, 0));
        assert_eq!(told(&[(1, true)], 1), (None, 1, 1), "a marker alone is nothing to wait for");
        assert_eq!(told(&[(1, true), (5, false), (1, true)], 7), (Some(1), 2, 2));
        // A transaction is open from offset 6 on, another has ended behind.
        assert_eq!(told(&[(5, false), (1, true), (3, false), (1, true)], 6), (Some(0), 1, 2));
        assert_eq!(told(&[(5, false)], 5), (Some(0), 0, 0));
    }
}
