//! What shards take in and send out, as their leaders report it, and what is averaged of it.
//!
//! May not know: what follows from a load, how a report is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_env::rt::Instant;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use crate::codec::record;
use crate::metadata::image::{MetadataImage, ShardId};

/// How often a node reports.
pub(in crate::metadata) const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// A node that has not reported for so long is not known any more.
const REPORT_EXPIRES: Duration = Duration::from_secs(10);
/// The time over which rates are averaged: what lasts shorter moves nothing.
const AVERAGED_OVER: Duration = Duration::from_secs(30);

/// What the leader of a shard takes from producers and sends to consumers, bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardLoad {
    /// From producers.
    pub bytes_in: u64,
    /// To consumers.
    pub bytes_out: u64,
}

/// The space of one data directory, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectorySpace {
    /// The directory.
    pub id: Uuid,
    /// What is free.
    pub free_bytes: u64,
    /// What there is.
    pub total_bytes: u64,
}

/// What one node reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::metadata) struct LoadReport {
    pub(in crate::metadata) node: NodeId,
    /// The registration of the process that sends it.
    pub(in crate::metadata) epoch: RaftIndex,
    /// The shards that it leads.
    pub(in crate::metadata) shards: Vec<(ShardId, ShardLoad)>,
    pub(in crate::metadata) directories: Vec<DirectorySpace>,
}

record! {
    LoadReport { node, epoch, shards, directories }
    ShardLoad { bytes_in, bytes_out }
    DirectorySpace { id, free_bytes, total_bytes }
}

/// A rate that is averaged, newer values counting more.
#[derive(Debug, Clone, Copy)]
struct Average {
    load: [f64; 2],
    at: Instant,
}

/// The load of a cluster as its controller knows it.
#[derive(Debug, Default)]
pub(super) struct ClusterLoad {
    nodes: BTreeMap<NodeId, Instant>,
    averages: BTreeMap<ShardId, Average>,
    directories: BTreeMap<Uuid, DirectorySpace>,
}

impl ClusterLoad {
    /// Takes a report in. Those of shards and nodes that are gone are forgotten.
    pub(super) fn record(&mut self, report: LoadReport, image: &MetadataImage, now: Instant) {
        let is_current =
            |report: &LoadReport| image.nodes.get(&report.node).is_some_and(|node| node.epoch == report.epoch);
        if !is_current(&report) {
            return;
        }
        self.nodes.insert(report.node, now);
        self.nodes.retain(|node, _| image.nodes.contains_key(node));
        self.averages.retain(|shard, _| image.shards.contains_key(shard));
        for (shard, load) in report.shards {
            let told = [load.bytes_in as f64, load.bytes_out as f64];
            let average = self.averages.entry(shard).or_insert(Average { load: told, at: now });
            let weight = 1.0 - (-now.since(average.at).as_secs_f64() / AVERAGED_OVER.as_secs_f64()).exp();
            for (known, told) in average.load.iter_mut().zip(told) {
                *known += (told - *known) * weight;
            }
            average.at = now;
        }
        self.directories.extend(report.directories.into_iter().map(|space| (space.id, space)));
    }

    /// True if every node that serves has reported recently: else one that is silent would seem to be idle.
    pub(super) fn is_complete(&self, image: &MetadataImage, now: Instant) -> bool {
        let has_reported = |node: &NodeId| self.nodes.get(node).is_some_and(|at| now.since(*at) < REPORT_EXPIRES);
        let serving = image.nodes.values().filter(|node| !node.is_fenced()).map(|node| node.id);
        serving.into_iter().all(|node| has_reported(&node))
    }

    /// The load of a shard; none if nobody has reported any.
    pub(super) fn of(&self, shard: ShardId) -> ShardLoad {
        let of = |average: &Average| ShardLoad { bytes_in: whole(average.load[0]), bytes_out: whole(average.load[1]) };
        self.averages.get(&shard).map(of).unwrap_or_default()
    }

    /// The part of a directory's space that is free; `None` if it is not known.
    pub(super) fn free_part(&self, directory: Uuid) -> Option<f64> {
        let space = self.directories.get(&directory).filter(|space| space.total_bytes > 0)?;
        Some(space.free_bytes as f64 / space.total_bytes as f64)
    }
}

/// Rates are not negative, and far below 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of bytes a second")]
fn whole(rate: f64) -> u64 {
    rate.max(0.0) as u64
}
