//! Merges of shards: what is recorded, step by step, where partitions and intents are then, and which records go.

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::RaftIndex;

use super::splits::{TOPIC, at_level, end, routes, split};
use crate::metadata::command::Command;
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::error::MetadataError;
use crate::metadata::image::{IntentKind, ShardId};
use crate::metadata::merge_record::{MergePhase, MergeRecord, MergeStep, SealReport};
use crate::metadata::moves;
use crate::metadata::splits;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::apply;

const LEVEL: i16 = MergeRecord::LEVEL.0;
const SEALED: SealReport = SealReport { index: RaftIndex(40), term: 9, checksum: 3 };

/// A shard that was split in two halves: the one, and the other.
fn halves() -> (MetadataStateMachine, ShardId, ShardId) {
    let (mut machine, parent) = at_level(LEVEL);
    settle(&mut machine);
    let child = split(&mut machine, parent, &[1, 3]).unwrap();
    end(&mut machine, child, 9);
    (machine, parent, child)
}

/// All intents are carried out.
fn settle(machine: &mut MetadataStateMachine) {
    let keys: Vec<_> = machine.image().intents.iter().map(|(key, _)| *key).collect();
    let ends = keys.into_iter().map(|key| Command::EndIntent { key, end: crate::metadata::IntentEnd::Done });
    apply(machine, &ends.collect::<Vec<_>>());
}

fn step(machine: &mut MetadataStateMachine, step: MergeStep) -> Result<usize, MetadataError> {
    let commands = decide(machine.image(), &ControllerRequest::Merge(step))?.commands;
    apply(machine, &commands);
    Ok(commands.len())
}

fn begin(machine: &mut MetadataStateMachine, survivor: ShardId, absorbed: ShardId) -> Result<RaftIndex, MetadataError> {
    step(machine, MergeStep::Begin { survivor, absorbed })?;
    Ok(record(machine, absorbed).intent)
}

fn record(machine: &MetadataStateMachine, absorbed: ShardId) -> MergeRecord {
    machine.image().shard(absorbed).unwrap().merge.clone().unwrap()
}

fn dropped(machine: &MetadataStateMachine) -> Vec<ShardId> {
    let of = |command| if let Command::DropShard { shard } = command { Some(shard) } else { None };
    moves::due(machine.image()).into_iter().filter_map(of).collect()
}

#[test]
fn a_shard_is_absorbed_step_by_step_and_goes_with_the_last_replica_that_needed_it() {
    let (mut machine, parent, child) = halves();
    let intent = begin(&mut machine, parent, child).unwrap();
    let merge = record(&machine, child);
    assert_eq!((merge.survivor, merge.phase, merge.replicas.len()), (parent, MergePhase::Seal, 3));
    let image = machine.image();
    for pair in &merge.replicas {
        let node = |shard, replica| {
            let shard = image.shard(shard).unwrap();
            shard.replicas.iter().find(|of| of.id == replica).map(|of| (of.node, of.directory)).unwrap()
        };
        assert_eq!(node(parent, pair.survivor), node(child, pair.absorbed));
    }
    let absorbed = child;
    assert_eq!(step(&mut machine, MergeStep::Absorbed { absorbed, intent, term: 5 }).unwrap(), 0, "not sealed yet");
    assert_eq!(step(&mut machine, MergeStep::Sealed { absorbed, intent, sealed: SEALED }).unwrap(), 1);
    assert_eq!(
        step(&mut machine, MergeStep::Sealed { absorbed, intent, sealed: SEALED }).unwrap(),
        0,
        "reported again"
    );
    assert_eq!(routes(&machine), [parent, child, parent, child]);

    assert_eq!(step(&mut machine, MergeStep::Absorbed { absorbed, intent, term: 5 }).unwrap(), 1);
    assert_eq!(routes(&machine), [parent; 4]);
    let topic = machine.image().topic("t").unwrap().clone();
    assert_eq!((topic.route(1).unwrap().intent, topic.route(0).unwrap().epoch_base), (intent, 0));
    assert!(topic.route(1).unwrap().epoch_base + 5 > 9, "leader epochs go on");
    assert_eq!(machine.image().partitions_by_shard[&parent], 4);
    // What a checkpoint holds is the same.
    let (records, base) = (machine.all_records(), machine.image().config.clone());
    let restored = MetadataStateMachine::restore(base, machine.image().index, &records).unwrap();
    assert_eq!(restored.image().shard(child), machine.image().shard(child));

    for (at, pair) in merge.replicas.iter().enumerate() {
        assert_eq!(dropped(&machine), [], "{at} replicas have taken over");
        assert_eq!(step(&mut machine, MergeStep::TakenOver { absorbed, replica: pair.survivor }).unwrap(), 1);
    }
    assert_eq!(dropped(&machine), [child]);
    apply(&mut machine, &[Command::DropShard { shard: child }]);
    assert!(machine.image().shard(child).is_none() && dropped(&machine).is_empty());
    let restored =
        MetadataStateMachine::restore(machine.image().config.clone(), machine.image().index, &machine.all_records());
    assert!(restored.unwrap().image().shard(child).is_none());
}

/// A node that is lost for good is replaced in the survivor, and reports nothing any more.
#[test]
fn a_replica_that_has_left_the_survivor_needs_nothing() {
    let (mut machine, parent, child) = halves();
    let intent = begin(&mut machine, parent, child).unwrap();
    let merge = record(&machine, child);
    step(&mut machine, MergeStep::Sealed { absorbed: child, intent, sealed: SEALED }).unwrap();
    step(&mut machine, MergeStep::Absorbed { absorbed: child, intent, term: 5 }).unwrap();
    for pair in &merge.replicas[1..] {
        step(&mut machine, MergeStep::TakenOver { absorbed: child, replica: pair.survivor }).unwrap();
    }
    let survivor = machine.image().shard(parent).unwrap().clone();
    let before: Vec<_> = survivor.replicas.iter().map(|replica| replica.id).collect();
    let left = merge.replicas[0].survivor;
    let replicas: Vec<_> = survivor.replicas.iter().filter(|replica| replica.id != left).copied().collect();
    let reached = replicas.iter().map(|replica| replica.id).collect();
    apply(&mut machine, &[Command::SetReplicas { shard: parent, before, replicas }]);
    assert_eq!(dropped(&machine), [], "it is a member until it has left");
    apply(&mut machine, &[Command::ForgetReplicas { shard: parent, reached, left: vec![left] }]);
    assert_eq!(dropped(&machine), [child]);
}

#[test]
fn what_comes_first_of_the_seal_and_the_cancellation_decides() {
    let (mut machine, parent, child) = halves();
    let absorbed = child;
    let intent = begin(&mut machine, parent, child).unwrap();
    step(&mut machine, MergeStep::Cancel { absorbed, intent }).unwrap();
    assert_eq!(record(&machine, child).phase, MergePhase::Cancel);
    assert_eq!(step(&mut machine, MergeStep::Sealed { absorbed, intent, sealed: SEALED }).unwrap(), 0);
    assert_eq!(step(&mut machine, MergeStep::Cancelled { absorbed, intent }).unwrap(), 1);
    assert_eq!(machine.image().shard(child).unwrap().merge, None);
    assert!(step(&mut machine, MergeStep::Cancel { absorbed, intent }).is_err(), "it is not being merged");

    let again = begin(&mut machine, parent, child).unwrap();
    assert_eq!(step(&mut machine, MergeStep::Cancelled { absorbed, intent }).unwrap(), 0, "of the merge before");
    step(&mut machine, MergeStep::Sealed { absorbed, intent: again, sealed: SEALED }).unwrap();
    let refused = step(&mut machine, MergeStep::Cancel { absorbed, intent: again }).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidRequest);
    let index = RaftIndex(machine.image().index.0 + 1);
    let outcome = machine.apply_command(index, Command::Merge(MergeStep::Cancel { absorbed, intent: again }));
    assert_eq!(outcome, Outcome::Refused(Refusal::Merge));
}

#[test]
fn while_a_merge_is_open_nothing_else_changes_either_shard() {
    let (mut machine, parent, child) = halves();
    let intent = begin(&mut machine, parent, child).unwrap();
    let frozen = |machine: &mut MetadataStateMachine, shard| {
        let moved = ControllerRequest::ChangeReplicas { shard, nodes: vec![NodeId(3), NodeId(1), NodeId(2)] };
        decide(machine.image(), &moved).is_err()
            && split(machine, shard, &[if shard == parent { 0 } else { 1 }]).is_err()
            && begin(machine, ShardId(parent.0 + 1), shard).is_err()
    };
    assert!(frozen(&mut machine, parent) && frozen(&mut machine, child));
    step(&mut machine, MergeStep::Sealed { absorbed: child, intent, sealed: SEALED }).unwrap();
    assert!(frozen(&mut machine, parent) && frozen(&mut machine, child));
    step(&mut machine, MergeStep::Absorbed { absorbed: child, intent, term: 5 }).unwrap();
    let other = split(&mut machine, parent, &[0, 1]).unwrap();
    assert!(frozen(&mut machine, child));
    end(&mut machine, other, 20);
    // A replica that is behind needs the shard that drains, so its survivor does not end before.
    let refused = begin(&mut machine, other, parent).unwrap_err();
    assert!(refused.to_string().contains("is taking over"), "{refused}");
}

#[test]
fn intents_that_come_meanwhile_are_the_survivors() {
    let (mut machine, parent, child) = halves();
    let intent = begin(&mut machine, parent, child).unwrap();
    apply(&mut machine, &[Command::DeleteTopic { id: TOPIC }]);
    step(&mut machine, MergeStep::Sealed { absorbed: child, intent, sealed: SEALED }).unwrap();
    step(&mut machine, MergeStep::Absorbed { absorbed: child, intent, term: 5 }).unwrap();
    assert_eq!(machine.image().intents_of(child).count(), 0);
    let open: Vec<_> = machine.image().intents_of(parent).map(|(key, intent)| (key.topic, intent.clone())).collect();
    assert_eq!(open.len(), 1, "one intent of one entry");
    let mut partitions: Vec<_> = open[0].1.partitions.iter().map(|(index, _)| *index).collect();
    partitions.sort_unstable();
    assert_eq!((open[0].0, open[0].1.kind, partitions), (TOPIC, IntentKind::Drop, vec![0, 1, 2, 3]));
}

#[test]
fn a_merge_needs_shards_that_lie_side_by_side_and_the_level() {
    let (mut machine, parent, child) = halves();
    let code = |machine: &mut MetadataStateMachine, into, from| begin(machine, into, from).unwrap_err().code();
    let other = ShardId(parent.0 + 1);
    for (into, from) in
        [(child, child), (child, parent), (ShardId(99), child), (ShardId::METADATA, child), (other, parent)]
    {
        assert_eq!(code(&mut machine, into, from), ErrorCode::InvalidRequest, "{from} into {into}");
    }
    let record = machine.image().shard(child).unwrap().clone();
    let before: Vec<_> = record.replicas.iter().map(|replica| replica.id).collect();
    let replicas = record.replicas[1..].to_vec();
    let reached = replicas.iter().map(|replica| replica.id).collect();
    let left = vec![before[0]];
    apply(&mut machine, &[Command::SetReplicas { shard: child, before, replicas }]);
    assert_eq!(code(&mut machine, parent, child), ErrorCode::InvalidRequest, "it is being moved");
    apply(&mut machine, &[Command::ForgetReplicas { shard: child, reached, left }]);
    assert_eq!(code(&mut machine, parent, child), ErrorCode::InvalidRequest, "it has other nodes");
    let (mut machine, parent) = at_level(LEVEL - 1);
    let child = split(&mut machine, parent, &[1]).unwrap();
    end(&mut machine, child, 9);
    assert_eq!(code(&mut machine, parent, child), ErrorCode::UnsupportedVersion);
}

/// One of the pool is kept, and so is one that is still to drop what it carried.
#[test]
fn shards_that_were_made_for_partitions_which_are_gone_are_removed() {
    let (mut machine, _, child) = halves();
    let (mut kept_machine, kept) = (machine.clone(), machine.image().clone());
    assert_eq!(dropped(&machine), []);
    apply(&mut machine, &[Command::DeleteTopic { id: TOPIC }]);
    assert_eq!(dropped(&machine), [], "its partitions are to be dropped");
    settle(&mut machine);
    assert_eq!(dropped(&machine), [child]);
    // After a crash only its parent may have the state of what was split off.
    let Command::SplitShard { child: grandchild, .. } = splits::split(&kept, child, &[(TOPIC, 1), (TOPIC, 3)]).unwrap()
    else {
        unreachable!()
    };
    apply(&mut kept_machine, &[splits::split(&kept, child, &[(TOPIC, 1), (TOPIC, 3)]).unwrap()]);
    end(&mut kept_machine, grandchild.id, 30);
    assert_eq!(kept_machine.image().partitions_by_shard[&child], 0);
    assert_eq!(dropped(&kept_machine), []);
    let index = RaftIndex(machine.image().index.0 + 1);
    let pool = ShardId(1);
    assert_eq!(machine.apply_command(index, Command::DropShard { shard: pool }), Outcome::Refused(Refusal::Shard));
    let (mut machine, parent) = at_level(LEVEL - 1);
    let child = split(&mut machine, parent, &[0]).unwrap();
    end(&mut machine, child, 9);
    apply(&mut machine, &[Command::DeleteTopic { id: TOPIC }]);
    settle(&mut machine);
    assert_eq!(dropped(&machine), [], "below the level");
}

/// Its node has come back without its disk meanwhile, when nothing of the shard could be changed.
#[test]
fn what_lay_in_a_directory_that_is_gone_is_rebuilt_when_the_merge_is_over() {
    let (mut machine, parent, child) = halves();
    let intent = begin(&mut machine, parent, child).unwrap();
    let mut node = machine.image().nodes[&NodeId(2)].clone();
    node.directories[0].id = uuid::Uuid::from_u128(999);
    apply(&mut machine, &[Command::RegisterNode(node)]);
    let rebuilt = |machine: &MetadataStateMachine| {
        let of = |command| if let Command::SetReplicas { shard, .. } = command { Some(shard) } else { None };
        moves::due(machine.image()).into_iter().filter_map(of).collect::<Vec<_>>()
    };
    let others = rebuilt(&machine);
    assert!(!others.is_empty() && !others.contains(&parent) && !others.contains(&child));
    step(&mut machine, MergeStep::Cancel { absorbed: child, intent }).unwrap();
    step(&mut machine, MergeStep::Cancelled { absorbed: child, intent }).unwrap();
    let all = rebuilt(&machine);
    assert!(all.contains(&parent) && all.contains(&child), "{all:?}");
    let commands = moves::due(machine.image());
    apply(&mut machine, &commands);
    assert_eq!(rebuilt(&machine), []);
}
