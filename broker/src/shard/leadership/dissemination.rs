//! Leadership dissemination: each node sends all other nodes what it leads (design section 6) and its wall clock, so
//! that a node also knows the leaders of shards of which it has no replica.
//!
//! The whole list is sent when it changes and every two seconds; of two nodes that claim a shard the later term counts.
//! Elections cost the metadata group nothing that way. May not know: partitions, and what clients are answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_env::critical::Owner;
use ottla_env::{rt, watch};
use ottla_protocol::ids::NodeId;
use ottla_raft::{Priority, RaftHost};
use parking_lot::Mutex;

use crate::metadata::{ShardId, node_rpc_address};
use crate::shard::metadata_view::MetadataView;
use crate::shard::rpc::{LeadershipUpdate, LedShard, NodeRequest};

/// How often the whole list is sent again.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long another node has to acknowledge an update.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Changes within this time are sent together.
const LINGER: Duration = Duration::from_millis(5);
/// A node that has sent no update for so long counts as leading nothing.
const SILENCE_MAX: Duration = Duration::from_secs(7);

// Two lost updates do not make a leader unknown.
const _: () = assert!(SILENCE_MAX.as_millis() >= 3 * INTERVAL.as_millis() + ACK_TIMEOUT.as_millis());

/// Sessions of a node that are remembered as ended: a message is late by seconds, and a process lives longer.
const ENDED_SESSIONS_MAX: usize = 8;

/// The last update of a node.
struct Received {
    update: LeadershipUpdate,
    at: rt::Instant,
    /// Sessions that this one has replaced, the oldest first: sessions are random numbers, and none comes back.
    ended: VecDeque<u64>,
}

impl Received {
    /// True if the update was sent before the last one: in its session, or in one that has ended.
    fn is_late(&self, update: &LeadershipUpdate) -> bool {
        let is_older = self.update.session == update.session && self.update.number >= update.number;
        is_older || self.ended.contains(&update.session)
    }
}

/// The shards that other nodes lead, from their last updates.
#[derive(Default)]
pub(in crate::shard) struct RemoteLeaders(Mutex<BTreeMap<NodeId, Received>>);

impl RemoteLeaders {
    /// Records an update of another node; true if that node leads other shards, or in other terms, than before.
    pub(in crate::shard) fn update(&self, update: LeadershipUpdate) -> bool {
        let mut received = self.0.lock();
        let at = rt::now();
        let Some(known) = received.get_mut(&update.node) else {
            received.insert(update.node, Received { update, at, ended: VecDeque::new() });
            return true;
        };
        if known.is_late(&update) {
            return false;
        }
        let is_same_session = known.update.session == update.session;
        if !is_same_session {
            known.ended.push_back(known.update.session);
            if known.ended.len() > ENDED_SESSIONS_MAX {
                known.ended.pop_front();
            }
        }
        let is_news = !is_same_session || known.update.led != update.led;
        (known.update, known.at) = (update, at);
        is_news
    }

    /// The wall clocks of the nodes that have sent an update lately, each carried forward to now.
    pub(in crate::shard) fn clocks_ms(&self) -> Vec<i64> {
        let now = rt::now();
        let received = self.0.lock();
        let recent =
            received.values().map(|received| (received, now.since(received.at))).filter(|(_, age)| *age < SILENCE_MAX);
        let carried = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        recent.map(|(received, age)| received.update.wall_ms.saturating_add(carried(age))).collect()
    }

    /// The node that leads a shard, and what that node says of it.
    pub(in crate::shard) fn leader_of(&self, shard: ShardId) -> Option<(NodeId, LedShard)> {
        let now = rt::now();
        let received = self.0.lock();
        let recent = received.iter().filter(|(_, received)| now.since(received.at) < SILENCE_MAX);
        let claims = recent.filter_map(|(node, received)| Some((*node, received.update.led.get(&shard)?)));
        claims.max_by_key(|(node, led)| (led.term, *node)).map(|(node, led)| (node, led.clone()))
    }
}

/// Sends what this node leads to all others.
pub(in crate::shard) struct LeadershipPublisher {
    pub(in crate::shard) own: NodeId,
    pub(in crate::shard) host: RaftHost,
    pub(in crate::shard) metadata: Arc<dyn MetadataView>,
    /// Grows when the leadership of a shard changes, here or on another node.
    pub(in crate::shard) leadership: watch::Sender<u64>,
    /// The shards that this node leads; `None` once the node's [`crate::shard::Shards`] are dropped.
    pub(in crate::shard) led: Box<dyn Fn() -> Option<BTreeMap<ShardId, LedShard>> + Send + Sync>,
}

impl LeadershipPublisher {
    /// Publishes until the node's shards are dropped.
    pub(in crate::shard) fn start(self) {
        rt::spawn_critical("announcer", Owner::process(), self.publish());
    }

    async fn publish(self) {
        let mut changes = self.leadership.subscribe();
        let (session, mut number, mut published) = (rt::random_u64(), 0, BTreeMap::new());
        let mut published_at: Option<rt::Instant> = None;
        loop {
            drop(changes.borrow_and_update());
            let Some(led) = (self.led)() else { return };
            let is_due = published_at.is_none_or(|at| rt::now().since(at) >= INTERVAL);
            if is_due || led != published {
                number += 1;
                let update = LeadershipUpdate {
                    node: self.own,
                    session,
                    number,
                    wall_ms: rt::wall_clock_ms(),
                    led: led.clone(),
                };
                self.send(&NodeRequest::LeadershipUpdate(update).encode());
                (published, published_at) = (led, Some(rt::now()));
            }
            let changed = async {
                let changed = changes.changed().await;
                rt::sleep(LINGER).await;
                changed
            };
            if let Ok(Err(_)) = rt::timeout(INTERVAL, changed).await {
                return;
            }
        }
    }

    fn send(&self, update: &Bytes) {
        let image = self.metadata.image();
        for node in image.nodes.keys().copied().filter(|node| *node != self.own) {
            let (host, from, update) = (self.host.clone(), node_rpc_address(self.own), update.clone());
            rt::spawn(async move {
                host.request(from, node_rpc_address(node), update, Priority::Normal, ACK_TIMEOUT).await.is_ok()
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_env::sim;
    use ottla_storage::ids::ReplicaId;

    fn in_term(term: u64) -> LedShard {
        LedShard { term, in_sync: [ReplicaId(4), ReplicaId(term)].into() }
    }

    fn update(node: i32, session: u64, number: u64, led: &[(u64, u64)]) -> LeadershipUpdate {
        let led = led.iter().map(|(shard, term)| (ShardId(*shard), in_term(*term))).collect();
        LeadershipUpdate { node: NodeId(node), session, number, wall_ms: 1_000, led }
    }

    #[test]
    fn clocks_count_as_long_as_their_nodes_send_updates() {
        sim::run(1, || async {
            let remote_leaders = RemoteLeaders::default();
            assert!(remote_leaders.update(update(1, 5, 1, &[])) && remote_leaders.update(update(2, 5, 1, &[])));
            rt::sleep(Duration::from_secs(3)).await;
            let clocks_ms = remote_leaders.clocks_ms();
            assert_eq!(clocks_ms.len(), 2);
            assert!(clocks_ms.iter().all(|clock_ms| (4_000..4_100).contains(clock_ms)), "{clocks_ms:?}");
            rt::sleep(SILENCE_MAX).await;
            assert_eq!(remote_leaders.clocks_ms(), [0_i64; 0]);
        });
    }

    #[test]
    fn the_latest_term_counts_and_a_silent_node_leads_nothing() {
        sim::run(1, || async {
            let remote_leaders = RemoteLeaders::default();
            assert!(remote_leaders.update(update(1, 5, 1, &[(7, 3)])));
            assert!(remote_leaders.update(update(2, 6, 1, &[(7, 4), (8, 1)])));
            assert_eq!(remote_leaders.leader_of(ShardId(7)), Some((NodeId(2), in_term(4))));
            assert!(!remote_leaders.update(update(2, 6, 1, &[])), "an old number");
            assert!(!remote_leaders.update(update(2, 6, 2, &[(7, 4), (8, 1)])), "nothing new");
            assert!(remote_leaders.update(update(2, 6, 3, &[(8, 1)])));
            assert_eq!(remote_leaders.leader_of(ShardId(7)), Some((NodeId(1), in_term(3))));
            assert!(remote_leaders.update(update(2, 7, 1, &[])), "another session counts anew");
            assert_eq!(remote_leaders.leader_of(ShardId(8)), None);
            assert!(!remote_leaders.update(update(2, 6, 4, &[(8, 1)])), "a late update of a process that has ended");
            assert_eq!(remote_leaders.leader_of(ShardId(8)), None);
            rt::sleep(SILENCE_MAX).await;
            assert_eq!(remote_leaders.leader_of(ShardId(7)), None);
        });
    }
}
