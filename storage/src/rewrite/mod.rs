//! The rewriter (compaction for space): copies live batches of mostly dead segments and runs into new runs, so that the
//! old files can be unlinked.
//!
//! It decides from numbers alone. May not know: topics; which batches expire together is given as opaque classes.

pub(crate) mod choose;
pub(crate) mod copy;
pub(crate) mod throttle;

use std::sync::Arc;
use std::time::Duration;

use ottla_protocol::ids::PartitionId;

use crate::ids::ReplicaId;
pub use crate::runs::retention_class::RetentionClass;

/// Returns the class of a partition; called whenever a job begins.
pub type Classes = Arc<dyn Fn(PartitionId) -> RetentionClass + Send + Sync>;

/// Whether a replica takes the place of one in another directory of its node; called at each write of an import.
pub type DirectoryMoves = Arc<dyn Fn(ReplicaId) -> bool + Send + Sync>;

/// Options of the rewriter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RewriteOptions {
    /// Bytes read and written per second while space is ample; 0 switches the rewriter off. Default 64 MiB.
    pub bytes_per_second: u64,
    /// Bytes read and written per second at the most, also while space is short. Default no limit.
    pub bytes_per_second_max: u64,
    /// Bytes per second at the most that snapshots of other nodes' replicas are written with. Default no limit.
    pub import_bytes_per_second_max: u64,
    /// The same of replicas that move here from another directory of the node. Default no limit.
    pub move_bytes_per_second_max: u64,
    /// Length of a run, where there is enough to fill it. Default 256 MiB.
    pub run_bytes: u64,
    /// Pause when there is nothing to do. Default 15 s.
    pub interval: Duration,
    /// What will soon be dead is not copied while space is ample and its last batch died this recently; runs that were made this
    /// recently are not merged unless they are many, since the next pass of compaction may replace them. Default 10 min.
    pub patience: Duration,
    /// Bytes of the map of keys of a pass of compaction, about: where there are more keys than it holds, a partition is read more often.
    /// Default 32 MiB.
    pub key_map_bytes: usize,
}

impl Default for RewriteOptions {
    fn default() -> Self {
        Self {
            bytes_per_second: 64 << 20,
            bytes_per_second_max: u64::MAX,
            import_bytes_per_second_max: u64::MAX,
            move_bytes_per_second_max: u64::MAX,
            run_bytes: 256 << 20,
            interval: Duration::from_secs(15),
            patience: Duration::from_secs(600),
            key_map_bytes: 32 << 20,
        }
    }
}
