//! What replicas have promised and held, from the messages that leave them and from their logs when they go down; and storms
//! that strike at such a moment.
//!
//! May not know: how faults are drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use ottla_raft::Message;
use ottla_storage::data_dir::{DataDir, RecoveredReplica};
use ottla_storage::env::sim::SimNode;
use ottla_storage::env::sim::disk::Crash;
use ottla_storage::ids::{LogPosition, ReplicaId};

use crate::laws::Violation;
use crate::laws::i8_recovery::{self, Before};
use crate::laws::leaders::Leaders;
use crate::laws::matching::Contents;

/// When a machine is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It has just granted a vote.
    Vote,
    /// It is just being answered what it asked of the metadata group's leader.
    Answered,
    /// It has just found that its log differs from the leader's.
    Conflict,
}

#[derive(Default)]
pub(crate) struct Promises {
    before: BTreeMap<ReplicaId, Before>,
    /// Where replicas are known to lie.
    homes: BTreeMap<ReplicaId, SimNode>,
    /// Replicas that were there and were removed for good.
    removed: BTreeSet<ReplicaId>,
    /// Replicas that were about to be removed when their node went down: they may be there again or not.
    leaving: BTreeSet<ReplicaId>,
    leaders: Leaders,
    /// What entries hold, as leaders sent them.
    pub(crate) contents: Contents,
    directories: BTreeMap<SimNode, Weak<DataDir>>,
    /// Where the last durable commit of a node's log began when it went down.
    last_commits: BTreeMap<SimNode, LogPosition>,
    pub(crate) armed: Option<(Moment, Crash)>,
    pub(crate) struck: Option<SimNode>,
}

impl Promises {
    /// A message leaves a replica, on this node, for another one, of this shard as far as that is known. Returns whom a fault
    /// strikes that waited for this moment.
    pub(crate) fn sent(
        &mut self,
        (from, to): (ReplicaId, ReplicaId),
        (home, receiver): (SimNode, Option<SimNode>),
        shard: Option<u64>,
        message: &Message,
    ) -> (Result<(), Violation>, Option<(SimNode, Crash)>) {
        let mut verdict = Ok(());
        let (vote, moment) = match message {
            Message::AskVote { pre: false, vote, .. } => (Some(*vote), None),
            Message::Append { vote, entries, .. } => {
                if let Some(shard) = shard {
                    verdict = self.leaders.see(shard, vote.term.0, vote.voted_for.0);
                    verdict = verdict.and(self.contents.sent(shard, from, entries));
                }
                (Some(*vote), None)
            }
            Message::VoteAnswer { vote, granted, .. } => (Some(*vote), granted.then_some(Moment::Vote)),
            Message::HigherVote(vote) => (Some(*vote), None),
            Message::Conflict => (None, Some(Moment::Conflict)),
            Message::State(Some(snapshot)) => {
                let offered = &mut self.before.entry(to).or_default().offered;
                *offered = (*offered).max(Some(snapshot.applied.index));
                (None, None)
            }
            Message::Answer(_) => (None, Some(Moment::Answered)),
            _ => (None, None),
        };
        if let Some(vote) = vote {
            let known = &mut self.before.entry(from).or_default().vote;
            if known.is_none_or(|known| vote.term > known.term || (vote.term == known.term && vote.committed)) {
                *known = Some(vote);
            }
        }
        let whom = if moment == Some(Moment::Answered) { receiver } else { Some(home) };
        let strikes = self.armed.filter(|(armed, _)| Some(*armed) == moment);
        let strikes = strikes.and_then(|(_, crash)| Some((whom?, crash)));
        if let Some((node, _)) = strikes {
            (self.armed, self.struck) = (None, Some(node));
        }
        (verdict, strikes)
    }

    /// A node goes down: what its logs hold is noted; `has_left` tells replicas that are about to be removed.
    pub(crate) fn down(&mut self, node: SimNode, has_left: impl Fn(ReplicaId) -> bool) {
        let Some(directory) = self.directories.remove(&node).and_then(|directory| directory.upgrade()) else { return };
        let there = directory.log().replicas();
        for replica in self.missing(node, |replica| there.contains(&replica)) {
            self.forget(replica);
            self.removed.insert(replica);
        }
        for replica in directory.log().replicas() {
            if let Some(log) = directory.replica_log(replica) {
                self.homes.insert(replica, node);
                if has_left(replica) {
                    self.leaving.insert(replica);
                }
                self.before.entry(replica).or_default().log = Some(log.summary());
            }
        }
        self.last_commits.insert(node, directory.log().last_commit());
    }

    /// A node has lost its disk, and nobody expects anything of what was on it.
    pub(crate) fn wiped(&mut self, node: SimNode) {
        self.missing(node, |_| false).into_iter().for_each(|replica| self.forget(replica));
        self.last_commits.remove(&node);
    }

    /// Damage behind this place cannot be told from a torn write.
    pub(crate) fn provable_before(&self, node: SimNode) -> Option<LogPosition> {
        match self.directories.get(&node).and_then(Weak::upgrade) {
            Some(directory) => Some(directory.log().last_commit()),
            None => self.last_commits.get(&node).copied(),
        }
    }

    /// A node has read its directory.
    pub(crate) fn up(
        &mut self,
        node: SimNode,
        directory: &Arc<DataDir>,
        recovered: &[RecoveredReplica],
        rotten: bool,
    ) -> Result<(), Violation> {
        self.directories.insert(node, Arc::downgrade(directory));
        for replica in recovered {
            // One that was removed may turn up again where the disk is damaged, if it takes part in nothing.
            if self.removed.contains(&replica.id) && !(rotten && replica.lost.is_some()) {
                return Err(i8_recovery::came_back(replica.id.0));
            }
            let before = self.before.entry(replica.id).or_default();
            if let Some(log) = directory.replica_log(replica.id) {
                i8_recovery::found(before, replica, &log.summary(), rotten)?;
            }
        }
        let is_there = |replica| recovered.iter().any(|found| found.id == replica);
        self.forget_unborn(node, is_there);
        if !rotten {
            self.forget_left(node, is_there);
        }
        for (replica, before) in &self.before {
            let had = before.log.as_ref().is_some_and(|log| log.synced > 0);
            if self.homes.get(replica) == Some(&node) && had && !rotten && !is_there(*replica) {
                return Err(i8_recovery::gone(replica.0));
            }
        }
        Ok(())
    }

    fn forget(&mut self, replica: ReplicaId) {
        self.homes.remove(&replica);
        self.before.remove(&replica);
        self.leaving.remove(&replica);
    }

    /// Replicas of this node that are not there any more.
    fn missing(&self, node: SimNode, is_there: impl Fn(ReplicaId) -> bool) -> Vec<ReplicaId> {
        let missing = self.homes.iter().filter(|(id, home)| **home == node && !is_there(**id));
        missing.map(|(id, _)| *id).collect()
    }

    /// Creations that were under way when the node went down, and never were durable: they may be made again.
    fn forget_unborn(&mut self, node: SimNode, is_there: impl Fn(ReplicaId) -> bool) {
        for replica in self.missing(node, is_there) {
            let log = self.before.get(&replica).and_then(|before| before.log.as_ref());
            if log.is_none_or(|log| log.synced == 0) {
                self.forget(replica);
            }
        }
    }

    /// Removals that were under way when the node went down, and came to their end: what they removed stays away.
    fn forget_left(&mut self, node: SimNode, is_there: impl Fn(ReplicaId) -> bool) {
        for replica in self.missing(node, is_there) {
            if self.leaving.contains(&replica) {
                self.forget(replica);
                self.removed.insert(replica);
            }
        }
    }
}
