//! The service for requests of other nodes (see `rpc`), and this node's own requests to them: preferred-leader
//! elections and pings.
//!
//! May not know: how requests are encoded, and what clients are answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Priority, Service};
use ottla_storage::ids::ReplicaId;

use super::leadership::transfer;
use super::manager::Shards;
use super::rpc::{ElectionOutcome, NodeRequest};
use crate::metadata::{ShardId, node_rpc_address};

/// Before a request is repeated at another node, since the first did not lead.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
/// A shard without a leader for longer is not taken to be in an election: it may stay without.
const ELECTION_MAX: Duration = Duration::from_secs(1);
/// How long a node has to respond to a ping.
const PING_TIMEOUT: Duration = Duration::from_millis(50);

impl Shards {
    /// Serves the requests of other nodes from now on.
    pub(super) fn serve_node_requests(&self) {
        let weak = Arc::downgrade(&self.0);
        let service = move |_from: ReplicaId, request: Bytes| -> BoxFuture<'static, Option<Bytes>> {
            let shards = weak.upgrade().map(Shards);
            async move {
                let shards = shards?;
                match NodeRequest::decode(&request).ok()? {
                    NodeRequest::LeadershipUpdate(update) => {
                        if shards.0.remote_leaders.update(update) {
                            shards.0.leadership.send_modify(|version| *version += 1);
                        }
                        Some(Bytes::new())
                    }
                    NodeRequest::ElectPreferred(shard) => Some(shards.elect_preferred_here(shard).await.encode()),
                    NodeRequest::Ping => Some(Bytes::new()),
                    NodeRequest::SetClock(shard, to_ms) => Some(shards.set_clock_here(shard, to_ms).await.encode()),
                    NodeRequest::ConsumerLag(request) => shards.answer_lag(request).await,
                    NodeRequest::Transactions(request) => shards.answer_transactions(request).await,
                }
            }
            .boxed()
        };
        let service: Service = Arc::new(service);
        self.0.host.serve(node_rpc_address(self.0.node), service);
    }

    /// The response of another node to a request; `None` if none came in time.
    pub(super) async fn ask_node(
        &self,
        node: NodeId,
        request: &NodeRequest,
        priority: Priority,
        wait: Duration,
    ) -> Option<Bytes> {
        let (own, other) = (node_rpc_address(self.0.node), node_rpc_address(node));
        self.0.host.request(own, other, request.encode(), priority, wait).await.ok()
    }

    async fn elect_preferred_here(&self, shard: ShardId) -> ElectionOutcome {
        match self.get(shard) {
            Some(shard) => transfer::elect_preferred(&shard, &*self.0.metadata).await,
            None => ElectionOutcome::NotLeader,
        }
    }

    /// Transfers a shard's leadership to its preferred replica, whichever node leads it now; when this returns `Done`,
    /// this node has the new leader in its own view too.
    pub async fn elect_preferred(&self, shard: ShardId, wait: Duration) -> ElectionOutcome {
        let deadline = rt::now() + wait;
        loop {
            let left = deadline.since(rt::now());
            let outcome = match self.leader_of(shard) {
                Some(node) if node == self.0.node => {
                    rt::timeout(left, self.elect_preferred_here(shard)).await.unwrap_or(ElectionOutcome::TimedOut)
                }
                Some(node) => {
                    let request = NodeRequest::ElectPreferred(shard);
                    let response = self.ask_node(node, &request, Priority::Normal, left).await;
                    let outcome = response.and_then(|response| ElectionOutcome::decode(&response));
                    outcome.unwrap_or(ElectionOutcome::TimedOut)
                }
                None => ElectionOutcome::NotLeader,
            };
            if outcome == ElectionOutcome::Done {
                let image = self.0.metadata.image();
                let preferred = image.shard(shard).and_then(|record| image.preferred_leader(record));
                let is_known = || self.leader_of(shard) == preferred.map(|replica| replica.node);
                self.wait_for_leadership(deadline, is_known).await;
            }
            // Nothing was done: the leader is not known yet, or another node was taken for it; or the preferred replica, which
            // has just come back, did not take over at once.
            let may_yet = matches!(outcome, ElectionOutcome::NotLeader | ElectionOutcome::TimedOut);
            if !may_yet || rt::now() + RETRY_BACKOFF >= deadline {
                return outcome;
            }
            rt::sleep(RETRY_BACKOFF).await;
        }
    }

    /// True if the shard has no leader, but had one a moment ago: an election is under way.
    #[must_use]
    pub fn is_between_leaders(&self, shard: ShardId) -> bool {
        match self.get(shard) {
            Some(shard) => shard.leaderless_for().is_some_and(|time| time < ELECTION_MAX),
            None => self.0.remote_leaders.leader_of(shard).is_some() && self.remote_leader_of(shard).is_none(),
        }
    }

    /// Pings other nodes, before clients are told that these nodes lead. If a node has just died, the ping finds its
    /// connection closed, and the node is suspected from then on: a client that is sent to a dead node tries no other
    /// for a second.
    pub async fn ping(&self, nodes: BTreeSet<NodeId>) {
        let pings = nodes.into_iter().filter(|node| *node != self.0.node).map(|node| async move {
            // A node that does not respond in time may be alive: the state of the connection counts, not the timeout.
            let _ = self.ask_node(node, &NodeRequest::Ping, Priority::Normal, PING_TIMEOUT).await;
        });
        join_all(pings).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use ottla_env::sim;

    use super::*;
    use crate::metadata::ShardKind;
    use crate::shard::fake::{FakeGroup, FakeMetadata, SHARD};
    use crate::shard::leadership::transfer::tests::{TARGET, image_preferring_another_node};

    #[test]
    fn a_preferred_replica_that_does_not_take_over_at_once_is_asked_again() {
        sim::run(1, || async {
            let (group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 2, pinned: false });
            group.transfer_targets.lock().insert(TARGET);
            let shards = Shards::for_tests(shard, Arc::new(FakeMetadata::new(image_preferring_another_node())));
            group.lost_transfers.store(1, Ordering::Relaxed);
            assert_eq!(shards.elect_preferred(SHARD, Duration::from_secs(1)).await, ElectionOutcome::TimedOut);
            group.lost_transfers.store(1, Ordering::Relaxed);
            assert_eq!(shards.elect_preferred(SHARD, Duration::from_secs(30)).await, ElectionOutcome::Done);
        });
    }
}
