//! Who leads the shards of which this node has no replica: each node tells all others what it leads (design section 6), and
//! what time it has.
//!
//! The whole list goes out when it changes and every two seconds; of two that claim a shard the later term counts. Elections
//! cost the metadata group nothing that way. May not know: partitions, and what clients are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_raft::RaftHost;
use ottla_storage::env::critical::Owner;
use ottla_storage::env::{rt, watch};
use parking_lot::Mutex;

use super::metadata_view::MetadataView;
use super::notices::{Announcement, Led, Notice};
use crate::metadata::{ShardId, board};

/// How often everything is told again.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long another node has to take an announcement.
const WAIT: Duration = Duration::from_secs(1);
/// Changes that come together are told together.
const PAUSE: Duration = Duration::from_millis(5);
/// Who says nothing for so long leads nothing.
const SILENCE_MAX: Duration = Duration::from_secs(7);

struct Heard {
    announcement: Announcement,
    at: rt::Instant,
}

/// What other nodes say that they lead.
#[derive(Default)]
pub(super) struct Elsewhere(Mutex<BTreeMap<NodeId, Heard>>);

impl Elsewhere {
    /// Takes an announcement; true if it says something new.
    pub(super) fn hear(&self, announcement: Announcement) -> bool {
        let mut heard = self.0.lock();
        let at = rt::now();
        match heard.get_mut(&announcement.node) {
            Some(known) if known.announcement.session == announcement.session => {
                if known.announcement.number >= announcement.number {
                    return false;
                }
                let is_news = known.announcement.led != announcement.led;
                *known = Heard { announcement, at };
                is_news
            }
            _ => {
                heard.insert(announcement.node, Heard { announcement, at });
                true
            }
        }
    }

    /// What other nodes' clocks say now, those that have spoken lately.
    pub(super) fn clocks_ms(&self) -> Vec<i64> {
        let now = rt::now();
        let heard = self.0.lock();
        let recent = heard.values().map(|heard| (heard, now.since(heard.at))).filter(|(_, age)| *age < SILENCE_MAX);
        let carried = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        recent.map(|(heard, age)| heard.announcement.wall_ms.saturating_add(carried(age))).collect()
    }

    /// Who leads a shard, and what is told of it.
    pub(super) fn leader_of(&self, shard: ShardId) -> Option<(NodeId, Led)> {
        let now = rt::now();
        let heard = self.0.lock();
        let recent = heard.iter().filter(|(_, heard)| now.since(heard.at) < SILENCE_MAX);
        let claims = recent.filter_map(|(node, heard)| Some((*node, heard.announcement.led.get(&shard)?)));
        claims.max_by_key(|(node, led)| (led.term, *node)).map(|(node, led)| (node, led.clone()))
    }
}

/// What a node needs to tell others what it leads.
pub(super) struct Announcer {
    pub(super) own: NodeId,
    pub(super) host: RaftHost,
    pub(super) metadata: Arc<dyn MetadataView>,
    /// Grows when something is led that was not, here or elsewhere.
    pub(super) leadership: watch::Sender<u64>,
    /// What is led here; `None` when the node's shards are gone.
    pub(super) led: Box<dyn Fn() -> Option<BTreeMap<ShardId, Led>> + Send + Sync>,
}

impl Announcer {
    /// Tells others as long as the node has shards.
    pub(super) fn start(self) {
        rt::spawn_critical("announcer", Owner::process(), self.tell());
    }

    async fn tell(self) {
        let mut changes = self.leadership.subscribe();
        let (session, mut number, mut told) = (rt::random_u64(), 0, BTreeMap::new());
        let mut told_at: Option<rt::Instant> = None;
        loop {
            drop(changes.borrow_and_update());
            let Some(led) = (self.led)() else { return };
            let is_due = told_at.is_none_or(|at| rt::now().since(at) >= INTERVAL);
            if is_due || led != told {
                number += 1;
                let announcement =
                    Announcement { node: self.own, session, number, wall_ms: rt::wall_clock_ms(), led: led.clone() };
                self.send(&Notice::Announcement(announcement).encode());
                (told, told_at) = (led, Some(rt::now()));
            }
            let changed = async {
                let changed = changes.changed().await;
                rt::sleep(PAUSE).await;
                changed
            };
            if let Ok(Err(_)) = rt::timeout(INTERVAL, changed).await {
                return;
            }
        }
    }

    fn send(&self, announcement: &Bytes) {
        let image = self.metadata.image();
        for node in image.nodes.keys().copied().filter(|node| *node != self.own) {
            let (host, from, announcement) = (self.host.clone(), board(self.own), announcement.clone());
            rt::spawn(async move { host.ask(from, board(node), announcement, WAIT).await.is_ok() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_storage::env::sim;
    use ottla_storage::ids::ReplicaId;

    fn in_term(term: u64) -> Led {
        Led { term, in_sync: [ReplicaId(4), ReplicaId(term)].into() }
    }

    fn says(node: i32, session: u64, number: u64, led: &[(u64, u64)]) -> Announcement {
        let led = led.iter().map(|(shard, term)| (ShardId(*shard), in_term(*term))).collect();
        Announcement { node: NodeId(node), session, number, wall_ms: 1_000, led }
    }

    #[test]
    fn clocks_count_as_long_as_their_nodes_speak() {
        sim::run(1, || async {
            let elsewhere = Elsewhere::default();
            assert!(elsewhere.hear(says(1, 5, 1, &[])) && elsewhere.hear(says(2, 5, 1, &[])));
            rt::sleep(Duration::from_secs(3)).await;
            let clocks_ms = elsewhere.clocks_ms();
            assert_eq!(clocks_ms.len(), 2);
            assert!(clocks_ms.iter().all(|clock_ms| (4_000..4_100).contains(clock_ms)), "{clocks_ms:?}");
            rt::sleep(SILENCE_MAX).await;
            assert_eq!(elsewhere.clocks_ms(), [0_i64; 0]);
        });
    }

    #[test]
    fn the_latest_term_counts_and_silence_is_no_claim() {
        sim::run(1, || async {
            let elsewhere = Elsewhere::default();
            assert!(elsewhere.hear(says(1, 5, 1, &[(7, 3)])));
            assert!(elsewhere.hear(says(2, 6, 1, &[(7, 4), (8, 1)])));
            assert_eq!(elsewhere.leader_of(ShardId(7)), Some((NodeId(2), in_term(4))));
            assert!(!elsewhere.hear(says(2, 6, 1, &[])), "told before");
            assert!(!elsewhere.hear(says(2, 6, 2, &[(7, 4), (8, 1)])), "nothing new");
            assert!(elsewhere.hear(says(2, 6, 3, &[(8, 1)])));
            assert_eq!(elsewhere.leader_of(ShardId(7)), Some((NodeId(1), in_term(3))));
            assert!(elsewhere.hear(says(2, 7, 1, &[])), "another life counts anew");
            assert_eq!(elsewhere.leader_of(ShardId(8)), None);
            rt::sleep(SILENCE_MAX).await;
            assert_eq!(elsewhere.leader_of(ShardId(7)), None);
        });
    }
}
