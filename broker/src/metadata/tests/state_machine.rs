//! The state machine: equal on every replica, the same after a checkpoint, refusing what no longer fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::config::Config;
use crate::levels::Levels;
use crate::metadata::action::{Action, ActionRecord, Change, Done};
use crate::metadata::command::{Command, IntentEnd, NewShard, encode};
use crate::metadata::image::{
    ACTIONS_KEPT, IntentKey, IntentKind, MetadataImage, NodeRecord, ReplicaRecord, ShardId, ShardKind,
};
use crate::metadata::placement::place_in_pool;
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::{apply, cluster, node};

fn with_pool() -> MetadataStateMachine {
    let mut machine = cluster(vec![node(1, None, &[100])]);
    let placement = place_in_pool(machine.image(), 1, 0);
    apply(&mut machine, &placement.new_shards.into_iter().map(Command::AddShard).collect::<Vec<_>>());
    machine
}

fn topic(name: &str, id: u128, shards: &[u64]) -> Command {
    Command::CreateTopic {
        name: name.to_owned(),
        id: Uuid::from_u128(id),
        internal: false,
        overrides: BTreeMap::new(),
        shards: shards.iter().copied().map(ShardId).collect(),
    }
}

fn outcome(machine: &mut MetadataStateMachine, command: Command) -> Outcome {
    let index = RaftIndex(machine.image().index.0 + 1);
    machine.apply(index, &encode(machine.image().index, &[command])).unwrap()[0]
}

/// The contents of a checkpoint after all cuts.
#[derive(Default)]
struct Kept(BTreeMap<Bytes, Bytes>);

impl Kept {
    fn take(&mut self, cut: Vec<(Bytes, Option<Bytes>)>) {
        for (key, value) in cut {
            match value {
                Some(value) => drop(self.0.insert(key, value)),
                None => drop(self.0.remove(&key)),
            }
        }
    }

    fn restore(&self, index: RaftIndex) -> MetadataStateMachine {
        let state: Vec<_> = self.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        MetadataStateMachine::restore(Arc::new(Config::default()), index, &state).unwrap()
    }
}

/// All replicated state, as text.
fn picture(image: &MetadataImage) -> String {
    let topics: Vec<_> = image
        .topics
        .values()
        .map(|topic| (&topic.name, topic.id, topic.internal, &topic.overrides, &topic.partitions, &topic.config))
        .collect();
    let by_id: Vec<_> = image.topics_by_id.values().map(|topic| (topic.id, topic.name.clone())).collect();
    let intents: Vec<_> = image.intents.iter().collect();
    let counts: Vec<_> = image.partitions_by_shard.iter().filter(|(_, count)| **count > 0).collect();
    format!(
        "{:?} {} {:?} {:?} {topics:?} {by_id:?} {intents:?} {counts:?} {:?} {} {} {}",
        image.index,
        image.cluster_id,
        image.nodes,
        image.shards,
        (&image.broker_configs, &image.group_configs, &image.client_metrics, &image.actions),
        image.next_producer_id,
        image.next_replica_id,
        image.next_shard_id
    )
}

fn action(at_ms: i64) -> ActionRecord {
    let change = Change::Split { shard: ShardId(1), partitions: Vec::new() };
    let done = Done { at_ms, action: Action { change, reason: "why".to_owned() } };
    ActionRecord { done, left: Vec::new(), topic: Some(Uuid::from_u128(1)) }
}

fn any_step() -> impl Strategy<Value = Command> {
    let id = || (1_u128..8).prop_map(Uuid::from_u128);
    let shards = || proptest::collection::vec((1_u64..4).prop_map(ShardId), 0..6);
    let values = || proptest::collection::btree_map("retention.ms|num.partitions", "[1-9]{1,3}", 0..2);
    prop_oneof![
        "[a-zA-Z0-9]{22}".prop_map(|cluster_id| Command::Bootstrap { cluster_id }),
        (1_i32..3).prop_map(|id| Command::RegisterNode(node(id, Some("z"), &[7]))),
        (1_u64..5, 1_u64..6, 1_i32..3).prop_map(|(id, replica, node)| Command::AddShard(NewShard {
            id: ShardId(id),
            kind: ShardKind::Pool { factor: 1, pinned: false },
            replicas: vec![ReplicaRecord { id: ReplicaId(replica), node: NodeId(node), directory: Uuid::from_u128(1) }],
        })),
        ("[a-d]", id(), values(), shards()).prop_map(|(name, id, overrides, shards)| Command::CreateTopic {
            name,
            id,
            internal: false,
            overrides,
            shards
        }),
        id().prop_map(|id| Command::DeleteTopic { id }),
        (id(), 0_u32..6, shards()).prop_map(|(id, count_before, shards)| Command::AddPartitions {
            id,
            count_before,
            shards
        }),
        (id(), values()).prop_map(|(id, overrides)| Command::SetTopicConfig { id, overrides }),
        (proptest::option::of((1_i32..3).prop_map(NodeId)), values())
            .prop_map(|(node, values)| Command::SetBrokerConfig { node, values }),
        ("[a-c]", values()).prop_map(|(group, values)| Command::SetGroupConfig { group, values }),
        (1_i64..9).prop_map(|at_ms| Command::RecordAction(action(at_ms))),
        ("[a-c]", values()).prop_map(|(subscription, values)| Command::SetClientMetrics { subscription, values }),
        (1_u32..2_000).prop_map(|count| Command::AllocateProducerIds { count }),
        (1_u64..4, 1_u64..60, id()).prop_map(|(shard, index, topic)| Command::EndIntent {
            key: IntentKey { shard: ShardId(shard), index: RaftIndex(index), topic },
            end: IntentEnd::Done
        }),
    ]
}

proptest! {
    #[test]
    fn a_restart_from_any_cut_ends_where_the_others_are(
        steps in proptest::collection::vec(proptest::collection::vec(any_step(), 1..4), 1..60),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut straight = MetadataStateMachine::new(Arc::new(Config::default()));
        let mut restarted = MetadataStateMachine::new(Arc::new(Config::default()));
        let mut kept = Kept::default();
        for (at, commands) in steps.iter().enumerate() {
            let index = RaftIndex(at as u64 + 1);
            let payload = encode(straight.image().index, commands);
            let expected = straight.apply(index, &payload).unwrap();
            prop_assert_eq!(restarted.apply(index, &payload).unwrap(), expected);
            if cuts.iter().any(|cut| cut.index(steps.len()) == at) {
                kept.take(restarted.cut());
                restarted = kept.restore(index);
            }
            prop_assert_eq!(picture(restarted.image()), picture(straight.image()));
            prop_assert_eq!(restarted.checksum(), straight.checksum());
        }
        let all: Kept = Kept(straight.all_records().into_iter().collect());
        let whole = all.restore(straight.image().index);
        prop_assert_eq!(picture(whole.image()), picture(straight.image()));
        prop_assert_eq!(whole.checksum(), straight.checksum());
    }

    #[test]
    fn a_refused_command_changes_nothing(steps in proptest::collection::vec(any_step(), 1..80)) {
        let mut machine = MetadataStateMachine::new(Arc::new(Config::default()));
        for step in steps {
            machine.advance(RaftIndex(machine.image().index.0 + 1));
            let index = machine.image().index;
            let (before, checksum) = (picture(machine.image()), machine.checksum());
            if let Outcome::Refused(_) = machine.apply_command(index, step) {
                prop_assert_eq!(picture(machine.image()), before);
                prop_assert_eq!(machine.checksum(), checksum);
            }
        }
    }
}

#[test]
fn a_topic_made_again_is_another_topic_and_the_old_ones_drop_stays() {
    let mut machine = with_pool();
    apply(&mut machine, &[topic("t", 1, &[1, 2, 1])]);
    let first = machine.image().index;
    apply(&mut machine, &[Command::DeleteTopic { id: Uuid::from_u128(1) }]);
    assert!(machine.image().topic("t").is_none() && machine.image().topic_by_id(&Uuid::from_u128(1)).is_none());
    apply(&mut machine, &[topic("t", 2, &[2])]);
    let image = machine.image();
    assert_eq!(image.topic("t").unwrap().id, Uuid::from_u128(2));
    let of_one: Vec<_> = image.intents_of(ShardId(1)).map(|(key, intent)| (key.index, intent.kind)).collect();
    assert_eq!(of_one, [(first, IntentKind::Adopt), (RaftIndex(first.0 + 1), IntentKind::Drop)]);
    assert_eq!(image.intents_of(ShardId(1)).next().unwrap().1.partitions, [(0, 0), (2, 0)]);
    assert_eq!(image.intents_of(ShardId(2)).count(), 3);
    assert_eq!(image.partition_count(), 1);
}

/// The controller batches requests that come meanwhile into one entry, whichever clients sent them.
#[test]
fn partitions_that_are_added_in_the_entry_of_their_topic_are_adopted_like_its_first() {
    let mut machine = with_pool();
    let id = Uuid::from_u128(1);
    let more = |count_before, shards: &[u64]| {
        let shards = shards.iter().copied().map(ShardId).collect();
        Command::AddPartitions { id, count_before, shards }
    };
    apply(&mut machine, &[topic("t", 1, &[1, 2]), more(2, &[1]), more(3, &[1, 2])]);
    let numbers = |shard| {
        let intents: Vec<_> = machine.image().intents_of(ShardId(shard)).map(|(_, intent)| intent.clone()).collect();
        assert!(intents.iter().all(|intent| intent.kind == IntentKind::Adopt));
        intents.iter().flat_map(|intent| intent.partitions.iter().map(|(number, _)| *number)).collect::<Vec<_>>()
    };
    assert_eq!((numbers(1), numbers(2)), (vec![0, 2, 3], vec![1, 4]));
}

#[test]
fn an_intent_ends_once() {
    let mut machine = with_pool();
    apply(&mut machine, &[topic("t", 1, &[1])]);
    let key = *machine.image().intents_of(ShardId(1)).next().unwrap().0;
    let end = Command::EndIntent { key, end: IntentEnd::Done };
    assert_eq!(outcome(&mut machine, end.clone()), Outcome::Done);
    assert_eq!(outcome(&mut machine, end), Outcome::Refused(Refusal::NoSuchIntent));
    assert!(machine.image().intents.is_empty());
}

#[test]
fn what_was_given_is_never_given_again() {
    let mut machine = with_pool();
    let shard = |id, replica| {
        Command::AddShard(NewShard {
            id: ShardId(id),
            kind: ShardKind::ConsumerOffsets,
            replicas: vec![ReplicaRecord { id: ReplicaId(replica), node: NodeId(1), directory: Uuid::nil() }],
        })
    };
    assert_eq!(outcome(&mut machine, shard(9, 1)), Outcome::Refused(Refusal::ReplicaId));
    assert_eq!(outcome(&mut machine, shard(1, 9)), Outcome::Refused(Refusal::Shard));
    assert_eq!(outcome(&mut machine, shard(9, 9)), Outcome::Done);
    assert_eq!(outcome(&mut machine, shard(8, 10)), Outcome::Refused(Refusal::Shard));
    let ids = |count| Command::AllocateProducerIds { count };
    assert_eq!(outcome(&mut machine, ids(1_000)), Outcome::ProducerIds { first: 0 });
    assert_eq!(outcome(&mut machine, ids(1)), Outcome::ProducerIds { first: 1_000 });
    let id = "0123456789012345678901";
    assert_eq!(outcome(&mut machine, Command::Bootstrap { cluster_id: id.into() }), Outcome::Done);
    let again = Command::Bootstrap { cluster_id: "x".into() };
    assert_eq!(outcome(&mut machine, again), Outcome::Refused(Refusal::AlreadyBootstrapped));
    assert_eq!(&*machine.image().cluster_id, id);
}

#[test]
fn a_dynamic_setting_acts_on_topics_that_do_not_override_it() {
    let mut machine = with_pool();
    let overrides = BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]);
    apply(&mut machine, &[topic("plain", 1, &[1]), topic("own", 2, &[1])]);
    apply(&mut machine, &[Command::SetTopicConfig { id: Uuid::from_u128(2), overrides }]);
    let values = BTreeMap::from([("log.retention.ms".to_owned(), "5".to_owned())]);
    apply(&mut machine, &[Command::SetBrokerConfig { node: None, values }]);
    let retention = |machine: &MetadataStateMachine, name| machine.image().topic(name).unwrap().config.retention_ms;
    assert_eq!((retention(&machine, "plain"), retention(&machine, "own")), (Some(5), Some(7)));
    apply(&mut machine, &[Command::SetBrokerConfig { node: None, values: BTreeMap::new() }]);
    assert_eq!(retention(&machine, "plain"), Some(604_800_000));
}

/// An epoch that a client may have been told does not change.
#[test]
fn epoch_bases_are_those_of_partitions_that_the_same_entry_creates() {
    let mut machine = with_pool();
    let levels = Levels::OWN;
    apply(&mut machine, &[Command::RegisterNode(NodeRecord { levels, ..node(1, None, &[100]) })]);
    apply(&mut machine, &[Command::SetFeatureLevel { level: levels.newest }]);
    let id = Uuid::from_u128(1);
    let give = |first, bases: &[i32]| Command::SetEpochBases { id, first, bases: bases.to_vec() };
    let add = Command::AddPartitions { id, count_before: 2, shards: vec![ShardId(2)] };
    apply(&mut machine, &[topic("t", 1, &[1, 2]), give(0, &[-3, -4]), add, give(2, &[-4])]);
    let bases = |machine: &MetadataStateMachine| -> Vec<i32> {
        machine.image().topic("t").unwrap().partitions.iter().map(|route| route.epoch_base).collect()
    };
    assert_eq!(bases(&machine), [-3, -4, -4]);
    let intents: Vec<_> = machine.image().intents.values().flat_map(|intent| intent.partitions.clone()).collect();
    assert_eq!(intents, [(0, -3), (1, -4), (2, -4)], "the shards adopt the partitions with them");
    for refused in [give(0, &[-9, -9, -9]), give(3, &[-9]), give(9, &[])] {
        assert_eq!(outcome(&mut machine, refused), Outcome::Refused(Refusal::PartitionCount));
    }
    assert_eq!(bases(&machine), [-3, -4, -4]);
    let kept: Vec<_> = machine.all_records();
    let again = MetadataStateMachine::restore(Arc::new(Config::default()), machine.image().index, &kept).unwrap();
    assert_eq!(picture(again.image()), picture(machine.image()));
}

#[test]
fn so_many_actions_are_kept_and_of_more_the_newest() {
    let mut machine = with_pool();
    let all = ACTIONS_KEPT as i64 + 3;
    for at_ms in 1..=all {
        apply(&mut machine, &[Command::RecordAction(action(at_ms))]);
    }
    let kept: Vec<_> = machine.image().actions.values().map(|action| action.done.at_ms).collect();
    assert_eq!(kept, (4..=all).collect::<Vec<_>>());
    let records = machine.all_records();
    let again = MetadataStateMachine::restore(Arc::new(Config::default()), machine.image().index, &records).unwrap();
    assert_eq!(again.image().actions, machine.image().actions);
}

#[test]
fn an_entry_of_a_newer_release_is_an_error() {
    assert!(with_pool().apply(RaftIndex(99), &[9, 0]).is_err());
}

#[test]
fn ten_thousand_topics_are_cheap_to_change() {
    let mut machine = with_pool();
    for chunk in 0..10_u128 {
        let topics: Vec<_> =
            (0..1_000).map(|at| topic(&format!("t{chunk}-{at}"), chunk * 1_000 + at + 1, &[1])).collect();
        apply(&mut machine, &topics);
    }
    // An image kept by a reader shares nearly all topics with the next one: the allocations of a change are bounded.
    let before = machine.image().clone();
    apply(&mut machine, &[topic("one-more", 99_999, &[2])]);
    let shared = before
        .topics
        .values()
        .filter(|topic| machine.image().topic(&topic.name).is_some_and(|same| Arc::ptr_eq(same, topic)));
    assert_eq!(shared.count(), 10_000);
    assert!(before.topic("one-more").is_none());
}

#[test]
fn what_was_decided_before_another_leaders_entry_is_refused_as_a_whole() {
    let mut machine = with_pool();
    let decided_on = machine.image().index;
    machine.advance(RaftIndex(decided_on.0 + 1));
    let before = machine.checksum();
    let commands = [topic("a", 1, &[1]), Command::AllocateProducerIds { count: 9 }];
    let late = machine.apply(RaftIndex(decided_on.0 + 2), &encode(decided_on, &commands)).unwrap();
    assert_eq!(late, [Outcome::Refused(Refusal::Overtaken); 2]);
    assert_eq!(machine.checksum(), before);
    let again = encode(machine.image().index, &commands);
    let taken = machine.apply(RaftIndex(decided_on.0 + 3), &again).unwrap();
    assert_eq!(taken, [Outcome::Done, Outcome::ProducerIds { first: 0 }]);
}

#[test]
fn where_entries_are_lost_no_id_is_given_again_and_shards_on_the_disk_are_recorded() {
    let mut before = cluster(vec![node(1, None, &[100])]);
    let whole = with_pool();
    let on_disk: Vec<_> = whole
        .image()
        .shards
        .values()
        .filter(|shard| shard.id != ShardId::METADATA)
        .map(|shard| (**shard).clone())
        .collect();
    assert!(!on_disk.is_empty());
    let first = before.image().next_producer_id;
    let index = RaftIndex(before.image().index.0 + 1);
    before.entries_lost(index, &on_disk);
    assert_eq!(before.image().next_replica_id, whole.image().next_replica_id);
    assert_eq!(before.image().next_shard_id, whole.image().next_shard_id);
    assert!(on_disk.iter().all(|shard| before.image().shard(shard.id).is_some_and(|known| **known == *shard)));
    assert!(before.image().next_producer_id > first + 1_000_000);
    let known = before.image().shards.len();
    // A shard that was removed before the loss is not recorded again.
    let mut later = whole.clone();
    let gone = ReplicaRecord { id: ReplicaId(1), ..on_disk[0].replicas[0] };
    let left = crate::metadata::image::ShardRecord { id: ShardId(900), replicas: vec![gone], ..on_disk[0].clone() };
    later.entries_lost(RaftIndex(later.image().index.0 + 1), &[left]);
    assert_eq!(later.image().shards.len(), known);
}
