//! A replica that is elected while its log has a marker which it has not applied: the next transaction of a producer of version 1 has
//! the same epoch, and its first batch looks like one of the transaction that the marker ends.
//!
//!     the leader reaches a follower no more once that has the marker   the coordinator is answered, no follower learns that the marker is committed
//!     the leader is killed                                             its producer goes on to its successor
//!     the successor's heartbeats get lost                              it is elected, and commits no entry of its own
//!     they arrive again                                                it applies the marker, and what it was sent behind that
//!
//! May not know: schedules, clients, laws.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::partition::TopicRef;
use ottla_env::rt;
use ottla_env::sim::SimNode;
use ottla_env::sim::disk::Crash;
use ottla_protocol::batch::BatchHeader;
use ottla_protocol::ids::{PartitionId, ProducerId};
use ottla_raft::{Message, Sent};
use ottla_storage::entry::Entry;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use parking_lot::Mutex;

use crate::targeting::poll;
use crate::workload::transfers;
use crate::world::World;

/// Some transaction has ended by then, mostly.
const MARKER_BY: Duration = Duration::from_secs(2);
/// Its leader has applied the marker by then, mostly.
const APPLIED_BY: Duration = Duration::from_millis(300);
/// The answer to the coordinator has left the node by then.
const ANSWERED_AFTER: Duration = Duration::from_millis(5);
/// Another replica is elected by then.
const ELECTED_BY: Duration = Duration::from_secs(2);
/// Clients try several times meanwhile, and no other replica campaigns yet.
const UNHEARD_FOR: Duration = Duration::from_millis(400);
/// The node that was killed is back by then, and clients have gone on.
const NEXT_AFTER: Duration = Duration::from_millis(800);
const CHECK: Duration = Duration::from_millis(2);

/// No further try begins after this time.
pub(crate) const TAKES: Duration = Duration::from_secs(16);

pub(crate) async fn lead_behind_markers(world: &World) {
    let until = rt::now() + TAKES;
    while rt::now() < until {
        let what = lead_behind_marker(world).await;
        world.network().lose_messages(None);
        world.trace_fault(what);
        rt::sleep(NEXT_AFTER).await;
    }
}

/// Returns what became of it.
async fn lead_behind_marker(world: &World) -> String {
    let Some(topic) = transfers::topic_id(world) else { return "no producer runs transactions".to_owned() };
    let watched = Arc::new(Mutex::new(None::<Marked>));
    let (notes, at) = (watched.clone(), world.clone());
    world.network().lose_messages(Some(Arc::new(move |sent| {
        let Message::AppendEntries { vote, entries, .. } = sent.message else { return false };
        let mut notes = notes.lock();
        match &mut *notes {
            Some(marked) => marked.loses(sent, vote.term.0, entries),
            none => {
                *none = Marked::of(&at, topic, sent, vote.term.0, entries);
                false
            }
        }
    })));
    let marked = || watched.lock().as_ref().map(|marked| (marked.leader, marked.marker));
    let Some((leader, (partition, producer))) = poll(CHECK, MARKER_BY, marked).await else {
        return "no marker was written".to_owned();
    };
    let Some(node) = world.network().location_of(leader) else { return format!("replica {leader:?} is nowhere") };
    if poll(CHECK, APPLIED_BY, || has_ended(world, node, partition, producer)).await.is_none() {
        return format!("node {} has not applied the marker of producer {} on {partition}", node.0, producer.0);
    }
    rt::sleep(ANSWERED_AFTER).await;
    world.crash(node, Crash::Process);
    let successor = poll(CHECK, ELECTED_BY, || watched.lock().as_ref()?.successor).await;
    rt::sleep(UNHEARD_FOR).await;
    world.network().lose_messages(None);
    world.start(node).await;
    format!(
        "replica {successor:?} followed node {} behind the marker of producer {} on {partition}",
        node.0, producer.0
    )
}

/// Something if the node has applied the end of the producer's transaction.
fn has_ended(world: &World, node: SimNode, partition: PartitionId, producer: ProducerId) -> Option<()> {
    let running = world.running_node(node)?;
    let found = running.partitions.find_now(TopicRef::Id(partition.topic), partition.index).ok().flatten()?;
    let producers = found.producers().ok()?;
    let known = producers.into_iter().find(|known| known.producer_id == producer)?;
    (known.current_txn_start_offset == -1).then_some(())
}

/// A marker on its way to the followers.
#[derive(Debug)]
struct Marked {
    leader: ReplicaId,
    term: u64,
    /// The replicas of its shard.
    members: BTreeSet<ReplicaId>,
    index: RaftIndex,
    marker: (PartitionId, ProducerId),
    /// Who has been sent it.
    told: BTreeSet<ReplicaId>,
    /// Who leads after this leader.
    successor: Option<ReplicaId>,
}

impl Marked {
    /// The first marker of the topic in what a leader sends.
    fn of(world: &World, topic: uuid::Uuid, sent: &Sent<'_>, term: u64, entries: &[Entry]) -> Option<Self> {
        let markers = entries.iter().find_map(|entry| {
            let of_topic = entry.batches.iter().filter(|batch| batch.partition.topic == topic);
            let mut headers = of_topic.filter_map(|batch| Some((batch.partition, BatchHeader::parse(&batch.data)?)));
            let (partition, header) = headers.find(|(_, header)| header.attributes.is_control())?;
            Some((entry.log_id.index, (partition, ProducerId(header.producer_id))))
        });
        let ((index, marker), image) = (markers?, world.image()?);
        let mut shards = image.shards.values();
        let shard = shards.find(|shard| shard.members().any(|member| member.id == sent.from))?;
        let members = shard.members().map(|member| member.id).collect();
        let told = BTreeSet::from([sent.to]);
        Some(Self { leader: sent.from, term, members, index, marker, told, successor: None })
    }

    /// True if a message of a leader is to get lost.
    fn loses(&mut self, sent: &Sent<'_>, term: u64, entries: &[Entry]) -> bool {
        if sent.from == self.leader && term == self.term {
            // What comes before the marker arrives: without it the marker could not.
            let is_told = self.told.contains(&sent.to);
            if entries.iter().any(|entry| entry.log_id.index == self.index) {
                self.told.insert(sent.to);
            }
            return is_told;
        }
        let succeeds = self.members.contains(&sent.from) && term > self.term;
        if succeeds {
            self.successor.get_or_insert(sent.from);
        }
        succeeds
    }
}
