//! What shards take in and send out, as their leaders report it, and what is averaged of it.
//!
//! May not know: what follows from a load, how a report is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_env::rt::Instant;
use ottla_protocol::ids::{NodeId, PartitionId};
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use crate::codec::record;
use crate::metadata::image::{MetadataImage, ShardId};

/// How often a node reports.
pub(in crate::metadata) const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// A node that has not reported for so long is not known any more.
const REPORT_EXPIRES: Duration = Duration::from_secs(10);
/// The time over which the rates of shards are averaged: what lasts shorter moves nothing.
const AVERAGED_OVER: Duration = Duration::from_secs(30);
/// The time over which the rates of partitions are averaged: on-demand topics follow within seconds.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(3);
/// The time in which what is remembered of a peak is halved.
const PEAK_HALVED_IN: Duration = Duration::from_secs(600);

/// What a leader takes from producers and sends to consumers, bytes a second, of a shard or a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
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
    pub(in crate::metadata) shards: Vec<(ShardId, Load)>,
    pub(in crate::metadata) directories: Vec<DirectorySpace>,
    /// The partitions of on-demand topics in these shards.
    pub(in crate::metadata) partitions: Vec<(PartitionId, Load)>,
}

record! {
    LoadReport { node, epoch, shards, directories, partitions }
    Load { bytes_in, bytes_out }
    DirectorySpace { id, free_bytes, total_bytes }
}

/// A rate that is averaged, newer values counting more.
#[derive(Debug, Clone, Copy)]
struct Average {
    load: [f64; 2],
    at: Instant,
}

impl Average {
    fn add(&mut self, told: Load, over: Duration, now: Instant) {
        let weight = 1.0 - (-now.since(self.at).as_secs_f64() / over.as_secs_f64()).exp();
        for (known, told) in self.load.iter_mut().zip([told.bytes_in as f64, told.bytes_out as f64]) {
            *known += (told - *known) * weight;
        }
        self.at = now;
    }
}

/// What a partition has to do, and had at the most some time ago.
#[derive(Debug, Clone, Copy)]
struct Peak {
    average: Average,
    /// Bytes a second, as of the average's moment.
    most: f64,
}

/// The load of a cluster as its controller knows it.
#[derive(Debug, Default)]
pub(super) struct ClusterLoad {
    nodes: BTreeMap<NodeId, Instant>,
    averages: BTreeMap<ShardId, Average>,
    peaks: BTreeMap<PartitionId, Peak>,
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
        let begun = |load: Load| Average { load: [load.bytes_in as f64, load.bytes_out as f64], at: now };
        for (shard, load) in report.shards {
            self.averages.entry(shard).or_insert_with(|| begun(load)).add(load, AVERAGED_OVER, now);
        }
        let on_demand = |id: &Uuid| image.topic_by_id(id).is_some_and(|topic| topic.config.on_demand);
        self.peaks.retain(|partition, _| on_demand(&partition.topic));
        for (partition, load) in report.partitions.into_iter().filter(|(partition, _)| on_demand(&partition.topic)) {
            let peak = self.peaks.entry(partition).or_insert_with(|| Peak { average: begun(load), most: 0.0 });
            let halvings = now.since(peak.average.at).as_secs_f64() / PEAK_HALVED_IN.as_secs_f64();
            peak.average.add(load, FOLLOWED_WITHIN, now);
            peak.most = (peak.most * (-halvings).exp2()).max(peak.average.load.iter().sum());
        }
        self.directories.extend(report.directories.into_iter().map(|space| (space.id, space)));
    }

    /// True if every node that serves has reported recently: else one that is silent would seem to be idle.
    pub(super) fn is_complete(&self, image: &MetadataImage, now: Instant) -> bool {
        let has_reported = |node: &NodeId| self.nodes.get(node).is_some_and(|at| now.since(*at) < REPORT_EXPIRES);
        let serving = image.nodes.values().filter(|node| !node.is_fenced()).map(|node| node.id);
        serving.into_iter().all(|node| has_reported(&node))
    }

    /// The load of a shard; none if no node has reported any.
    pub(super) fn of(&self, shard: ShardId) -> Load {
        let of = |average: &Average| Load { bytes_in: whole(average.load[0]), bytes_out: whole(average.load[1]) };
        self.averages.get(&shard).map(of).unwrap_or_default()
    }

    /// What a partition of an on-demand topic had to do at the most some time ago, bytes a second.
    pub(super) fn peak(&self, partition: PartitionId) -> u64 {
        self.peaks.get(&partition).map_or(0, |peak| whole(peak.most))
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

/// A rate for people.
pub(super) fn rate(bytes_per_second: u64) -> String {
    let rate = bytes_per_second as f64;
    if rate < 1e6 { format!("{:.1} kB/s", rate / 1e3) } else { format!("{:.1} MB/s", rate / 1e6) }
}
