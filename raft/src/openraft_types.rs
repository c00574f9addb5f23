//! openraft's type configuration: ids, entries, and the conversions between its types and storage's.
//!
//! Invariant: an entry is storage's own, so its `Bytes` are never copied on the way to disk or back.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::raft::responder::Responder;
use openraft::vote::leader_id_std::{CommittedLeaderId, LeaderId};
use openraft::{AnyError, EmptyNode, EntryPayload, RaftTypeConfig};
use ottla_storage::entry::{Batches, Entry, EntryKind, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};

use crate::membership::Membership;
use crate::proposal::{Proposal, ProposalResponder};
use crate::runtime::Runtime;
use crate::state_machine::Reply;

/// The types of all groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Reply;
    type NodeId = u64;
    type Node = EmptyNode;
    type Term = u64;
    type LeaderId = LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = EntryPayload<Proposal, u64, EmptyNode>;
    type Entry = LogEntry;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = ProposalResponder<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::batch::InlineBatch<T>
    where
        T: Send + 'static;
    type ErrorSource = AnyError;
}

impl<T: Send + 'static> Responder<TypeConfig, T> for ProposalResponder<T> {
    fn on_complete(self, result: T) {
        self.send(result);
    }
}

pub(crate) type RaftLogId = openraft::LogId<CommittedLeaderId<u64>>;
pub(crate) type RaftVote = openraft::Vote<LeaderId<u64, u64>>;
pub(crate) type RaftMembership = openraft::Membership<u64, EmptyNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId<u64>, u64, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId<u64>, u64, EmptyNode>;

/// A log entry: storage's, with openraft's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    entry: Entry,
    /// The entry's term again, because openraft needs a reference to it.
    leader: CommittedLeaderId<u64>,
}

impl LogEntry {
    /// The entry as storage stores it.
    #[must_use]
    pub(crate) fn into_inner(self) -> Entry {
        self.entry
    }

    /// The same, by reference.
    pub(crate) fn inner(&self) -> &Entry {
        &self.entry
    }

    /// Bytes of its command and its batches.
    pub(crate) fn bytes(&self) -> usize {
        self.entry.payload.len() + self.entry.batches.iter().map(|batch| batch.data.len()).sum::<usize>()
    }
}

impl From<Entry> for LogEntry {
    fn from(entry: Entry) -> Self {
        let leader = CommittedLeaderId::new(entry.log_id.term.0);
        LogEntry { entry, leader }
    }
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.entry.log_id, self.entry.kind)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeaderId<u64>;
    type Payload = EntryPayload<Proposal, u64, EmptyNode>;

    fn new(log_id: RaftLogId, payload: Self::Payload) -> Self {
        let log_id = from_raft_log_id(&log_id);
        // Entries that Raft itself proposes carry no time: clock 0.
        let empty =
            Entry { log_id, kind: EntryKind::Blank, clock_ms: 0, payload: Bytes::new(), batches: Batches::default() };
        LogEntry::from(match payload {
            EntryPayload::Blank => empty,
            EntryPayload::Normal(Proposal { payload, batches, clock_ms }) => {
                Entry { log_id, kind: EntryKind::Normal, clock_ms, payload, batches }
            }
            EntryPayload::Membership(membership) => {
                Entry { kind: EntryKind::Membership, payload: from_raft_membership(&membership).encode(), ..empty }
            }
        })
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId<u64>, u64) {
        (&self.leader, self.entry.log_id.index.0)
    }

    fn set_log_id(&mut self, new: RaftLogId) {
        self.leader = new.leader_id;
        self.entry.log_id = from_raft_log_id(&new);
    }

    fn get_membership(&self) -> Option<RaftMembership> {
        if self.entry.kind != EntryKind::Membership {
            return None;
        }
        // The entry was written by this code and read back under a checksum.
        Membership::decode(self.entry.payload.clone()).as_ref().map(to_raft_membership)
    }
}

pub(crate) fn from_raft_log_id(id: &RaftLogId) -> LogId {
    LogId { term: Term(id.leader_id.term), index: RaftIndex(id.index) }
}

pub(crate) fn to_raft_log_id(id: LogId) -> RaftLogId {
    RaftLogId::new(CommittedLeaderId::new(id.term.0), id.index.0)
}

pub(crate) fn from_raft_vote(vote: &RaftVote) -> Vote {
    Vote { term: Term(vote.leader_id.term), voted_for: ReplicaId(vote.leader_id.voted_for), committed: vote.committed }
}

pub(crate) fn to_raft_vote(vote: Vote) -> RaftVote {
    RaftVote { leader_id: LeaderId { term: vote.term.0, voted_for: vote.voted_for.0 }, committed: vote.committed }
}

pub(crate) fn from_raft_membership(membership: &RaftMembership) -> Membership {
    let replicas = |ids: &std::collections::BTreeSet<u64>| ids.iter().map(|&id| ReplicaId(id)).collect();
    Membership {
        voters: membership.get_joint_config().iter().map(replicas).collect(),
        learners: membership.learner_ids().map(ReplicaId).collect(),
    }
}

pub(crate) fn to_raft_membership(members: &Membership) -> RaftMembership {
    let voters = members.voters.iter().map(|config| config.iter().map(|replica| replica.0).collect()).collect();
    RaftMembership::new_with_defaults(voters, members.learners.iter().map(|replica| replica.0))
}

/// The membership of a cut, with the id of its entry: | set u8 | term u64 | index u64 | members |
pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    let mut out = BytesMut::new();
    let id = stored.log_id().as_ref().map(from_raft_log_id);
    out.put_u8(u8::from(id.is_some()));
    let id = id.unwrap_or_default();
    out.put_u64_le(id.term.0);
    out.put_u64_le(id.index.0);
    from_raft_membership(stored.membership()).encode_into(&mut out);
    out.freeze()
}

/// `None` if the bytes are not such a membership; no bytes at all are the empty one.
pub(crate) fn decode_stored_membership(mut from: Bytes) -> Option<StoredMembership> {
    if from.is_empty() {
        return Some(StoredMembership::default());
    }
    let set = from.try_get_u8().ok()? != 0;
    let term = Term(from.try_get_u64_le().ok()?);
    let index = RaftIndex(from.try_get_u64_le().ok()?);
    let members = Membership::decode(from)?;
    let id = set.then(|| to_raft_log_id(LogId { term, index }));
    Some(StoredMembership::new(id, to_raft_membership(&members)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stored_membership_comes_back(set: bool, term: u64, index: u64, voters in proptest::collection::btree_set(any::<u64>(), 1..4)) {
            let members = Membership::of(voters.into_iter().map(ReplicaId));
            let id = set.then(|| to_raft_log_id(LogId { term: Term(term), index: RaftIndex(index) }));
            let stored = StoredMembership::new(id, to_raft_membership(&members));
            prop_assert_eq!(decode_stored_membership(encode_stored_membership(&stored)), Some(stored));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_stored_membership(bytes.into());
        }
    }
}
