//! The load of this node, as it is reported to the controller.
//!
//! May not know: what follows from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ottla_protocol::ids::PartitionId;

use crate::handlers::context::Directory;
use crate::metadata::balance::{DirectorySpace, LoadSource, Totals};
use crate::metadata::{MetadataHandle, ShardId};
use crate::shard::Shards;

pub(super) struct NodeLoad {
    pub(super) metadata: MetadataHandle,
    pub(super) shards: Shards,
    pub(super) directories: Arc<[Directory]>,
}

impl LoadSource for NodeLoad {
    fn shards(&self) -> Vec<(ShardId, Totals)> {
        let led = self.shards.all().into_iter().filter(|shard| shard.role().ready);
        led.map(|shard| (shard.creation.shard, shard.traffic.totals())).collect()
    }

    fn partitions(&self) -> Vec<(PartitionId, Totals)> {
        let image = self.metadata.image();
        let on_demand: BTreeSet<_> =
            image.topics.values().filter(|topic| topic.config.on_demand).map(|topic| topic.id).collect();
        if on_demand.is_empty() {
            return Vec::new();
        }
        let led = self.shards.all().into_iter().filter(|shard| shard.role().ready);
        let views = led.flat_map(|shard| shard.read_view().all()).filter(|view| on_demand.contains(&view.id.topic));
        views.map(|view| (view.id, view.traffic.totals())).collect()
    }

    fn directories(&self) -> Vec<DirectorySpace> {
        let space = |directory: &Directory| {
            let (total_bytes, free_bytes) = directory.data.disk_bytes();
            DirectorySpace { id: directory.id, free_bytes, total_bytes }
        };
        self.directories.iter().map(space).collect()
    }
}
