//! Offsets of transactions against a model that remembers every commit and which of them are visible.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use ottla_protocol::ids::{Offset, ProducerId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::replicated::group::records::{CommittedOffset, Record};
use crate::replicated::group::store::GroupChange;
use crate::replicated::group::{GroupStore, Guard, batch};

const GROUP: &str = "g";
const TOPIC: &str = "t";

fn committed(offset: i64) -> CommittedOffset {
    let (metadata, topic_id) = (String::new().into(), Uuid::nil());
    CommittedOffset { offset, leader_epoch: -1, metadata, commit_time_ms: 1, expire_time_ms: None, topic_id }
}

fn change(partition: i32, value: Option<i64>) -> GroupChange {
    let record = Record::Offset { group: GROUP.into(), topic: TOPIC.into(), partition, value: value.map(committed) };
    let guard = Guard::Commit { group: GROUP.into(), generation: -1, member_id: String::new() };
    GroupChange::of(Some(&guard), &batch::build(&[record], 1, None)[0])
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Commit { partition: i32 },
    Delete { partition: i32 },
    Send { producer: i64, partition: i32 },
    End { producer: i64, commits: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3).prop_map(|partition| Step::Commit { partition }),
        (0..3).prop_map(|partition| Step::Delete { partition }),
        (0_i64..3, 0..3).prop_map(|(producer, partition)| Step::Send { producer, partition }),
        (0_i64..3, any::<bool>()).prop_map(|(producer, commits)| Step::End { producer, commits }),
    ]
}

/// Every commit is a number, in the order of the log: the greatest one that is visible counts.
#[derive(Default)]
struct Model {
    visible: BTreeMap<i32, i64>,
    pending: BTreeMap<(i64, i32), i64>,
}

impl Model {
    fn step(&mut self, step: Step, now: i64) {
        match step {
            Step::Commit { partition } => _ = self.visible.insert(partition, now),
            Step::Delete { partition } => {
                self.visible.remove(&partition);
                self.pending.retain(|(_, at), _| *at != partition);
            }
            Step::Send { producer, partition } => _ = self.pending.insert((producer, partition), now),
            Step::End { producer, commits } => {
                let ended: Vec<_> = self.pending.extract_if(.., |(whose, _), _| *whose == producer).collect();
                for ((_, partition), order) in ended.into_iter().filter(|_| commits) {
                    let visible = self.visible.entry(partition).or_insert(order);
                    *visible = order.max(*visible);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn an_offset_is_visible_from_its_marker_on_unless_a_later_commit_is(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut store, mut model) = (GroupStore::new(), Model::default());
        for (now, step) in (1_i64..).zip(steps) {
            match step {
                Step::Commit { partition } => store.apply(change(partition, Some(now))),
                Step::Delete { partition } => store.apply(change(partition, None)),
                Step::Send { producer, partition } => {
                    store.apply_transactional(ProducerId(producer), Offset(now), change(partition, Some(now)));
                }
                Step::End { producer, commits } => store.end_transaction(ProducerId(producer), commits),
            }
            model.step(step, now);
            for partition in 0..3 {
                let shown = store.offset(GROUP, TOPIC, partition).map(|offset| offset.offset);
                prop_assert_eq!(shown, model.visible.get(&partition).copied(), "partition {}", partition);
                let waits = model.pending.keys().any(|(_, at)| *at == partition);
                prop_assert_eq!(store.is_unstable(GROUP, TOPIC, partition), waits);
            }
        }
        let mut restored = GroupStore::new();
        store.all_changed();
        for (key, value) in store.changes() {
            restored.restore(key, value.unwrap()).unwrap();
        }
        prop_assert_eq!(restored.checksum(), store.checksum());
        for producer in 0..3 {
            restored.end_transaction(ProducerId(producer), true);
            store.end_transaction(ProducerId(producer), true);
        }
        prop_assert_eq!(restored.checksum(), store.checksum());
        prop_assert_eq!(restored.group(GROUP), store.group(GROUP));
    }
}
