//! A group as its clients see it: all of a generation are told one leader and one protocol, everybody gets the share
//! that the leader gave it, also from a later coordinator, and who has left or was replaced is nobody any more.
//!
//! A model of what may be said, not of how the group comes to say it: it knows requests and answers alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::coordinator::group::classic::{Answer, Assigned, Generation, Join, Left, RequestId, Sync};
use crate::coordinator::group::error::GroupError;

/// What was asked, and the group's generation then.
#[derive(Debug, Clone)]
enum Asked {
    Join { join: Join, generation: i32 },
    Sync(Sync),
    Leave,
}

#[derive(Debug, Default)]
struct Seen {
    /// Who leads, which protocol, of which type.
    told: Option<(String, Option<String>, Option<String>)>,
    /// What its leader gave to each member id.
    shares: Option<BTreeMap<String, Bytes>>,
}

#[derive(Debug, Default)]
pub(super) struct Observer {
    asked: BTreeMap<RequestId, Asked>,
    generations: BTreeMap<i32, Seen>,
    /// Static members go by their instance, whatever id they have at the time; others by their id.
    identities: BTreeMap<String, String>,
    /// Ids that left or were replaced.
    gone: BTreeSet<String>,
}

impl Observer {
    pub(super) fn join(&mut self, request: RequestId, join: Join, generation: i32) {
        self.asked.insert(request, Asked::Join { join, generation });
    }

    pub(super) fn sync(&mut self, request: RequestId, sync: Sync) {
        self.asked.insert(request, Asked::Sync(sync));
    }

    pub(super) fn leave(&mut self, request: RequestId) {
        self.asked.insert(request, Asked::Leave);
    }

    /// Requests whose answers went with a coordinator are never answered; what it had not recorded is not so.
    pub(super) fn failed_over(&mut self) {
        self.asked.clear();
        self.gone.clear();
    }

    /// Requests that wait for their answers.
    pub(super) fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// A member was taken for one: by a heartbeat, or when it committed.
    pub(super) fn accepted(&self, member_id: &str, outcome: Result<(), GroupError>) {
        if matches!(outcome, Ok(()) | Err(GroupError::RebalanceInProgress)) {
            assert!(!self.gone.contains(member_id), "{member_id} has gone and is taken for a member");
        }
    }

    /// All answers of one step, and what happened between two looks.
    pub(super) fn answered(&mut self, answers: &BTreeMap<RequestId, Answer>) {
        let mut pairs: Vec<(RequestId, Asked, &Answer)> = Vec::new();
        for (request, answer) in answers {
            let asked = self.asked.remove(request);
            let asked =
                asked.unwrap_or_else(|| panic!("{request:?} was not asked, or was answered before: {answer:?}"));
            pairs.push((*request, asked, answer));
        }
        for (_, asked, answer) in &pairs {
            self.learn(asked, answer);
        }
        for (_, asked, answer) in &pairs {
            if let (Asked::Sync(sync), Answer::Sync(Ok(_))) = (asked, answer) {
                self.note_shares(sync, &pairs);
            }
        }
        for (request, asked, answer) in &pairs {
            match (asked, answer) {
                (Asked::Join { join, generation }, Answer::Join(joined)) => {
                    if let Ok(told) = &joined.outcome {
                        assert!(told.generation >= *generation, "{request:?} joined a generation that had passed");
                        self.told(&joined.member_id, join, told);
                    }
                }
                (Asked::Sync(sync), Answer::Sync(Ok(assigned))) => self.assigned(sync, assigned),
                (Asked::Sync(_), Answer::Sync(Err(_))) => {}
                (Asked::Leave, Answer::Leave(left)) => self.left(left),
                other => panic!("another answer than asked for: {other:?}"),
            }
        }
    }

    fn identity<'a>(&'a self, member_id: &'a str) -> &'a str {
        self.identities.get(member_id).map_or(member_id, String::as_str)
    }

    /// Whose id this is that a join was answered with.
    fn learn(&mut self, asked: &Asked, answer: &Answer) {
        let (Asked::Join { join, .. }, Answer::Join(joined)) = (asked, answer) else { return };
        if joined.member_id.is_empty() {
            return;
        }
        if join.member_id.is_empty() {
            let identity = join.instance_id.clone().unwrap_or_else(|| joined.member_id.clone());
            self.identities.entry(joined.member_id.clone()).or_insert(identity);
        }
        if joined.outcome.is_ok() {
            let identity = self.identity(&joined.member_id);
            let replaced = self.identities.iter().filter(|(id, of)| *of == identity && **id != joined.member_id);
            let replaced: Vec<String> = replaced.map(|(id, _)| id.clone()).collect();
            self.gone.extend(replaced);
        }
    }

    fn told(&mut self, member_id: &str, join: &Join, told: &Generation) {
        assert!(!self.gone.contains(member_id), "{member_id} has gone and joined");
        let protocol = told.protocol.as_deref().unwrap();
        assert!(join.protocols.iter().any(|(name, _)| name == protocol), "{member_id} does not know {protocol}");
        let leader = self.identity(&told.leader).to_owned();
        let same = (leader.clone(), told.protocol.clone(), told.protocol_type.clone());
        let seen = self.generations.entry(told.generation).or_default();
        let first = seen.told.get_or_insert_with(|| same.clone());
        assert_eq!(*first, same, "generation {} is told in two ways", told.generation);
        if told.members.is_empty() {
            return;
        }
        assert_eq!(self.identity(member_id), leader, "the members are told to the leader alone");
        let members: Vec<&str> = told.members.iter().map(|member| self.identity(&member.member_id)).collect();
        let distinct: BTreeSet<&str> = members.iter().copied().collect();
        assert_eq!(distinct.len(), members.len(), "somebody is in generation {} twice", told.generation);
        assert!(distinct.contains(leader.as_str()));
        let wanted = format!("likes {protocol}");
        assert!(told.members.iter().all(|member| member.metadata == wanted), "{:?}", told.members);
    }

    /// The first sync of its leader that succeeds says who gets what in a generation.
    fn note_shares(&mut self, sync: &Sync, pairs: &[(RequestId, Asked, &Answer)]) {
        let seen = self.generations.get(&sync.generation);
        let seen = seen.unwrap_or_else(|| panic!("nobody was told of generation {}", sync.generation));
        if seen.shares.is_some() {
            return;
        }
        let (leader, ..) = seen.told.clone().unwrap();
        let given = pairs.iter().rev().find_map(|(_, asked, answer)| match (asked, answer) {
            (Asked::Sync(by), Answer::Sync(Ok(_))) if self.identity(&by.member_id) == leader => Some(by),
            _ => None,
        });
        let given = given.unwrap_or_else(|| panic!("assigned before {leader} said anything: {sync:?}"));
        let shares = given.assignments.iter().cloned().collect();
        self.generations.entry(sync.generation).or_default().shares = Some(shares);
    }

    fn assigned(&self, sync: &Sync, assigned: &Assigned) {
        let id = &sync.member_id;
        assert!(!self.gone.contains(id), "{id} has gone and is assigned to");
        let seen = &self.generations[&sync.generation];
        let (_, protocol, protocol_type) = seen.told.clone().unwrap();
        assert_eq!((&assigned.protocol, &assigned.protocol_type), (&protocol, &protocol_type));
        let shares = seen.shares.as_ref().unwrap();
        if self.identity(id) == id {
            assert_eq!(assigned.assignment, shares.get(id).cloned().unwrap_or_default(), "the share of {id}");
        } else {
            // It may have come back under this id after the share was given to the one before.
            let own = shares.iter().filter(|(of, _)| self.identity(of) == self.identity(id));
            let mut possible = own.map(|(_, share)| share.clone()).chain([Bytes::new()]);
            assert!(possible.any(|share| share == assigned.assignment), "{id} has the share of somebody else");
        }
    }

    fn left(&mut self, left: &[Left]) {
        let gone = left.iter().filter(|one| one.outcome.is_ok() && !one.member_id.is_empty());
        self.gone.extend(gone.map(|one| one.member_id.clone()));
    }
}
