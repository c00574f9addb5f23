//! Carries out a request that moves partitions: what is a part of a shard is split off first, then shards are moved.
//!
//! Each step is recorded by itself: a request that fails half-way can be sent again, and goes on from where it was. May not know:
//! what belongs together and where it goes (its caller's plan), and how a shard is split or moved.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use ottla_env::rt::{self, Instant};
use uuid::Uuid;

use super::error::MetadataError;
use super::handle::MetadataHandle;
use super::image::{MetadataImage, ShardId};
use super::move_plan::Plan;

impl MetadataHandle {
    /// Plans what is requested, carries out the steps of that plan, and plans what is left, until each has its outcome: that its move
    /// is recorded by `record`, or why it is not.
    pub(super) async fn move_partitions<R: Clone, T, F>(
        &self,
        requested: &[R],
        deadline: Instant,
        plan: impl Fn(&MetadataImage, &[R]) -> Plan<T>,
        record: impl Fn(ShardId, T) -> F,
    ) -> Vec<Result<(), MetadataError>>
    where
        F: Future<Output = Result<(), MetadataError>>,
    {
        let mut outcomes: Vec<Option<Result<(), MetadataError>>> = requested.iter().map(|_| None).collect();
        while outcomes.iter().any(Option::is_none) {
            let open: Vec<usize> = (0..requested.len()).filter(|at| outcomes[*at].is_none()).collect();
            // What shares a shard decides, so the plan needs every partition that the leader has committed.
            if let Err(error) = self.read_index().await {
                open.iter().for_each(|at| outcomes[*at] = Some(Err(error.clone())));
                break;
            }
            let left: Vec<R> = open.iter().map(|at| requested[*at].clone()).collect();
            let planned = plan(&self.image(), &left);
            let done = self.carry_out(planned.moves, planned.splits, deadline, &record).await;
            for (at, planned) in open.into_iter().zip(planned.outcomes) {
                outcomes[at] = match planned {
                    Ok(shard) => done.get(&shard).cloned().unwrap_or(Some(Ok(()))),
                    Err(error) => Some(Err(error)),
                };
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(MetadataError::TimedOut))).collect()
    }

    /// What became of each shard; `None` if its partitions are to be planned anew, which are those that were split.
    async fn carry_out<T, F>(
        &self,
        moves: BTreeMap<ShardId, T>,
        splits: BTreeMap<ShardId, Vec<(Uuid, i32)>>,
        deadline: Instant,
        record: impl Fn(ShardId, T) -> F,
    ) -> BTreeMap<ShardId, Option<Result<(), MetadataError>>>
    where
        F: Future<Output = Result<(), MetadataError>>,
    {
        let moves = moves.into_iter().map(|(shard, place)| {
            let recorded = record(shard, place);
            async move { (shard, Some(recorded.await)) }
        });
        let splits = splits.into_iter().map(|(shard, partitions)| async move {
            let split = self.split_off(shard, partitions, deadline).await;
            (shard, split.err().map(Err))
        });
        let (moved, split) = tokio::join!(join_all(moves), join_all(splits));
        moved.into_iter().chain(split).collect()
    }

    /// Returns when these partitions are routed to a shard of their own.
    async fn split_off(
        &self,
        parent: ShardId,
        partitions: Vec<(Uuid, i32)>,
        deadline: Instant,
    ) -> Result<(), MetadataError> {
        self.until_resized(parent, deadline).await?;
        let child = self.split_shard(parent, partitions).await?;
        self.until_resized(child, deadline).await
    }

    /// Returns when the shard is not being split or merged.
    ///
    /// # Errors
    /// When that lasts beyond the deadline.
    pub(super) async fn until_resized(&self, shard: ShardId, deadline: Instant) -> Result<(), MetadataError> {
        let mut images = self.watch();
        while images.borrow_and_update().is_resizing(shard) {
            if !matches!(rt::timeout_at(deadline, images.changed()).await, Ok(Ok(()))) {
                return Err(MetadataError::TimedOut);
            }
        }
        Ok(())
    }
}
