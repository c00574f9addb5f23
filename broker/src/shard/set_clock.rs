//! Setting a shard's clock for an operator: its leader proposes the command that sets the shard clock, back or forward.
//!
//! The broker never does so by itself, even if most nodes' clocks agree: if all of them have fallen back, what was
//! stamped meanwhile would expire when they are corrected, and only an operator knows which it is. May not know: how
//! apply continues from there.

use std::time::Duration;

use ottla_env::rt;
use ottla_raft::Priority;

use super::clock::{Agreement, JUMP_MS_MIN};
use super::manager::Shards;
use super::rpc::{NodeRequest, SetClockOutcome};
use crate::metadata::{FeatureLevel, ShardId};
use crate::replicated::command::Command;

/// Releases below this feature level stop at the command.
const LEVEL: FeatureLevel = FeatureLevel(2);

/// Before the request is repeated at another node, since the first did not lead.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

impl Shards {
    /// Sets a shard's clock, whichever node leads it now: to `to_ms`, or to its leader's wall clock.
    pub async fn set_clock(&self, shard: ShardId, to_ms: Option<i64>, wait: Duration) -> SetClockOutcome {
        let deadline = rt::now() + wait;
        loop {
            let left = deadline.since(rt::now());
            let outcome = match self.leader_of(shard) {
                Some(node) if node == self.node() => {
                    rt::timeout(left, self.set_clock_here(shard, to_ms)).await.unwrap_or(SetClockOutcome::TimedOut)
                }
                Some(node) => {
                    let request = NodeRequest::SetClock(shard, to_ms);
                    let response = self.ask_node(node, &request, Priority::Normal, left).await;
                    response
                        .and_then(|response| SetClockOutcome::decode(&response))
                        .unwrap_or(SetClockOutcome::TimedOut)
                }
                None => SetClockOutcome::NotLeader,
            };
            // Nothing was done: the leader is not known yet, or another node was taken for it.
            if outcome != SetClockOutcome::NotLeader || rt::now() + RETRY_BACKOFF >= deadline {
                return outcome;
            }
            rt::sleep(RETRY_BACKOFF).await;
        }
    }

    pub(super) async fn set_clock_here(&self, id: ShardId, to_ms: Option<i64>) -> SetClockOutcome {
        let Some(shard) = self.get(id).filter(|shard| shard.leading().is_some()) else {
            return SetClockOutcome::NotLeader;
        };
        let image = self.metadata().image();
        if image.level < LEVEL {
            return SetClockOutcome::LevelTooLow;
        }
        let wall_ms = rt::wall_clock_ms();
        let to_ms = match to_ms {
            Some(to_ms) if to_ms > wall_ms.saturating_add(JUMP_MS_MIN) => return SetClockOutcome::Ahead,
            Some(to_ms) => to_ms,
            // In a cluster of one there is no other clock: the operator confirms the node's own.
            None if image.expected_nodes() == 1 || shard.clock_agreement() == Agreement::Agrees => wall_ms,
            None => return SetClockOutcome::NotConfirmed,
        };
        match shard.command(Command::SetClock { to_ms }).await {
            Ok(_) => {
                tracing::warn!("shard={id}: its clock is set to {to_ms} ms, as an operator has asked");
                SetClockOutcome::Done(to_ms)
            }
            Err(_) => SetClockOutcome::NotLeader,
        }
    }
}
