//! Carries out a partition reassignment: what is a part of a shard is split off, then shards are moved.
//!
//! Each step is recorded by itself: a request that fails half-way can be sent again, and goes on from where it was. May not know:
//! what belongs together (`reassign`), and how a shard is split or moved.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use super::decide::ControllerRequest;
use super::error::MetadataError;
use super::handle::{MetadataHandle, TIMEOUT};
use super::image::{MetadataImage, ShardId};
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
        let mut outcomes: Vec<Option<Result<(), MetadataError>>> = requested.iter().map(|_| None).collect();
        while outcomes.iter().any(Option::is_none) {
            let open: Vec<usize> = (0..requested.len()).filter(|at| outcomes[*at].is_none()).collect();
            // What shares a shard decides, so the plan needs every partition that the leader has committed.
            if let Err(error) = self.read_index().await {
                open.iter().for_each(|at| outcomes[*at] = Some(Err(error.clone())));
                break;
            }
            let asked: Vec<_> = open.iter().map(|at| requested[*at].clone()).collect();
            let planned = plan(&self.image(), &asked, may_change_factor);
            let steps = planned.moves.into_iter().map(|(shard, nodes)| async move {
                let moved = self.record_move(shard, nodes, deadline).await;
                (shard, Some(moved))
            });
            let splits = planned.splits.into_iter().map(|(shard, partitions)| async move {
                let split = self.split_off(shard, partitions, deadline).await;
                // What was split off is planned anew.
                (shard, split.err().map(Err))
            });
            let (moved, split) = tokio::join!(join_all(steps), join_all(splits));
            let done: BTreeMap<ShardId, Option<Result<(), MetadataError>>> = moved.into_iter().chain(split).collect();
            for (at, planned) in open.into_iter().zip(planned.outcomes) {
                outcomes[at] = match planned {
                    Ok(shard) => done.get(&shard).cloned().unwrap_or(Some(Ok(()))),
                    Err(error) => Some(Err(error)),
                };
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(MetadataError::TimedOut))).collect()
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
        self.wait_while(deadline, |image| image.is_resizing(shard)).await?;
        let left = deadline.since(rt::now());
        self.request(ControllerRequest::ChangeReplicas { shard, nodes }, false, left).await.map(|_| ())
    }

    /// Returns when these partitions are routed to a shard of their own.
    pub(super) async fn split_off(
        &self,
        parent: ShardId,
        partitions: Vec<(Uuid, i32)>,
        deadline: Instant,
    ) -> Result<(), MetadataError> {
        self.wait_while(deadline, |image| image.is_resizing(parent)).await?;
        let child = self.split_shard(parent, partitions).await?;
        self.wait_while(deadline, |image| image.is_resizing(child)).await
    }

    pub(super) async fn wait_while(
        &self,
        deadline: Instant,
        is_so: impl Fn(&MetadataImage) -> bool,
    ) -> Result<(), MetadataError> {
        let mut images = self.watch();
        while is_so(&images.borrow_and_update()) {
            if !matches!(rt::timeout_at(deadline, images.changed()).await, Ok(Ok(()))) {
                return Err(MetadataError::TimedOut);
            }
        }
        Ok(())
    }
}
