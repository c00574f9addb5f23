//! Selects a replica in the consumer's rack (KIP-392), as Kafka's RackAwareReplicaSelector does.
//!
//! Only the leader selects, only a replica that is in sync, and only for offsets that exist: the leader alone may
//! answer that an offset is out of range. May not know: what is read.

use ottla_env::mutants::{self, Bug};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::fetch::FetchPartitionResponse;
use ottla_protocol::ids::Offset;

use crate::handlers::context::Context;
use crate::partition::Partition;

/// The response that names a replica in `rack` as preferred; `None` if this node serves the consumer.
pub(super) fn nearest_replica(
    ctx: &Context,
    partition: &Partition,
    rack: &str,
    from: Offset,
) -> Option<FetchPartitionResponse> {
    partition.leader_epoch()?;
    let (image, own) = (ctx.metadata.image(), ctx.partitions.node());
    let in_zone = |node| {
        let in_rack = image.nodes.get(&node).is_some_and(|record| record.rack.as_deref() == Some(rack));
        in_rack || (node != own && mutants::is_on(Bug::NearestInAnyRack))
    };
    if in_zone(own) {
        return None;
    }
    let marks = partition.watermarks();
    if from < marks.log_start || from > marks.high_watermark {
        return None;
    }
    let index = partition.id().index;
    let in_sync = ctx.partitions.leadership(partition.topic(), index).in_sync;
    let reachable = |node| {
        let listener = &ctx.connection.peer.listener;
        image.nodes.get(&node).is_some_and(|record| record.endpoint(listener).is_some())
    };
    let near: Vec<_> = in_sync.into_iter().filter(|node| *node != own && in_zone(*node) && reachable(*node)).collect();
    // Several replicas in the rack share the partitions.
    let chosen = usize::try_from(index).unwrap_or(0).checked_rem(near.len())?;
    Some(FetchPartitionResponse {
        high_watermark: marks.high_watermark,
        last_stable_offset: marks.last_stable,
        log_start: marks.log_start,
        preferred_read_replica: *near.get(chosen)?,
        ..FetchPartitionResponse::failed(index, ErrorCode::None)
    })
}
