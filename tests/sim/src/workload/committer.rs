//! The only consumer of a group: commits growing offsets and fetches them again.

use std::sync::Arc;

use ottla_broker::coordinator::group::classic::MemberRef;
use ottla_broker::coordinator::group::{Commit, NewOffset};
use ottla_broker::coordinator::partition_for;
use ottla_broker::metadata::CONSUMER_OFFSETS;
use ottla_broker::partition::TopicRef;
use ottla_env::sim::{self, SimNode};
use uuid::Uuid;

use super::pause;
use crate::laws::i9_commits;
use crate::registry::{OFFSETS_PARTITIONS, TOPIC};
use crate::world::World;

/// The node for a request about a group: mostly its coordinator.
pub(super) fn coordinator(world: &World, group: &str) -> SimNode {
    let index = partition_for(group, OFFSETS_PARTITIONS);
    let running_nodes = world.running_nodes();
    let led = running_nodes.iter().filter_map(|running| {
        let partition = running.partitions.find_now(TopicRef::Name(CONSUMER_OFFSETS), index).ok().flatten()?;
        Some((partition.leader_epoch()?, running.node))
    });
    let newest = led.max().map(|(_, node)| node);
    newest.filter(|_| sim::random_below(20) != 0).unwrap_or_else(|| world.random_node())
}

/// Commits and fetches until the workload ends.
pub(crate) async fn committer(world: World, number: u64) {
    let group = format!("group-{number}");
    let mut next = 0;
    while world.workload_runs() {
        if sim::random_below(3) == 0 {
            fetch(&world, &group).await;
        } else {
            next += 1 + i64::try_from(sim::random_below(5)).unwrap_or(0);
            commit(&world, &group, next).await;
        }
        pause(40).await;
    }
}

async fn commit(world: &World, group: &str, offset: i64) {
    let node = coordinator(world, group);
    world.oracle().commits.entry(group.to_owned()).or_default().attempted = offset;
    let new = NewOffset {
        topic: Arc::from(TOPIC),
        topic_id: Uuid::nil(),
        partition: 0,
        offset,
        leader_epoch: -1,
        metadata: "".into(),
    };
    let who = MemberRef { member_id: String::new(), instance_id: None, generation: -1 };
    let commit = Commit { who, retention_ms: None, knows_group_not_found: true, transaction: None, offsets: vec![new] };
    let name = group.to_owned();
    let answer = world.request(node, move |running| async move { running.groups.commit(&name, commit).await }).await;
    let done = answer.is_some_and(|outcomes| outcomes.iter().all(Result::is_ok));
    {
        let mut oracle = world.oracle();
        let commits = oracle.commits.entry(group.to_owned()).or_default();
        if done {
            commits.acknowledged = offset;
        } else {
            commits.unanswered.insert(offset);
        }
    }
    if done {
        world.trace(None, format!("node {} committed {offset} of {group}", node.0));
    }
}

async fn fetch(world: &World, group: &str) {
    let node = coordinator(world, group);
    let before = world.oracle().commits.get(group).cloned().unwrap_or_default();
    let name = group.to_owned();
    let answer = world
        .request(node, move |running| async move {
            let offset_of = |_, store: &ottla_broker::replicated::group::store::GroupStore| {
                Some(store.group(&name)?.offsets.get(TOPIC)?.get(&0)?.offset)
            };
            running.groups.fetch(&[&name], offset_of).await.remove(0)
        })
        .await;
    if let Some(Ok(told)) = answer {
        let after = world.oracle().commits.get(group).cloned().unwrap_or_default();
        world.trace(None, format!("node {} says {told:?} for {group}", node.0));
        world.judge(i9_commits::fetched(group, &before, &after, told));
    }
}
