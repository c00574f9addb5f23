//! Carries out what moves partitions between data directories of a node: what is a part of a shard is split off first.
//!
//! Each step is recorded by itself: a request that fails half-way can be sent again, and goes on from where it was. May not know:
//! what belongs together (`log_dirs`), and how a shard is split or moved.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt::{self, Instant};
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

use super::decide::ControllerRequest;
use super::error::MetadataError;
use super::handle::MetadataHandle;
use super::image::ShardId;
use super::log_dirs::{DirectoryChange, Plan, check_level, plan};

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
        let last: BTreeMap<_, _> = requested.iter().map(|one| ((one.topic.as_str(), one.index), one)).collect();
        let mut open: Vec<&DirectoryChange> = last.into_values().collect();
        let mut outcomes = BTreeMap::new();
        while !open.is_empty() {
            if let Err(error) = self.read_index().await {
                outcomes.extend(open.iter().map(|one| ((one.topic.as_str(), one.index), Err(error.clone()))));
                break;
            }
            let asked: Vec<_> = open.iter().map(|one| (*one).clone()).collect();
            let (planned, done) = self.next_directory_steps(node, &asked, deadline).await;
            let settled = |outcome| match outcome {
                Ok(shard) => done.get(&shard).cloned().unwrap_or(Some(Ok(()))),
                Err(error) => Some(Err(error)),
            };
            let mut settled: Vec<_> = planned.into_iter().map(settled).collect();
            let mut left = Vec::new();
            for (one, outcome) in open.into_iter().zip(settled.drain(..)) {
                match outcome {
                    Some(outcome) => _ = outcomes.insert((one.topic.as_str(), one.index), outcome),
                    None => left.push(one),
                }
            }
            open = left;
        }
        let outcome = |one: &DirectoryChange| outcomes.get(&(one.topic.as_str(), one.index)).cloned();
        requested.iter().map(|one| outcome(one).unwrap_or(Err(MetadataError::TimedOut))).collect()
    }

    /// The shard of each partition, and what became of each shard: `None` if it is to be planned anew.
    #[allow(clippy::type_complexity)]
    async fn next_directory_steps(
        &self,
        node: NodeId,
        asked: &[DirectoryChange],
        deadline: Instant,
    ) -> (Vec<Result<ShardId, MetadataError>>, BTreeMap<ShardId, Option<Result<(), MetadataError>>>) {
        let Plan { outcomes, moves, splits } = plan(&self.image(), node, asked);
        let moves = moves.into_iter().map(|(shard, directory)| async move {
            let moved = self.record_directory(shard, node, directory, deadline).await;
            (shard, Some(moved))
        });
        let splits = splits.into_iter().map(|(shard, partitions)| async move {
            let split = self.split_off(shard, partitions, deadline).await;
            // What was split off is planned anew.
            (shard, split.err().map(Err))
        });
        let (moved, split) = tokio::join!(join_all(moves), join_all(splits));
        (outcomes, moved.into_iter().chain(split).collect())
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
        self.wait_while(deadline, |image| image.is_resizing(shard)).await?;
        let left = deadline.since(rt::now());
        self.request(ControllerRequest::ChangeDirectory { shard, node, directory }, false, left).await.map(|_| ())
    }
}
