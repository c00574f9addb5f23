//! A group to talk to: sends requests, keeps the clock, collects answers and records.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::coordinator::group::classic::{
    Answer, Assigned, Generation, Group, Input, Join, JoinAnswer, Leaving, Left, MemberRef, Now, Output, RequestId,
    Settings, State, Sync,
};
use crate::coordinator::group::error::GroupError;
use crate::replicated::group::records::GroupValue;

pub(super) const SETTINGS: Settings =
    Settings { initial_rebalance_delay_ms: 3_000, new_member_join_timeout_ms: 300_000, members_max: 1_000 };

/// A client that wants to join, most of it usual.
pub(super) fn join(member_id: &str) -> Join {
    Join {
        member_id: member_id.into(),
        new_member_id: String::new(),
        instance_id: None,
        client_id: "client".into(),
        client_host: "/10.0.0.7".into(),
        protocol_type: "consumer".into(),
        protocols: protocols(&["range", "roundrobin"]),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        id_required: false,
        skips_assignment: false,
        reason: None,
    }
}

pub(super) fn protocols(names: &[&str]) -> Vec<(String, Bytes)> {
    names.iter().map(|name| ((*name).to_string(), Bytes::from(format!("likes {name}")))).collect()
}

pub(super) struct Dialogue {
    pub(super) group: Group,
    pub(super) answers: BTreeMap<RequestId, Answer>,
    pub(super) records: Vec<GroupValue>,
    now_ms: i64,
    last_request: u64,
    last_member: u64,
}

impl Dialogue {
    pub(super) fn new(settings: Settings) -> Self {
        Self::with(Group::new(settings))
    }

    pub(super) fn with(group: Group) -> Self {
        Self { group, answers: BTreeMap::new(), records: Vec::new(), now_ms: 0, last_request: 0, last_member: 0 }
    }

    pub(super) fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms, wall_ms: 1_000_000 + self.now_ms }
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Record(value) => self.records.push(value),
                Output::Answer(request, answer) => {
                    let earlier = self.answers.insert(request, answer);
                    assert_eq!(earlier, None, "{request:?} was answered twice");
                }
            }
        }
    }

    pub(super) fn step(&mut self, input: Input) {
        let outputs = self.group.step(self.now(), input);
        self.take(outputs);
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }

    /// Lets time pass, every deadline met at its time.
    pub(super) fn pass(&mut self, ms: i64) {
        let end = self.now_ms + ms;
        while let Some(at) = self.group.next_deadline_ms().filter(|at| *at <= end) {
            self.now_ms = self.now_ms.max(at);
            self.step(Input::Tick);
        }
        self.now_ms = end;
    }

    pub(super) fn join(&mut self, mut join: Join) -> RequestId {
        self.last_member += 1;
        join.new_member_id = format!("m{}", self.last_member);
        let request = self.request();
        self.step(Input::Join(request, join));
        request
    }

    pub(super) fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &str)]) -> RequestId {
        let request = self.request();
        let assignments = assignments.iter().map(|(id, share)| ((*id).into(), Bytes::from((*share).to_string())));
        let sync = Sync {
            member_id: member.into(),
            instance_id: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.step(Input::Sync(request, sync));
        request
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        self.heartbeat_as(who(member, None, generation))
    }

    pub(super) fn heartbeat_as(&mut self, who: MemberRef) -> Result<(), GroupError> {
        let request = self.request();
        self.step(Input::Heartbeat(request, who));
        match self.answers.remove(&request) {
            Some(Answer::Heartbeat(outcome)) => outcome,
            other => panic!("a heartbeat was answered {other:?}"),
        }
    }

    pub(super) fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Left> {
        let request = self.request();
        let members = members.iter().map(|(id, instance)| Leaving {
            member_id: (*id).into(),
            instance_id: instance.map(str::to_string),
            reason: None,
        });
        self.step(Input::Leave(request, members.collect()));
        match self.answers.remove(&request) {
            Some(Answer::Leave(left)) => left,
            other => panic!("a leave was answered {other:?}"),
        }
    }

    pub(super) fn commit(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let now = self.now();
        self.group.validate_commit(now, &who(member, None, generation), false)
    }

    pub(super) fn is_parked(&self, request: RequestId) -> bool {
        !self.answers.contains_key(&request)
    }

    pub(super) fn join_answer(&mut self, request: RequestId) -> JoinAnswer {
        match self.answers.remove(&request) {
            Some(Answer::Join(answer)) => answer,
            other => panic!("{request:?} was answered {other:?}"),
        }
    }

    pub(super) fn joined(&mut self, request: RequestId) -> (String, Generation) {
        let answer = self.join_answer(request);
        (answer.member_id, answer.outcome.unwrap())
    }

    pub(super) fn join_refusal(&mut self, request: RequestId) -> GroupError {
        self.join_answer(request).outcome.unwrap_err()
    }

    pub(super) fn synced(&mut self, request: RequestId) -> Result<Assigned, GroupError> {
        match self.answers.remove(&request) {
            Some(Answer::Sync(outcome)) => outcome,
            other => panic!("{request:?} was answered {other:?}"),
        }
    }

    /// Joins that many dynamic members and brings the group to Stable; their ids, the leader first.
    pub(super) fn stable(&mut self, count: usize) -> Vec<String> {
        let requests: Vec<_> = (0..count).map(|_| self.join(join(""))).collect();
        // The initial delay, and as many more as members came within it.
        self.pass(6_000);
        self.settle(&requests)
    }

    /// Has two members join a new group; their ids, the leader's first. The generation waits for its assignment.
    pub(super) fn completing(&mut self, members: [Join; 2]) -> [String; 2] {
        let joins = members.map(|member| self.join(member));
        self.pass(6_000);
        joins.map(|request| self.joined(request).0)
    }

    /// Takes the joins' answers, syncs everybody; ids, the leader first.
    pub(super) fn settle(&mut self, joins: &[RequestId]) -> Vec<String> {
        let joined: Vec<_> = joins.iter().map(|request| self.joined(*request)).collect();
        let generation = joined[0].1.generation;
        let leader = joined[0].1.leader.clone();
        let mut ids: Vec<String> = joined.iter().map(|(id, _)| id.clone()).collect();
        ids.sort_by_key(|id| *id != leader);
        let shares: Vec<(String, String)> = ids.iter().map(|id| (id.clone(), format!("share of {id}"))).collect();
        let shares: Vec<(&str, &str)> = shares.iter().map(|(id, share)| (id.as_str(), share.as_str())).collect();
        for id in &ids {
            let request = self.sync(id, generation, if *id == leader { &shares } else { &[] });
            assert_eq!(self.synced(request).unwrap().assignment, format!("share of {id}"));
        }
        assert_eq!(self.group.state(), State::Stable);
        ids
    }
}

pub(super) fn who(member: &str, instance: Option<&str>, generation: i32) -> MemberRef {
    MemberRef { member_id: member.into(), instance_id: instance.map(str::to_string), generation }
}
