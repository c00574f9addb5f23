//! What a node tells the controller of its load, every two seconds while it serves.
//!
//! A report that gets lost is not sent again: the next one is as good. A controller of an older release does not answer it. May not
//! know: what follows from a load.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ottla_env::rt;
use ottla_protocol::ids::PartitionId;

use super::load::{DirectorySpace, Load, LoadReport, REPORT_INTERVAL};
use crate::metadata::handle::{Inner, MetadataHandle};
use crate::metadata::image::ShardId;

/// What a shard or partition that this node leads has taken in and sent out since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes from producers.
    pub bytes_in: u64,
    /// Bytes to consumers.
    pub bytes_out: u64,
}

/// Where a node's load is read.
pub trait LoadSource: Send + Sync {
    /// The shards that this node leads.
    fn shards(&self) -> Vec<(ShardId, Totals)>;

    /// The partitions of on-demand topics in these shards.
    fn partitions(&self) -> Vec<(PartitionId, Totals)>;

    /// The data directories.
    fn directories(&self) -> Vec<DirectorySpace>;
}

impl MetadataHandle {
    /// Starts to report this node's load: it serves clients.
    pub fn start_load_reports(&self, source: Arc<dyn LoadSource>) {
        rt::spawn(send(self.downgrade(), source));
    }
}

/// Reports until the metadata's replica stops.
async fn send(metadata: Weak<Inner>, source: Arc<dyn LoadSource>) {
    let (mut shards, mut partitions) = (Rates::default(), Rates::default());
    let mut at = rt::now();
    loop {
        rt::sleep(REPORT_INTERVAL).await;
        let Some(here) = MetadataHandle::upgrade(&metadata) else { return };
        if here.group().role().borrow().stopped {
            return;
        }
        let now = rt::now();
        let seconds = now.since(at).as_secs_f64();
        at = now;
        let loads = (shards.since(source.shards(), seconds), partitions.since(source.partitions(), seconds));
        let image = here.image();
        let Some(record) = image.nodes.get(&here.node_id()) else { continue };
        let directories = source.directories();
        let report =
            LoadReport { node: record.id, epoch: record.epoch, shards: loads.0, directories, partitions: loads.1 };
        if let Err(error) = here.controller_client().send_load(report, REPORT_INTERVAL).await {
            tracing::debug!("the load is not reported: {error}");
        }
    }
}

/// Totals of the last time.
struct Rates<K>(BTreeMap<K, Totals>);

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Rates<K> {
    /// The rates since the last time. What was not led here then has none yet.
    fn since(&mut self, totals: Vec<(K, Totals)>, seconds: f64) -> Vec<(K, Load)> {
        let rate = |(key, total): &(K, Totals)| {
            let known = self.0.get(key)?;
            let load = Load {
                bytes_in: a_second(total.bytes_in.saturating_sub(known.bytes_in), seconds),
                bytes_out: a_second(total.bytes_out.saturating_sub(known.bytes_out), seconds),
            };
            Some((*key, load))
        };
        let rates = totals.iter().filter_map(rate).collect();
        self.0 = totals.into_iter().collect();
        rates
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of bytes a second, not negative")]
fn a_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 / seconds.max(0.001)) as u64
}
