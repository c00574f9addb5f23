//! The load of this node, as it is reported to the controller.
//!
//! May not know: what follows from it.

use std::sync::Arc;

use crate::handlers::context::Directory;
use crate::metadata::ShardId;
use crate::metadata::balance::{DirectorySpace, LoadSource, ShardTotals};
use crate::shard::Shards;

pub(super) struct NodeLoad {
    pub(super) shards: Shards,
    pub(super) directories: Arc<[Directory]>,
}

impl LoadSource for NodeLoad {
    fn shards(&self) -> Vec<(ShardId, ShardTotals)> {
        let led = self.shards.all().into_iter().filter(|shard| shard.role().ready);
        led.map(|shard| (shard.creation.shard, shard.traffic.totals())).collect()
    }

    fn directories(&self) -> Vec<DirectorySpace> {
        let space = |directory: &Directory| {
            let (total_bytes, free_bytes) = directory.data.disk_bytes();
            DirectorySpace { id: directory.id, free_bytes, total_bytes }
        };
        self.directories.iter().map(space).collect()
    }
}
