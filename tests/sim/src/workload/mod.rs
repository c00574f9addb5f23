//! The workload: clients of the simulated cluster, some over the wire, some through the production API of partitions
//! and groups.
//!
//! May not know: more than a real client, that is, which nodes say that they lead, and the answers.

pub(crate) mod burst;
pub(crate) mod committer;
pub(crate) mod compacted;
pub(crate) mod consumer;
pub(crate) mod deleter;
pub(crate) mod directory_mover;
pub(crate) mod expiring_commits;
pub(crate) mod extra_clients;
pub(crate) mod fetched;
mod group_client;
pub(crate) mod members;
mod own_topic;
pub(crate) mod pipeline;
pub(crate) mod prober;
pub(crate) mod producer;
pub(crate) mod rack_reader;
pub(crate) mod reassigner;
pub(crate) mod resizer;
pub(crate) mod sessions;
mod static_members;
pub(crate) mod topics;
pub(crate) mod transfers;
pub(crate) mod trimmer;

use std::time::Duration;

use bytes::Bytes;
use ottla_broker::partition::TopicRef;
use ottla_env::rt;
use ottla_env::sim::{self, SimNode};
use ottla_protocol::batch::BatchBuilder;

use crate::registry::node_of;
use crate::world::World;

pub(crate) const NAME: TopicRef<'static> = TopicRef::Name(crate::registry::TOPIC);

/// Values contain their producer, so that laws can tell.
const PRODUCER_SHIFT: u32 = 32;

/// The producer that sent a value.
pub(crate) fn producer_of(value: u64) -> u64 {
    value >> PRODUCER_SHIFT
}

/// The first id of producers with several batches in flight.
pub(crate) const BURST_FROM: u64 = 20;

/// The first id of producers that request new producer ids.
pub(crate) const PIPELINE_FROM: u64 = 30;

/// The first id of producers without sequences.
pub(crate) const PLAIN_FROM: u64 = 50;

pub(crate) fn is_idempotent(value: u64) -> bool {
    producer_of(value) < PLAIN_FROM
}

/// A producer id that the cluster never assigns: its own start at 0.
fn own_producer_id(client: u64) -> i64 {
    (1 << 40) + i64::try_from(client).unwrap_or(0)
}

pub(crate) fn value_of(producer: u64, number: u64) -> u64 {
    (producer << PRODUCER_SHIFT) | number
}

/// The node for the next request: mostly the leader, sometimes any node, as clients with stale metadata do.
fn target(world: &World, index: i32) -> SimNode {
    let stray = sim::random_below(20) == 0;
    world.leader(index).filter(|_| !stray).unwrap_or_else(|| world.random_node())
}

/// The same for a topic of other clients: mostly the node that leads the partition as some node has it.
fn leader_of(world: &World, topic: &str, index: i32) -> SimNode {
    let any = world.random_node();
    let known = || {
        let image = world.image()?;
        let topic = image.topic(topic)?;
        let led = world.running_nodes().into_iter().filter_map(|running| {
            let leader = running.partitions.leadership(topic, index);
            Some((leader.leader_epoch, leader.leader?))
        });
        led.max().map(|(_, node)| node_of(node))
    };
    if sim::random_below(20) == 0 { any } else { known().unwrap_or(any) }
}

/// Adds what an operator was answered to the trace. Faults are kept longer than other events, and a request that nobody answers
/// is none: it is repeated until somebody does.
fn trace_answer(world: &World, request: &str, answer: Option<impl std::fmt::Debug>) {
    match answer {
        Some(answer) => world.trace_fault(format!("{request}: {answer:?}")),
        None => world.trace(None, format!("{request}: no answer")),
    }
}

/// The batch that a client sends.
fn built(builder: BatchBuilder) -> Bytes {
    match builder.build() {
        Ok(bytes) => bytes,
        Err(error) => panic!("a batch of the workload: {error}"),
    }
}

async fn pause(most_ms: u64) {
    rt::sleep(Duration::from_micros(sim::random_below(most_ms * 1_000))).await;
}
