//! The check of failure detection after the faults: a node is killed and restarted, and what the other nodes show of it
//! must be true.
//!
//! May not know: how the cluster detects it.

use std::collections::BTreeSet;
use std::time::Duration;

use kafka_protocol::messages::MetadataRequest;
use ottla_env::rt;
use ottla_env::sim::SimNode;
use ottla_env::sim::disk::Crash;

use crate::laws::liveness::{Shown, leaders_are_listed, untrue};
use crate::registry::broker;
use crate::wire::Client;
use crate::world::World;

/// How long it may take until a live node is shown as live: an election, then a heartbeat.
const UNFENCED_BY: Duration = Duration::from_secs(10);
/// How long it may take until a dead node is fenced: elections, and a session (`sim_node::SESSION_TIMEOUT`) that a new
/// leader grants in full.
const FENCED_BY: Duration = Duration::from_secs(12);
/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const METADATA: i16 = 12;

/// What the running nodes show; `None` if one of them does not answer.
async fn shown(world: &World, client: &mut Client) -> Option<Vec<Shown>> {
    let mut all = Vec::new();
    for running in world.running_nodes() {
        let request = MetadataRequest::default().with_topics(None);
        let answer = client.call(running.node, METADATA, &request).await?;
        world.judge(leaders_are_listed(running.node.0, &answer));
        let image = running.metadata.image();
        let fenced = image.nodes.values().filter(|node| node.is_fenced()).map(|node| node.id.0).collect();
        all.push(Shown::of(running.node.0, fenced, &answer));
    }
    Some(all)
}

/// Waits until every running node shows that exactly these nodes are dead; a law is broken if that takes too long.
async fn expect(world: &World, client: &mut Client, dead: &BTreeSet<i32>, within: Duration) {
    let all: BTreeSet<_> = world.nodes().map(|node| broker(node).0).collect();
    let (begun, mut last) = (rt::now(), Vec::new());
    while world.broken().is_none() {
        if let Some(shown) = shown(world, client).await {
            if shown.iter().all(|shown| shown.is_true(&all, dead)) {
                return;
            }
            last = shown;
        }
        if rt::now().since(begun) > within {
            world.judge::<()>(Err(untrue(within.as_secs(), dead, &last)));
            return;
        }
        rt::sleep(POLL_INTERVAL).await;
    }
}

/// Kills a node and restarts it. Skipped where a disk is corrupted: that disk's node may be gone for good.
pub(crate) async fn check(world: &World) {
    if world.nodes().any(|node| world.is_corrupted(node)) {
        return;
    }
    let mut client = Client::new(world.clone(), "liveness-check");
    expect(world, &mut client, &BTreeSet::new(), UNFENCED_BY).await;
    // In a cluster of fewer than three nodes the others have no majority.
    if world.nodes().count() < 3 || world.broken().is_some() {
        return;
    }
    let dead: SimNode = world.random_node();
    world.crash(dead, Crash::Process);
    expect(world, &mut client, &BTreeSet::from([broker(dead).0]), FENCED_BY).await;
    world.start(dead).await;
    expect(world, &mut client, &BTreeSet::new(), UNFENCED_BY).await;
}
