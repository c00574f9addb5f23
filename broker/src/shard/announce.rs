//! Who leads the shards of which this node has no replica: each node tells all others what it leads (design section 6), and
//! what time it has.
//!
//!  announcement: | version u8 | node i32 | session u64 | number u64 | wall clock ms i64 | list: shard u64, term u64, list: replica in sync u64 |
//!  answer: empty
//!
//! The whole list goes out when it changes and every two seconds; of two that claim a shard the later term counts. Elections
//! cost the metadata group nothing that way. May not know: partitions, and what clients are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_protocol::ids::NodeId;
use ottla_raft::{RaftHost, Service};
use ottla_storage::env::{rt, watch};
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

use super::clock::JUMP_MS_MIN;
use super::registry::Registry;
use crate::codec::{CodecError, Reader, Writer, read_list, write_list};
use crate::metadata::{ShardId, board};

const VERSION: u8 = 1;
/// How often everything is told again.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long another node has to take an announcement.
const WAIT: Duration = Duration::from_secs(1);
/// Changes that come together are told together.
const PAUSE: Duration = Duration::from_millis(5);
/// Who says nothing for so long leads nothing.
const SILENCE_MAX: Duration = Duration::from_secs(7);

/// What a leader tells of its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Led {
    pub(crate) term: u64,
    /// The voters that are in sync.
    pub(crate) in_sync: Arc<[ReplicaId]>,
}

/// What one node says that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Announcement {
    node: NodeId,
    /// One life of the node; random.
    session: u64,
    /// Grows with each announcement of the session.
    number: u64,
    /// Its wall clock when it spoke.
    wall_ms: i64,
    led: BTreeMap<ShardId, Led>,
}

impl Announcement {
    fn encode(&self) -> Bytes {
        let mut w = Writer::default();
        w.u8(VERSION).i32(self.node.0).u64(self.session).u64(self.number).i64(self.wall_ms);
        write_list(&mut w, self.led.iter(), |w, (shard, led)| {
            w.u64(shard.0).u64(led.term);
            write_list(w, led.in_sync.iter(), |w, replica| {
                w.u64(replica.0);
            });
        });
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::of_version(bytes, VERSION)?;
        let (node, session, number) = (NodeId(r.i32("node id")?), r.u64("session")?, r.u64("number")?);
        let wall_ms = r.i64("wall clock")?;
        let led = read_list(&mut r, "shards led", |r| {
            let (shard, term) = (ShardId(r.u64("shard")?), r.u64("term")?);
            let in_sync = read_list(r, "replicas in sync", |r| r.u64("replica").map(ReplicaId))?;
            Ok((shard, Led { term, in_sync: in_sync.into() }))
        })?;
        r.end()?;
        Ok(Self { node, session, number, wall_ms, led: led.into_iter().collect() })
    }
}

struct Heard {
    announcement: Announcement,
    at: rt::Instant,
}

/// What other nodes say that they lead.
#[derive(Default)]
pub(super) struct Elsewhere(Mutex<BTreeMap<NodeId, Heard>>);

impl Elsewhere {
    /// Takes an announcement; true if it says something new.
    fn hear(&self, announcement: Announcement) -> bool {
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

    /// How many other nodes' clocks are near this time.
    pub(super) fn near(&self, wall_ms: i64) -> usize {
        let now = rt::now();
        let is_near = |heard: &&Heard| {
            let age = now.since(heard.at);
            let theirs = heard.announcement.wall_ms.saturating_add(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
            age < SILENCE_MAX && theirs.abs_diff(wall_ms) <= JUMP_MS_MIN.unsigned_abs()
        };
        self.0.lock().values().filter(is_near).count()
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

/// What a node needs to tell others what it leads, and to hear them.
pub(super) struct Announcer {
    pub(super) own: NodeId,
    pub(super) host: RaftHost,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) elsewhere: Arc<Elsewhere>,
    /// Grows when something is led that was not, here or elsewhere.
    pub(super) leadership: watch::Sender<u64>,
    /// What is led here; `None` when the node's shards are gone.
    pub(super) led: Box<dyn Fn() -> Option<BTreeMap<ShardId, Led>> + Send + Sync>,
}

impl Announcer {
    /// Hears others from now on, and tells them as long as the node has shards.
    pub(super) fn start(self) {
        let (elsewhere, leadership) = (self.elsewhere.clone(), self.leadership.clone());
        let service = move |_from: ReplicaId, told: Bytes| -> BoxFuture<'static, Option<Bytes>> {
            if Announcement::decode(&told).is_ok_and(|announcement| elsewhere.hear(announcement)) {
                leadership.send_modify(|version| *version += 1);
            }
            std::future::ready(Some(Bytes::new())).boxed()
        };
        let service: Service = Arc::new(service);
        self.host.serve(board(self.own), service);
        rt::spawn(self.tell());
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
                self.send(&announcement.encode());
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
        let image = self.registry.image();
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

    fn in_term(term: u64) -> Led {
        Led { term, in_sync: [ReplicaId(4), ReplicaId(term)].into() }
    }

    fn says(node: i32, session: u64, number: u64, led: &[(u64, u64)]) -> Announcement {
        let led = led.iter().map(|(shard, term)| (ShardId(*shard), in_term(*term))).collect();
        Announcement { node: NodeId(node), session, number, wall_ms: 1_000, led }
    }

    #[test]
    fn what_is_told_comes_back_and_cut_bytes_are_refused() {
        let told = says(3, 9, 2, &[(1, 4), (7, u64::MAX)]);
        let bytes = told.encode();
        assert!((0..bytes.len()).all(|cut| Announcement::decode(&bytes[..cut]).is_err()));
        assert_eq!(Announcement::decode(&bytes), Ok(told));
    }

    #[test]
    fn clocks_are_near_as_long_as_their_nodes_speak() {
        sim::run(1, || async {
            let elsewhere = Elsewhere::default();
            assert!(elsewhere.hear(says(1, 5, 1, &[])) && elsewhere.hear(says(2, 5, 1, &[])));
            rt::sleep(Duration::from_secs(3)).await;
            assert_eq!(elsewhere.near(4_000 + JUMP_MS_MIN), 2);
            assert_eq!(elsewhere.near(4_100 + JUMP_MS_MIN), 0);
            rt::sleep(SILENCE_MAX).await;
            assert_eq!(elsewhere.near(4_000), 0);
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
