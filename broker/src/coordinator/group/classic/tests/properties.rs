//! Whatever is said to a group, in whatever order: its invariants hold after every step.

use std::collections::BTreeSet;

use bytes::Bytes;
use ottla_model::{Random, lives};
use proptest::prelude::*;

use super::dialogue::{Dialogue, join, protocols, who};
use super::observer::Observer;
use crate::coordinator::group::classic::{Answer, Group, Input, Leaving, Settings, State, Sync};

const SMALL: Settings = Settings { initial_rebalance_delay_ms: 300, new_member_join_timeout_ms: 5_000, members_max: 4 };

#[derive(Debug, Clone)]
enum Say {
    Join { member: usize, instance: Option<u8>, id_required: bool, wishes: u8, skips: bool },
    Sync { member: usize, stale: bool },
    Heartbeat { member: usize },
    Leave { member: usize, instance: Option<u8> },
    Commit { member: usize },
    Wait { ms: i64 },
    Failover,
}

fn say() -> impl Strategy<Value = Say> {
    let member = 0_usize..6;
    let instance = proptest::option::weighted(0.3, 0_u8..2);
    prop_oneof![
        6 => (member.clone(), instance.clone(), any::<bool>(), 0_u8..3, any::<bool>()).prop_map(
            |(member, instance, id_required, wishes, skips)| Say::Join { member, instance, id_required, wishes, skips }
        ),
        7 => (member.clone(), proptest::bool::weighted(0.1)).prop_map(|(member, stale)| Say::Sync { member, stale }),
        2 => member.clone().prop_map(|member| Say::Heartbeat { member }),
        2 => (member.clone(), instance).prop_map(|(member, instance)| Say::Leave { member, instance }),
        1 => member.prop_map(|member| Say::Commit { member }),
        4 => (0_i64..350).prop_map(|ms| Say::Wait { ms }),
        1 => (0_i64..3_000).prop_map(|ms| Say::Wait { ms }),
        1 => Just(Say::Failover),
    ]
}

impl Say {
    fn random(random: &mut Random) -> Self {
        let member = random.index(6);
        let instance = random.once_in(3).then(|| u8::from(random.once_in(2)));
        match random.below(24) {
            0..6 => Self::Join {
                member,
                instance,
                id_required: random.once_in(2),
                wishes: [0, 0, 1, 2][random.index(4)],
                skips: random.once_in(2),
            },
            6..13 => Self::Sync { member, stale: random.once_in(10) },
            13 | 14 => Self::Heartbeat { member },
            15 | 16 => Self::Leave { member, instance },
            17 => Self::Commit { member },
            18..22 => Self::Wait { ms: random.between(0, 350) },
            22 => Self::Wait { ms: random.between(0, 3_000) },
            _ => Self::Failover,
        }
    }
}

/// What the outside knows: ids that were given (an empty one first), and what was asked and answered.
struct World {
    d: Dialogue,
    ids: Vec<String>,
    observer: Observer,
    highest_generation: i32,
}

impl World {
    fn new() -> Self {
        let (d, observer) = (Dialogue::new(SMALL), Observer::default());
        Self { d, ids: vec![String::new()], observer, highest_generation: 0 }
    }

    fn id(&self, member: usize) -> String {
        self.ids.get(member).cloned().unwrap_or_default()
    }

    fn act(&mut self, say: Say) {
        match say {
            Say::Join { member, instance, id_required, wishes, skips } => {
                let mut wish = join(&self.id(member));
                wish.instance_id = instance.map(|n| format!("i{n}"));
                (wish.id_required, wish.skips_assignment) = (id_required, skips);
                wish.session_timeout_ms = 1_500;
                wish.rebalance_timeout_ms = 2_000;
                wish.protocols = protocols([&["a", "b"][..], &["b", "a"], &["a"]][usize::from(wishes)]);
                let generation = self.d.group.generation();
                let request = self.d.join(wish.clone());
                self.observer.join(request, wish, generation);
            }
            Say::Sync { member, stale } => {
                let id = self.id(member);
                let generation = self.d.group.generation() - i32::from(stale);
                let share = |id: &String| (id.clone(), Bytes::from(format!("share of {id} in {generation}")));
                let assignments = self.ids.iter().map(share).collect();
                let request = self.d.request();
                let sync = Sync {
                    member_id: id,
                    instance_id: None,
                    generation,
                    protocol_type: None,
                    protocol: None,
                    assignments,
                };
                self.d.step(Input::Sync(request, sync.clone()));
                self.observer.sync(request, sync);
            }
            Say::Heartbeat { member } => {
                let (id, generation) = (self.id(member), self.d.group.generation());
                let outcome = self.d.heartbeat(&id, generation);
                self.observer.accepted(&id, outcome);
            }
            Say::Leave { member, instance } => {
                let leaving = Leaving {
                    member_id: self.id(member),
                    instance_id: instance.map(|n| format!("i{n}")),
                    reason: None,
                };
                let request = self.d.request();
                self.observer.leave(request);
                self.d.step(Input::Leave(request, vec![leaving]));
            }
            Say::Commit { member } => {
                let now = self.d.now();
                let generation = self.d.group.generation();
                let claimed = who(&self.id(member), None, generation);
                let outcome = self.d.group.validate_commit(now, &claimed, false);
                self.observer.accepted(&claimed.member_id, outcome);
            }
            Say::Wait { ms } => self.d.pass(ms),
            Say::Failover => self.fail_over(),
        }
        self.collect();
    }

    /// The coordinator is gone, what was parked with it too; the new one has the records.
    fn fail_over(&mut self) {
        let Some(value) = self.d.records.last() else { return };
        let (group, _) = Group::load(SMALL, self.d.now(), value);
        self.d.group = group;
        self.collect();
        self.observer.failed_over();
    }

    fn collect(&mut self) {
        let answers = std::mem::take(&mut self.d.answers);
        self.observer.answered(&answers);
        for answer in answers.into_values() {
            let Answer::Join(joined) = answer else { continue };
            if !joined.member_id.is_empty() && !self.ids.contains(&joined.member_id) {
                self.ids.push(joined.member_id);
                if self.ids.len() > 6 {
                    self.ids.remove(1);
                }
            }
        }
    }

    /// Left alone, the group comes to rest: sessions end, nothing stays parked.
    fn come_to_rest(&mut self) {
        for _ in 0..40 {
            self.d.pass(1_000);
            self.collect();
            self.check();
        }
        assert_eq!(self.observer.waiting(), 0, "never answered: {:?}", self.observer);
        assert!(self.d.group.is_idle());
        assert_eq!(self.d.group.next_deadline_ms(), None);
    }

    fn check(&mut self) {
        let group = &self.d.group;
        assert!(group.generation >= self.highest_generation, "the generation fell");
        self.highest_generation = group.generation;
        let ids: BTreeSet<_> = group.members.keys().cloned().collect();
        assert!(ids.is_disjoint(&group.pending_join), "pending and a member at once");
        assert!(group.pending_sync.is_subset(&ids));
        match group.state {
            State::Empty => assert!(ids.is_empty() && group.leader.is_none()),
            State::PreparingRebalance => {
                assert!(ids.is_empty() || group.leader.as_ref().is_some_and(|leader| ids.contains(leader)));
                assert!(group.next_deadline_ms().is_some(), "nothing would ever end this rebalance");
            }
            State::CompletingRebalance | State::Stable => {
                assert!(ids.contains(group.leader.as_ref().unwrap()), "one leader, a member");
                let protocol = group.protocol.as_deref().unwrap();
                assert!(group.members.values().all(|member| member.supports(protocol)));
            }
            State::Dead => unreachable!("nothing here unloads"),
        }
        for (id, member) in &group.members {
            assert!(member.awaiting_join.is_none() || member.awaiting_sync.is_none(), "{id} waits for two things");
            assert!(member.awaiting_join.is_none() || group.state == State::PreparingRebalance);
            assert!(member.awaiting_sync.is_none() || group.state == State::CompletingRebalance);
            if let Some(instance) = &member.instance_id {
                assert_eq!(group.static_members.get(instance), Some(id), "two hold one instance id");
            }
        }
        assert!(group.static_members.values().all(|id| ids.contains(id)));
        if let Some(record) = self.d.records.last() {
            assert!(record.generation <= group.generation);
            if matches!(group.state, State::CompletingRebalance | State::Stable | State::Empty) {
                assert_eq!(record.generation, group.generation, "a generation that nobody would remember");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_step_and_every_request_is_answered(script in proptest::collection::vec(say(), 1..80)) {
        let mut world = World::new();
        for say in script {
            world.act(say);
            world.check();
        }
        world.come_to_rest();
    }
}

#[test]
fn clients_see_one_leader_one_protocol_and_the_share_that_was_given_them() {
    lives(20_000, 200, |random, steps| {
        let mut world = World::new();
        for _ in 0..steps {
            world.act(Say::random(random));
            world.check();
        }
        world.come_to_rest();
    });
}
