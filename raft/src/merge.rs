//! The merge of a group on one node: what apply has taken over becomes durable (design section 8).
//!
//! May not know: which partitions there are, and why they move.

use std::sync::Arc;

use crate::directory::Directory;
use crate::error::RaftError;
use crate::host::RaftHost;
use crate::resize::Merged;

impl RaftHost {
    /// Makes a merge durable.
    ///
    /// # Errors
    /// When the disk fails. Both replicas have stopped then.
    pub async fn commit_merge(&self, directory: Arc<dyn Directory>, merged: Merged) -> Result<(), RaftError> {
        let (absorbed, survivor) = (merged.absorbed(), merged.survivor());
        let groups = [self.group(survivor), self.group(absorbed)];
        if let Err(error) = directory.commit_merge(merged.cut).await {
            let what = format!("replica {absorbed}, which replica {survivor} has taken over: {error}");
            groups.into_iter().flatten().for_each(|group| group.0.fail(&what));
            return Err(RaftError::Storage { replica: survivor, what });
        }
        merged.from.end_merge();
        if let [Some(survivor), _] = groups {
            survivor.0.applier.end_resize();
        }
        Ok(())
    }
}
