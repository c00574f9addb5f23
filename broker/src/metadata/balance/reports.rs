//! What a node tells the controller of its load, every two seconds while it serves.
//!
//! A report that gets lost is not sent again: the next one is as good. A controller of an older release does not answer it. May not
//! know: what follows from a load.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use ottla_env::rt;

use super::load::{DirectorySpace, LoadReport, REPORT_INTERVAL, ShardLoad};
use crate::metadata::handle::{Inner, MetadataHandle};
use crate::metadata::image::ShardId;

/// What a shard that this node leads has taken in and sent out since the node began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardTotals {
    /// Bytes from producers.
    pub bytes_in: u64,
    /// Bytes to consumers.
    pub bytes_out: u64,
}

/// Where a node's load is read.
pub trait LoadSource: Send + Sync {
    /// The shards that this node leads.
    fn shards(&self) -> Vec<(ShardId, ShardTotals)>;

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
    let mut before: BTreeMap<ShardId, ShardTotals> = BTreeMap::new();
    let mut at = rt::now();
    loop {
        rt::sleep(REPORT_INTERVAL).await;
        let Some(here) = MetadataHandle::upgrade(&metadata) else { return };
        if here.group().role().borrow().stopped {
            return;
        }
        let (now, totals) = (rt::now(), source.shards());
        let seconds = now.since(at).as_secs_f64();
        // A shard that was not led here before has no rate yet.
        let rate = |(shard, total): &(ShardId, ShardTotals)| {
            let known = before.get(shard)?;
            let load = ShardLoad {
                bytes_in: a_second(total.bytes_in.saturating_sub(known.bytes_in), seconds),
                bytes_out: a_second(total.bytes_out.saturating_sub(known.bytes_out), seconds),
            };
            Some((*shard, load))
        };
        let shards = totals.iter().filter_map(rate).collect();
        let image = here.image();
        if let Some(record) = image.nodes.get(&here.node_id()) {
            let report = LoadReport { node: record.id, epoch: record.epoch, shards, directories: source.directories() };
            if let Err(error) = here.controller_client().send_load(report, REPORT_INTERVAL).await {
                tracing::debug!("the load is not reported: {error}");
            }
        }
        (before, at) = (totals.into_iter().collect(), now);
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of bytes a second, not negative")]
fn a_second(bytes: u64, seconds: f64) -> u64 {
    (bytes as f64 / seconds.max(0.001)) as u64
}
