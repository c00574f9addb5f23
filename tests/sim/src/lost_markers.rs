//! Markers of transactions that get lost while their coordinator loses its leadership and wins it back under the same epoch: the task that
//! sent them still waits for an answer when the id has gone on without it.
//!
//!     all markers get lost           a task waits for the answer to its first ones
//!     no two nodes reach each other  the coordinator has no quorum, and no node is elected
//!     it reaches the others again    it leads under the same epoch; what was prepared is completed by another task
//!     all but the first get lost     the first task sends its own once more while a later transaction lacks its markers
//!     the coordinator is killed      what its successor finds complete stays as it is
//!
//! May not know: schedules, clients, laws.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::coordinator::transaction::{Producer, marked_producer};
use ottla_broker::metadata::InternalTopic;
use ottla_broker::partition::TopicRef;
use ottla_env::rt;
use ottla_env::sim::SimNode;
use ottla_env::sim::disk::Crash;
use ottla_protocol::ids::LeaderEpoch;
use ottla_raft::{Message, Sent};
use parking_lot::Mutex;

use crate::targeting::poll;
use crate::world::World;

/// Some transaction has ended by then, mostly.
const FIRST_BY: Duration = Duration::from_secs(6);
/// A coordinator without a quorum has stopped serving by then.
const STOPS_BY: Duration = Duration::from_secs(4);
/// It has forgotten by then what it coordinated.
const FORGETS_AFTER: Duration = Duration::from_millis(700);
/// It serves again by then, and its followers hear it.
const SERVES_BY: Duration = Duration::from_secs(1);
/// The first task is told this long after it has sent its markers that there is no answer: `MARKER_WAIT` of the coordinator.
const ANSWER_BY: Duration = Duration::from_secs(10);
/// Between then and the loss of later markers; some transaction needs some.
const LATER_FOR: Duration = Duration::from_millis(600);
/// The first task has sent its markers again by then, and has gone on.
const GOES_ON_BY: Duration = Duration::from_millis(400);
/// The others have elected a leader by then.
const DOWN_FOR: Duration = Duration::from_secs(1);
const CHECK: Duration = Duration::from_millis(10);

/// The longest that [`outlive_leadership`] takes.
pub(crate) const TAKES: Duration = Duration::from_secs(18);

pub(crate) async fn outlive_leadership(world: &World) {
    let network = world.network();
    let Some((coordinator, producer)) = lose_all(world).await else {
        network.lose_messages(None);
        return world.trace_fault("no node has sent markers".to_owned());
    };
    // By the clock of this task: each node has its own.
    let sent_at = rt::now();
    let before = led(world, coordinator);
    world.nodes().for_each(|node| world.cut(node, true, true));
    let stops_by = rt::now() + STOPS_BY;
    while !led(world, coordinator).is_empty() && rt::now() < stops_by {
        rt::sleep(CHECK).await;
    }
    rt::sleep(FORGETS_AFTER).await;
    network.lose_messages(None);
    // The others do not reach each other yet, so that neither of them is elected.
    world.reconnect(coordinator);
    rt::sleep(SERVES_BY).await;
    world.nodes().for_each(|node| world.reconnect(node));
    let again = led(world, coordinator);
    world.trace_fault(format!("node {} coordinated {before:?}, and {again:?} afterwards", coordinator.0));
    rt::sleep((sent_at + ANSWER_BY - LATER_FOR).since(rt::now())).await;
    network.lose_messages(Some(Arc::new(move |sent| producer_of(sent).is_some_and(|later| later != producer))));
    rt::sleep((sent_at + ANSWER_BY + GOES_ON_BY).since(rt::now())).await;
    world.crash(coordinator, Crash::Process);
    network.lose_messages(None);
    rt::sleep(DOWN_FOR).await;
    world.start(coordinator).await;
}

/// Loses all markers from now on; returns when the first ones have got lost: who sent them, and whose they are.
async fn lose_all(world: &World) -> Option<(SimNode, Producer)> {
    let first = Arc::new(Mutex::new(None));
    let notes = first.clone();
    world.network().lose_messages(Some(Arc::new(move |sent| {
        let Some(producer) = producer_of(sent) else { return false };
        notes.lock().get_or_insert((sent.node, producer));
        true
    })));
    poll(CHECK, FIRST_BY, || *first.lock()).await
}

/// The producer whose markers a message wants written.
fn producer_of(sent: &Sent<'_>) -> Option<Producer> {
    let Message::Request(request) = sent.message else { return None };
    marked_producer(request)
}

/// The partitions of transactional ids that a node leads and serves, each with its epoch.
fn led(world: &World, node: SimNode) -> BTreeMap<i32, LeaderEpoch> {
    let topic = InternalTopic::TransactionState.name();
    let count = world.image().and_then(|image| image.topic(topic).map(|topic| topic.partition_count())).unwrap_or(0);
    let Some(running) = world.running_node(node) else { return BTreeMap::new() };
    let of = |index| running.partitions.find_now(TopicRef::Name(topic), index).ok().flatten()?.leader_epoch();
    (0..count).filter_map(|index| Some((index, of(index)?))).collect()
}
