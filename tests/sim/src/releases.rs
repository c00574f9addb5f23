//! Nodes of two releases in one cluster, told apart by the feature levels that they understand: upgrades and rollbacks of one
//! node after the other, and the level that an operator raises meanwhile.
//!
//! May not know: other faults, clients.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ottla_broker::metadata::{FEATURE, FeatureLevel, FeatureUpdate, Levels, MetadataError, ShardId, UpgradeType};
use ottla_env::rt;
use ottla_env::sim::disk::Crash;
use ottla_env::sim::{self, SimNode};
use ottla_raft::Message;

use crate::laws::levels;
use crate::registry::broker;
use crate::world::World;

/// How long an update of the level may take.
const UPDATE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two attempts of an operator to raise the level.
const RAISE_INTERVAL: Duration = Duration::from_millis(200);
/// For so long a node does not learn that the level was raised: clients have begun transactions by then.
const UNKNOWN_FOR: Duration = Duration::from_millis(400);

/// Which nodes run the older release.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    older: BTreeSet<SimNode>,
    /// The level may have been raised: no node goes back to the older release any more.
    may_be_raised: bool,
}

impl Releases {
    /// The feature levels that a node understands when it is started now. `newer`: those of the newer release.
    pub(crate) fn levels_of(&self, node: SimNode, newer: Levels) -> Levels {
        if self.older.contains(&node) { Levels::FIRST } else { newer }
    }
}

/// Before the first start: all nodes of the cluster run the older release, or some.
pub(crate) fn draw(world: &World) {
    let all = sim::random_below(2) == 0;
    let mut older: BTreeSet<_> = world.nodes().filter(|_| all || sim::random_below(2) == 0).collect();
    if older.is_empty() {
        older.insert(world.random_node());
    }
    world.trace_fault(format!("nodes of the older release: {:?}", older.iter().map(|node| node.0).collect::<Vec<_>>()));
    world.releases().older = older;
}

/// Stops a node and starts it with the other release: an upgrade, or its rollback.
pub(crate) async fn change(world: &World, node: SimNode, pause: Duration) {
    let is_first = world.image().is_some_and(|image| image.level == FeatureLevel::FIRST);
    let (older, what) = {
        let mut releases = world.releases();
        if !releases.older.remove(&node) {
            if releases.may_be_raised || !is_first {
                return;
            }
            releases.older.insert(node);
        }
        (releases.older.len(), releases.levels_of(node, world.levels()))
    };
    world.trace_fault(format!(
        "node {} is to run the release of levels {what}; {older} nodes run the older one",
        node.0
    ));
    world.stop(node).await;
    rt::sleep(pause).await;
    world.start(node).await;
}

/// The nodes that run the older release; `None` while one of them is not registered so, since the cluster cannot know it.
fn registered_older(world: &World) -> Option<BTreeSet<SimNode>> {
    let (older, image) = (world.releases().older.clone(), world.image()?);
    let is_known = |node: &SimNode| image.nodes.get(&broker(*node)).is_some_and(|known| known.levels == Levels::FIRST);
    older.iter().all(is_known).then_some(older)
}

/// An operator raises the level, which must be refused as long as a registered node does not understand it. True if it is raised.
pub(crate) async fn raise_level(world: &World) -> bool {
    let Some(older) = registered_older(world) else { return false };
    world.releases().may_be_raised = true;
    let update =
        FeatureUpdate { feature: FEATURE.to_owned(), level: world.levels().newest, kind: Some(UpgradeType::Upgrade) };
    let asked = world.request(world.random_node(), move |running| async move {
        running.metadata.update_features(vec![update], false, UPDATE_TIMEOUT).await
    });
    let answer = asked.await;
    world.trace_fault(format!("the level is to be raised: {answer:?}"));
    if let Some(Err(MetadataError::InvalidUpdateVersion(_))) = &answer {
        world.releases().may_be_raised = false;
    }
    let is_raised = matches!(answer, Some(Ok(())));
    let still_older = world.releases().older.intersection(&older).next().copied();
    if let Some(node) = still_older.filter(|_| is_raised) {
        world.judge::<()>(Err(levels::raised_above(node.0)));
    }
    is_raised
}

/// As [`raise_level`], while one node is sent no entry of the metadata: for some time it does not know that the level was raised, and
/// clients do.
async fn raise_level_unknown_to_one(world: &World) -> bool {
    let controller = world.controller();
    let others: Vec<_> = world.nodes().filter(|node| Some(*node) != controller).collect();
    let node = others[usize::try_from(sim::random_below(others.len() as u64)).unwrap_or(0)];
    let image = world.image();
    let metadata = image.as_ref().and_then(|image| image.shard(ShardId::METADATA));
    let replica = metadata.and_then(|shard| shard.members().find(|member| member.node == broker(node)));
    let Some(replica) = replica.map(|member| member.id) else { return raise_level(world).await };
    world.network().lose_messages(Some(Arc::new(move |sent| {
        let Message::AppendEntries { entries, .. } = sent.message else { return false };
        sent.to == replica && !entries.is_empty()
    })));
    let is_raised = raise_level(world).await;
    if is_raised {
        world.trace_fault(format!("node {} does not know that the level was raised", node.0));
        rt::sleep(UNKNOWN_FOR).await;
    }
    world.network().lose_messages(None);
    is_raised
}

/// After the last fault: the nodes that still run the older release are upgraded, and the level is raised.
/// `unknown_to_one`: one node learns it later than clients do.
pub(crate) async fn finish(world: &World, unknown_to_one: bool) {
    let mut older = std::mem::take(&mut world.releases().older);
    // One that was still being started when its release changed runs the older one.
    let registered = world.image().map(|image| image.nodes.clone()).unwrap_or_default();
    let is_older = |node: &SimNode| registered.get(&broker(*node)).is_some_and(|known| known.levels == Levels::FIRST);
    older.extend(world.nodes().filter(is_older));
    for node in older {
        world.crash(node, Crash::Process);
        world.start(node).await;
    }
    while world.broken().is_none() {
        let is_raised = if unknown_to_one { raise_level_unknown_to_one(world).await } else { raise_level(world).await };
        if is_raised {
            break;
        }
        // One that went down when it was started is registered as it was before.
        world.nodes().for_each(|node| world.start_in_background(node));
        rt::sleep(RAISE_INTERVAL).await;
    }
}
