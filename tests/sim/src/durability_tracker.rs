//! Tracks what replicas have promised and held: votes and entries from the messages that they send, logs from what they
//! hold when their node goes down. Crashes can be armed for points in that traffic.
//!
//! May not know: how faults are drawn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use ottla_env::sim::SimNode;
use ottla_env::sim::disk::Crash;
use ottla_raft::{Message, StatePart};
use ottla_storage::data_dir::DataDir;
use ottla_storage::ids::{LogPosition, ReplicaId};

use crate::laws::Violation;
use crate::laws::i8_recovery::{self, Before};
use crate::laws::leaders::Leaders;
use crate::laws::matching::Contents;
use crate::sim_node::Opened;

/// A point at which a node is to crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// The node has just granted a vote.
    Vote,
    /// The node is just being answered by the leader of the metadata group.
    Answered,
    /// The node is just being asked for a later part of a state.
    StatePart,
    /// The node has just found that its log conflicts with the leader's.
    Conflict,
}

#[derive(Default)]
pub(crate) struct DurabilityTracker {
    before: BTreeMap<ReplicaId, Before>,
    /// The nodes on which replicas are known to be.
    homes: BTreeMap<ReplicaId, SimNode>,
    /// Replicas that were removed for good.
    removed: BTreeSet<ReplicaId>,
    /// Replicas that were being removed when their node went down: they may be there again or not.
    leaving: BTreeSet<ReplicaId>,
    leaders: Leaders,
    /// The contents of entries, as leaders sent them.
    pub(crate) contents: Contents,
    directories: BTreeMap<SimNode, Vec<Weak<DataDir>>>,
    /// Where the last durable commit of a node's log started when the node went down.
    last_commits: BTreeMap<SimNode, LogPosition>,
    pub(crate) armed: Option<(CrashPoint, Crash)>,
    pub(crate) crashed: Option<SimNode>,
}

impl DurabilityTracker {
    /// Observes a message from a replica on node `home` to another one, of this shard as far as that is known. Returns
    /// the node that an armed crash hits here.
    pub(crate) fn observe(
        &mut self,
        (from, to): (ReplicaId, ReplicaId),
        (home, receiver): (SimNode, Option<SimNode>),
        shard: Option<u64>,
        message: &Message,
    ) -> (Result<(), Violation>, Option<(SimNode, Crash)>) {
        let mut verdict = Ok(());
        let (vote, point) = match message {
            Message::RequestVote { pre_vote: false, vote, .. } => (Some(*vote), None),
            Message::AppendEntries { vote, entries, .. } => {
                if let Some(shard) = shard {
                    verdict = self.leaders.see(shard, vote.term.0, vote.voted_for.0);
                    verdict = verdict.and(self.contents.sent(shard, from, entries));
                }
                (Some(*vote), None)
            }
            Message::RequestVoteResponse { vote, granted, .. } => (Some(*vote), granted.then_some(CrashPoint::Vote)),
            Message::HigherVote(vote) => (Some(*vote), None),
            Message::AppendEntriesConflict => (None, Some(CrashPoint::Conflict)),
            Message::FetchStateResponse(Some(StatePart { state, .. }))
            | Message::FetchWholeStateResponse(Some(state)) => {
                let offered = &mut self.before.entry(to).or_default().offered;
                *offered = (*offered).max(Some(state.applied.index));
                (None, None)
            }
            Message::FetchState { resume: Some(_) } => (None, Some(CrashPoint::StatePart)),
            Message::Response(_) => (None, Some(CrashPoint::Answered)),
            _ => (None, None),
        };
        if let Some(vote) = vote {
            let known = &mut self.before.entry(from).or_default().vote;
            if known.is_none_or(|known| vote.term > known.term || (vote.term == known.term && vote.committed)) {
                *known = Some(vote);
            }
        }
        let hits_receiver = matches!(point, Some(CrashPoint::Answered | CrashPoint::StatePart));
        let victim = if hits_receiver { receiver } else { Some(home) };
        let crashes = self.armed.filter(|(armed, _)| Some(*armed) == point);
        let crashes = crashes.and_then(|(_, crash)| Some((victim?, crash)));
        if let Some((node, _)) = crashes {
            (self.armed, self.crashed) = (None, Some(node));
        }
        (verdict, crashes)
    }

    /// Stores the logs of a node that goes down.
    pub(crate) fn node_down(&mut self, node: SimNode) {
        let held = self.directories.remove(&node).unwrap_or_default();
        let opened: Vec<_> = held.iter().filter_map(Weak::upgrade).collect();
        if opened.is_empty() {
            return;
        }
        let there: Vec<_> = opened.iter().flat_map(|directory| directory.log().replicas()).collect();
        // A node that refuses to start may have dropped one of its directories already: what lies there is not removed.
        let gone = if opened.len() == held.len() { self.missing(node, |id| there.contains(&id)) } else { Vec::new() };
        for replica in gone {
            self.forget(replica);
            self.removed.insert(replica);
        }
        for replica in there {
            if let Some(log) = opened.iter().find_map(|directory| directory.replica_log(replica)) {
                self.homes.insert(replica, node);
                let summary = log.summary();
                if summary.removed {
                    self.leaving.insert(replica);
                }
                self.before.entry(replica).or_default().log = Some(summary);
            }
        }
        if let Some(first) = held.first().and_then(Weak::upgrade) {
            self.last_commits.insert(node, first.log().last_commit());
        }
    }

    /// A node has lost its disk: no replica on it is expected any more.
    pub(crate) fn disk_lost(&mut self, node: SimNode) {
        self.missing(node, |_| false).into_iter().for_each(|replica| self.forget(replica));
        self.last_commits.remove(&node);
    }

    /// Of the first directory, which alone is damaged: damage behind this position cannot be told from a torn write.
    pub(crate) fn provable_before(&self, node: SimNode) -> Option<LogPosition> {
        match self.directories.get(&node).and_then(|opened| opened.first()?.upgrade()) {
            Some(directory) => Some(directory.log().last_commit()),
            None => self.last_commits.get(&node).copied(),
        }
    }

    /// A node has opened its directories: its replicas are checked against what they had before.
    pub(crate) fn node_started(&mut self, node: SimNode, opened: &[Opened], corrupted: bool) -> Result<(), Violation> {
        self.directories.insert(node, opened.iter().map(|(directory, _)| Arc::downgrade(directory)).collect());
        for (directory, replica) in
            opened.iter().flat_map(|(directory, all)| all.iter().map(move |one| (directory, one)))
        {
            // A removed replica may be found again on a corrupted disk, if it takes part in nothing.
            if self.removed.contains(&replica.id) && !(corrupted && replica.lost.is_some()) {
                return Err(i8_recovery::came_back(replica.id.0));
            }
            let before = self.before.entry(replica.id).or_default();
            if let Some(log) = directory.replica_log(replica.id) {
                i8_recovery::found(before, replica, &log.summary(), corrupted)?;
            }
            // Its removal was not written. Once the node begins anew it may be removed after all.
            self.leaving.remove(&replica.id);
        }
        let is_there = |replica| opened.iter().flat_map(|(_, recovered)| recovered).any(|found| found.id == replica);
        self.forget_uncreated(node, is_there);
        if !corrupted {
            self.forget_removed(node, is_there);
        }
        for (replica, before) in &self.before {
            let had = before.log.as_ref().is_some_and(|log| log.synced > 0);
            if self.homes.get(replica) == Some(&node) && had && !corrupted && !is_there(*replica) {
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

    /// Forgets creations that were under way when the node went down and never became durable: they may be repeated.
    fn forget_uncreated(&mut self, node: SimNode, is_there: impl Fn(ReplicaId) -> bool) {
        for replica in self.missing(node, is_there) {
            let log = self.before.get(&replica).and_then(|before| before.log.as_ref());
            if log.is_none_or(|log| log.synced == 0) {
                self.forget(replica);
            }
        }
    }

    /// Forgets removals that were under way when the node went down and were completed: the replicas stay away.
    fn forget_removed(&mut self, node: SimNode, is_there: impl Fn(ReplicaId) -> bool) {
        for replica in self.missing(node, is_there) {
            if self.leaving.contains(&replica) {
                self.forget(replica);
                self.removed.insert(replica);
            }
        }
    }
}
