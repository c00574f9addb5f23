//! Moves shards between nodes: for a request of clients to reassign partitions, and for an operator that names a shard.
//!
//! May not know: what belongs together (`reassign`), and how a request's steps are carried out (`move_executor`).

use std::time::Duration;

use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::NodeId;

use super::decide::ControllerRequest;
use super::error::MetadataError;
use super::handle::{MetadataHandle, TIMEOUT};
use super::image::ShardId;
use super::reassign::{self, plan};
use super::requests::Reassignment;

impl MetadataHandle {
    /// Reassigns partitions. Each outcome is returned when the move is recorded; it is carried out later.
    pub async fn reassign(
        &self,
        requested: Vec<Reassignment>,
        may_change_factor: bool,
        timeout: Duration,
    ) -> Vec<Result<(), MetadataError>> {
        let deadline = rt::now() + timeout;
        self.move_partitions(
            &requested,
            deadline,
            |image, open| plan(image, open, may_change_factor),
            |shard, nodes| self.record_move(shard, nodes, deadline),
        )
        .await
    }

    /// Moves a shard's replicas to these nodes, preferred leader first; `None`: to those on which they were before the move that
    /// is under way. Returns the nodes when that is recorded; the shard's leader carries it out, step by step.
    ///
    /// # Errors
    /// When the move is not allowed, or cannot be recorded now.
    pub async fn move_shard(&self, shard: ShardId, nodes: Option<Vec<NodeId>>) -> Result<Vec<NodeId>, MetadataError> {
        let deadline = rt::now() + TIMEOUT;
        self.read_index().await?;
        let image = self.image();
        let record = image.shard(shard).ok_or(MetadataError::UnknownTopic)?;
        let nodes = reassign::target(&image, record, &nodes, true)?;
        self.record_move(shard, nodes.clone(), deadline).await?;
        Ok(nodes)
    }

    async fn record_move(&self, shard: ShardId, nodes: Vec<NodeId>, deadline: Instant) -> Result<(), MetadataError> {
        self.until_resized(shard, deadline).await?;
        let left = deadline.since(rt::now());
        self.request(ControllerRequest::ChangeReplicas { shard, nodes }, false, left).await.map(|_| ())
    }
}
