//! Where other nodes tell this one what they lead and ask it for something, and how this one asks them.
//!
//! May not know: how notices look as bytes, and what clients are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use ottla_protocol::ids::NodeId;
use ottla_raft::Service;
use ottla_storage::env::rt;
use ottla_storage::ids::ReplicaId;

use super::manager::Shards;
use super::notices::{Election, Notice};
use super::succession;
use crate::metadata::{ShardId, board};

/// Before another node is asked for what the first did not do.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// Where nobody has led for so long, who knows when somebody will.
const ELECTION_MAX: Duration = Duration::from_secs(1);
/// How long a node has to answer a call.
const CALL_WAIT: Duration = Duration::from_millis(50);

impl Shards {
    /// Hears from now on what other nodes tell and ask.
    pub(super) fn open_board(&self) {
        let weak = Arc::downgrade(&self.0);
        let service = move |_from: ReplicaId, told: Bytes| -> BoxFuture<'static, Option<Bytes>> {
            let shards = weak.upgrade().map(Shards);
            async move {
                let shards = shards?;
                match Notice::decode(&told).ok()? {
                    Notice::Announcement(announcement) => {
                        if shards.0.elsewhere.hear(announcement) {
                            shards.0.leadership.send_modify(|version| *version += 1);
                        }
                        Some(Bytes::new())
                    }
                    Notice::LeadPreferred(shard) => Some(shards.lead_preferred_here(shard).await.encode()),
                    Notice::Call => Some(Bytes::new()),
                    Notice::SetClock(shard, to_ms) => Some(shards.set_clock_here(shard, to_ms).await.encode()),
                    Notice::Lag(request) => shards.answer_lag(request).await,
                }
            }
            .boxed()
        };
        let service: Service = Arc::new(service);
        self.0.host.serve(board(self.0.node), service);
    }

    async fn lead_preferred_here(&self, shard: ShardId) -> Election {
        match self.get(shard) {
            Some(shard) => succession::lead_preferred(&shard, &*self.0.metadata).await,
            None => Election::NotLeader,
        }
    }

    /// Has a shard's preferred replica lead, wherever it is led now; when this returns `Done`, this node knows it.
    pub async fn lead_preferred(&self, shard: ShardId, wait: Duration) -> Election {
        let deadline = rt::now() + wait;
        let mut changes = self.leadership_changes();
        loop {
            let left = deadline.since(rt::now());
            let outcome = match self.leader_of(shard) {
                Some(node) if node == self.0.node => {
                    rt::timeout(left, self.lead_preferred_here(shard)).await.unwrap_or(Election::TimedOut)
                }
                Some(node) => {
                    let (own, question) = (board(self.0.node), Notice::LeadPreferred(shard).encode());
                    let answer = self.0.host.ask(own, board(node), question, left).await.ok();
                    answer.and_then(|answer| Election::decode(&answer)).unwrap_or(Election::TimedOut)
                }
                None => Election::NotLeader,
            };
            if outcome == Election::Done {
                let image = self.0.metadata.image();
                let preferred = image.shard(shard).and_then(|record| image.preferred_leader(record));
                let known = || self.leader_of(shard) == preferred.map(|replica| replica.node);
                while !known() && matches!(rt::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {}
            }
            // Nothing was done: whoever leads is not known yet, or was known wrongly.
            if outcome != Election::NotLeader || rt::now() + ASK_PAUSE >= deadline {
                return outcome;
            }
            rt::sleep(ASK_PAUSE).await;
        }
    }

    /// True if nobody leads the shard, and somebody did a moment ago: an election is under way.
    #[must_use]
    pub fn is_between_leaders(&self, shard: ShardId) -> bool {
        match self.get(shard) {
            Some(shard) => shard.leaderless_for().is_some_and(|time| time < ELECTION_MAX),
            None => self.0.elsewhere.leader_of(shard).is_some() && self.told_of(shard).is_none(),
        }
    }

    /// Calls other nodes, before clients are told that these lead. Of one that has just died, its connection closed behind
    /// the call, it is known then: clients that are sent to the dead ask nobody else for a second.
    pub async fn call(&self, nodes: BTreeSet<NodeId>) {
        let own = board(self.0.node);
        let calls = nodes.into_iter().filter(|node| *node != self.0.node).map(|node| async move {
            // Whoever does not answer in time may live: what the connection shows counts, not this.
            drop(self.0.host.ask(own, board(node), Notice::Call.encode(), CALL_WAIT).await);
        });
        join_all(calls).await;
    }
}
