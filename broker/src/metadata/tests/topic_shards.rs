//! `ottla.shard.count`: whatever it is set to, and in whatever order, its steps end, and then the topic has what it asks for.

use std::collections::{BTreeMap, BTreeSet};

use ottla_model::lives;
use ottla_protocol::error::ErrorCode;
use ottla_storage::ids::RaftIndex;
use uuid::Uuid;

use crate::levels::{FeatureLevel, Levels};
use crate::metadata::IntentEnd;
use crate::metadata::command::Command;
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::image::{NodeRecord, ShardId, ShardKind};
use crate::metadata::liveness::{FenceReason, Liveness};
use crate::metadata::merge_record::{MergePhase, MergeStep, SealReport};
use crate::metadata::moves;
use crate::metadata::placement::missing_pool_shards;
use crate::metadata::requests::{ConfigChange, ConfigOp, ConfigOwner};
use crate::metadata::splits;
use crate::metadata::state_machine::MetadataStateMachine;
use crate::metadata::tests::placement::{apply, cluster, node};

const STEPS_MAX: usize = 400;

/// Nodes, and topics of these numbers of partitions in the pool.
pub(super) fn world(nodes: i32, level: i16, topics: &[usize]) -> MetadataStateMachine {
    world_of((1..=nodes).map(|id| node(id, None, &[100])).collect(), level, topics)
}

/// The same of these nodes.
pub(super) fn world_of(nodes: Vec<NodeRecord>, level: i16, topics: &[usize]) -> MetadataStateMachine {
    let mut machine = cluster(nodes.into_iter().map(|node| NodeRecord { levels: Levels::OWN, ..node }).collect());
    apply(&mut machine, &[Command::SetFeatureLevel { level: FeatureLevel(level) }]);
    let pool = missing_pool_shards(machine.image(), 3);
    let ids: Vec<_> = pool.iter().map(|shard| shard.id).collect();
    apply(&mut machine, &pool.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    for (at, count) in topics.iter().enumerate() {
        let shards = (0..*count).map(|index| ids[(at + index) % ids.len()]).collect();
        let (name, id) = (format!("t{at}"), Uuid::from_u128(1 + at as u128));
        let topic = Command::CreateTopic { name, id, internal: false, overrides: BTreeMap::new(), shards };
        apply(&mut machine, &[topic]);
    }
    machine
}

fn set(machine: &mut MetadataStateMachine, topic: usize, count: i64) -> Result<(), ErrorCode> {
    configure(machine, topic, "ottla.shard.count", &count.to_string())
}

/// Sets a config of a topic.
pub(super) fn configure(
    machine: &mut MetadataStateMachine,
    topic: usize,
    name: &str,
    value: &str,
) -> Result<(), ErrorCode> {
    let ops = vec![(name.to_owned(), ConfigOp::Set(value.to_owned()))];
    let change = ConfigChange { owner: ConfigOwner::Topic(format!("t{topic}")), ops, replace: false };
    let decided = decide(machine.image(), &ControllerRequest::ChangeConfig(change)).map_err(|error| error.code())?;
    apply(machine, &decided.commands);
    Ok(())
}

/// What the shards' logs do of what is recorded.
fn carry_out(machine: &mut MetadataStateMachine) {
    carry_out_resizes(machine);
    finish_moves(machine, |_| true);
}

/// The same of splits and merges: each one goes on by a step.
pub(super) fn carry_out_resizes(machine: &mut MetadataStateMachine) {
    let image = machine.image().clone();
    let keys: Vec<_> = image.intents.iter().map(|(key, _)| *key).collect();
    let mut commands: Vec<_> = keys.into_iter().map(|key| Command::EndIntent { key, end: IntentEnd::Done }).collect();
    commands.extend(image.open_splits().filter_map(|(child, _)| splits::end(&image, child.id, RaftIndex(9))));
    for (record, merge) in image.merges() {
        let (absorbed, intent, sealed) = (record.id, merge.intent, SealReport { term: 3, ..SealReport::default() });
        match merge.phase {
            MergePhase::Seal => commands.push(Command::Merge(MergeStep::Sealed { absorbed, intent, sealed })),
            MergePhase::Absorb => commands.push(Command::Merge(MergeStep::Absorbed { absorbed, intent, term: 4 })),
            MergePhase::Cancel => panic!("nobody cancels"),
            MergePhase::Drain => commands.extend(
                merge
                    .replicas
                    .iter()
                    .map(|pair| Command::Merge(MergeStep::TakenOver { absorbed, replica: pair.survivor })),
            ),
        }
    }
    for command in commands {
        apply(machine, &[command]);
    }
}

/// The same of moves, where it is their time.
pub(super) fn finish_moves(machine: &mut MetadataStateMachine, is_over: impl Fn(ShardId) -> bool) {
    let image = machine.image().clone();
    for record in image.shards.values().filter(|record| record.is_moving() && is_over(record.id)) {
        let left = record.leaving.iter().map(|replica| replica.id).collect();
        let reached = record.replicas.iter().map(|replica| replica.id).collect();
        apply(machine, &[Command::ForgetReplicas { shard: record.id, reached, left }]);
    }
}

/// Carries out all steps; how many there were.
pub(super) fn settle(machine: &mut MetadataStateMachine) -> usize {
    for steps in 0..STEPS_MAX {
        carry_out(machine);
        let due = moves::due(machine.image());
        if due.is_empty() && machine.image().merges().next().is_none() {
            return steps;
        }
        apply(machine, &due);
    }
    panic!("it never ends: {:?}", moves::due(machine.image()));
}

/// The shards of a topic: those that it has for itself, and those that it shares or that belong to the pool.
pub(super) fn shards(machine: &MetadataStateMachine, topic: usize) -> (BTreeSet<ShardId>, BTreeSet<ShardId>) {
    let image = machine.image();
    let topic = image.topic(&format!("t{topic}")).unwrap();
    let all: BTreeSet<_> = topic.partitions.iter().map(|route| route.shard).collect();
    all.into_iter().partition(|shard| {
        let pinned = matches!(image.shard(*shard).unwrap().kind, ShardKind::Pool { pinned: true, .. });
        pinned && image.partitions_by_shard[shard] == topic.routed_to(*shard).count() as u64
    })
}

#[test]
fn a_topic_gets_as_many_shards_as_it_asks_for_and_gives_them_back() {
    let mut machine = world(3, 4, &[16, 4]);
    settle(&mut machine);
    let before = machine.image().shards.len();
    for count in [1, 16, 5, 2, 0] {
        set(&mut machine, 0, count).unwrap();
        settle(&mut machine);
        let (own, shared) = shards(&machine, 0);
        let wanted = usize::try_from(count).unwrap();
        assert_eq!((own.len(), shared.is_empty()), (wanted, count > 0), "{count}");
        let sizes: Vec<_> = own.iter().map(|shard| machine.image().partitions_by_shard[shard]).collect();
        assert_eq!(machine.image().shards.len(), before + wanted, "nothing is left over: {sizes:?}");
    }
    assert_eq!(shards(&machine, 1).0.len(), 0, "the other topic stays where it is");
}

#[test]
fn shards_stay_as_they_are_where_nothing_is_asked_for() {
    let mut machine = world(3, 4, &[8]);
    settle(&mut machine);
    let parent = machine.image().topic("t0").unwrap().route(0).unwrap().shard;
    let split = splits::split(machine.image(), parent, &[(Uuid::from_u128(1), 0)]).unwrap();
    apply(&mut machine, &[split]);
    settle(&mut machine);
    assert_eq!(shards(&machine, 0).0.len(), 1);
    set(&mut machine, 0, -1).unwrap();
    assert_eq!((settle(&mut machine), shards(&machine, 0).0.len()), (0, 1));
}

#[test]
fn what_a_topic_cannot_have_is_refused() {
    let mut machine = world(3, 4, &[3]);
    assert_eq!(set(&mut machine, 0, 4), Err(ErrorCode::InvalidConfig));
    assert_eq!(set(&mut machine, 0, -2), Err(ErrorCode::InvalidConfig));
    assert_eq!(set(&mut machine, 0, 3), Ok(()));
    let mut machine = world(3, 3, &[3]);
    assert_eq!(set(&mut machine, 0, 1), Err(ErrorCode::UnsupportedVersion));
    assert_eq!(set(&mut machine, 0, -1), Ok(()));
}

/// It would be cancelled, again and again, and keep the replicas where they are meanwhile.
#[test]
fn nothing_is_merged_while_one_of_the_nodes_is_fenced() {
    let mut machine = world(3, 4, &[4]);
    set(&mut machine, 0, 4).unwrap();
    settle(&mut machine);
    let of = |node, fenced| Command::SetNodeLiveness { node, liveness: Liveness { fenced, since_ms: 1 } };
    let second = *machine.image().nodes.keys().nth(1).unwrap();
    apply(&mut machine, &[of(second, Some(FenceReason::SessionExpired))]);
    set(&mut machine, 0, 1).unwrap();
    assert_eq!(moves::due(machine.image()), []);
    apply(&mut machine, &[of(second, None)]);
    settle(&mut machine);
    assert_eq!(shards(&machine, 0).0.len(), 1);
}

/// On more nodes than a shard has replicas shards are moved before they are merged.
#[test]
fn whatever_topics_ask_for_in_whatever_order_ends() {
    lives(300, 12, |random, steps| {
        let topics: Vec<usize> =
            (0..1 + random.below(3)).map(|_| 1 + usize::try_from(random.below(9)).unwrap()).collect();
        let mut machine = world(3 + i32::try_from(random.below(3)).unwrap(), 4, &topics);
        let mut asked = vec![None; topics.len()];
        for _ in 0..steps {
            let topic = usize::try_from(random.below(topics.len() as u64)).unwrap();
            let count = random.between(0, i64::try_from(topics[topic]).unwrap() + 1);
            if set(&mut machine, topic, count).is_ok() {
                asked[topic] = Some(usize::try_from(count).unwrap());
            }
            // The next request comes in the middle of the steps of this one.
            for _ in 0..random.below(6) {
                carry_out(&mut machine);
                let due = moves::due(machine.image());
                apply(&mut machine, &due);
            }
        }
        settle(&mut machine);
        for (topic, count) in asked.iter().enumerate() {
            let (own, shared) = shards(&machine, topic);
            match count {
                Some(0) => assert!(own.is_empty(), "topic {topic} has {own:?}"),
                Some(count) => assert_eq!((own.len(), shared.len()), (*count, 0), "topic {topic}"),
                None => {}
            }
        }
    });
}

/// What lies in another directory of a node would be taken for lost, were a second replica of it made there.
#[test]
fn no_replica_is_moved_within_a_node() {
    let nodes = (1..=4).map(|id| NodeRecord { levels: Levels::OWN, ..node(id, None, &[100, 90]) });
    let mut machine = cluster(nodes.collect());
    apply(&mut machine, &[Command::SetFeatureLevel { level: FeatureLevel(4) }]);
    let pool = missing_pool_shards(machine.image(), 3);
    let ids: Vec<_> = pool.iter().map(|shard| shard.id).collect();
    apply(&mut machine, &pool.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    let (name, id, overrides) = ("t0".to_owned(), Uuid::from_u128(1), BTreeMap::new());
    apply(&mut machine, &[Command::CreateTopic { name, id, internal: false, overrides, shards: ids }]);
    set(&mut machine, 0, 1).unwrap();
    for _ in 0..STEPS_MAX {
        carry_out(&mut machine);
        let due = moves::due(machine.image());
        for command in &due {
            let Command::SetReplicas { shard, replicas, .. } = command else { continue };
            let before = machine.image().shard(*shard).unwrap().replicas.clone();
            for replica in replicas {
                let own = before.iter().find(|own| own.node == replica.node);
                assert!(own.is_none_or(|own| own.directory == replica.directory), "shard {shard}");
            }
        }
        apply(&mut machine, &due);
    }
}
