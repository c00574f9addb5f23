//! Moves partitions between data directories of a node.
//!
//! May not know: what belongs together (`log_dirs`), and how a request's steps are carried out (`move_executor`).

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use super::decide::ControllerRequest;
use super::error::MetadataError;
use super::handle::MetadataHandle;
use super::image::ShardId;
use super::log_dirs::{DirectoryChange, check_level, plan};
use super::move_plan::PartitionMove;

/// How long what a request names may take to be split off.
const TIMEOUT: Duration = Duration::from_secs(30);

impl MetadataHandle {
    /// Moves partitions of this node to other data directories of it. Each outcome is returned when the move is recorded; it is
    /// carried out later. Of several changes of one partition the last one counts.
    pub async fn change_directories(
        &self,
        node: NodeId,
        requested: &[DirectoryChange],
    ) -> Vec<Result<(), MetadataError>> {
        let deadline = rt::now() + TIMEOUT;
        let last: BTreeMap<_, _> = requested.iter().map(|one| (one.partition(), one)).collect();
        let changes: Vec<DirectoryChange> = last.into_values().cloned().collect();
        let outcomes = self.move_partitions(
            &changes,
            deadline,
            |image, open| plan(image, node, open),
            |shard, directory| self.record_directory(shard, node, directory, deadline),
        );
        let outcomes = outcomes.await;
        let outcomes: BTreeMap<_, _> = changes.iter().map(DirectoryChange::partition).zip(outcomes).collect();
        requested.iter().map(|one| outcomes[&one.partition()].clone()).collect()
    }

    async fn record_directory(
        &self,
        shard: ShardId,
        node: NodeId,
        directory: Uuid,
        deadline: Instant,
    ) -> Result<(), MetadataError> {
        // A controller of an older release would not understand the request.
        check_level(&self.image())?;
        self.until_resized(shard, deadline).await?;
        let left = deadline.since(rt::now());
        self.request(ControllerRequest::ChangeDirectory { shard, node, directory }, false, left).await.map(|_| ())
    }
}
