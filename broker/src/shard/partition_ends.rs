//! The end offsets of partitions as their leaders have them, for consumer lag: from this node's shards or by a request
//! to another node.
//!
//! Requests between nodes travel in the class of messages that may wait. May not know: groups, and what the ends are
//! used for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ids::{NodeId, PartitionId};
use ottla_raft::Priority;

use super::handle::Shard;
use super::lag_request::{CommittedPosition, EndsAnswer, LagRequest, PartitionEnds, TopicPositions};
use super::manager::Shards;
use super::rpc::{NodeRequest, PeerService};
use crate::metadata::MetadataImage;

/// How long another node has to answer with the ends of a batch of partitions, some of which may need a lookup on disk.
const ENDS_WAIT: Duration = Duration::from_secs(3);
/// How long another node has to answer for the groups that it coordinates.
const GROUPS_WAIT: Duration = Duration::from_secs(3);

impl Shards {
    /// Serves other nodes' requests for groups from now on; the first service stays.
    pub(crate) fn serve_groups(&self, service: PeerService) {
        let _ = self.0.groups_service.set(service);
    }

    pub(super) async fn answer_lag(&self, request: LagRequest) -> Option<Bytes> {
        match request {
            LagRequest::Ends(topics) => Some(EndsAnswer::encode_all(&self.ends_here(&topics).await)),
            LagRequest::Groups(request) => (self.0.groups_service.get()?.clone())(request).await,
        }
    }

    /// The ends of partitions that `node` leads: an answer for each position in order, `None` if none came.
    pub(crate) async fn ends(&self, node: NodeId, topics: Vec<TopicPositions>) -> Option<Vec<EndsAnswer>> {
        if node == self.0.node {
            return Some(self.ends_here(&topics).await);
        }
        let requested = topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
        let answer = self.ask_about_lag(node, LagRequest::Ends(topics), ENDS_WAIT).await?;
        EndsAnswer::decode_all(&answer).ok().filter(|answers| answers.len() == requested)
    }

    /// The response of the coordinator on `node` to a request for groups.
    pub(crate) async fn ask_groups(&self, node: NodeId, request: Bytes) -> Option<Bytes> {
        self.ask_about_lag(node, LagRequest::Groups(request), GROUPS_WAIT).await
    }

    async fn ask_about_lag(&self, node: NodeId, request: LagRequest, wait: Duration) -> Option<Bytes> {
        self.ask_node(node, &NodeRequest::ConsumerLag(request), Priority::Bulk, wait).await
    }

    async fn ends_here(&self, topics: &[TopicPositions]) -> Vec<EndsAnswer> {
        let image = self.0.metadata.image();
        let mut answers = Vec::new();
        for topic in topics {
            for at in &topic.partitions {
                let found = self.leading(&image, topic, at.partition);
                answers.push(match found {
                    Some((shard, id)) => ends_of(&shard, id, at).await,
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

async fn ends_of(shard: &Shard, id: PartitionId, at: &CommittedPosition) -> EndsAnswer {
    let Some(view) = shard.read_view().get(id) else { return EndsAnswer::NotLeader };
    let offsets = view.offsets();
    // If the log start is above the position, the first record that is left is a later one.
    let is_cut_off = offsets.log_start > at.position;
    let first = at.position.max(offsets.log_start);
    let looks_up = first < offsets.high_watermark && (at.needs_time || is_cut_off);
    if at.known == Some(offsets.high_watermark) && !looks_up {
        return EndsAnswer::Unchanged;
    }
    let first_uncommitted_ms = match shard.directory() {
        Some(directory) if looks_up => {
            let batch = directory.batch_at(directory.extent(shard.replica, id), first).await;
            batch.ok().flatten().map(|batch| batch.max_timestamp_ms)
        }
        _ => None,
    };
    let (log_start, high_watermark, last_stable) = (offsets.log_start, offsets.high_watermark, offsets.last_stable);
    EndsAnswer::Ends(PartitionEnds { log_start, high_watermark, last_stable, first_uncommitted_ms })
}
