//! The state in a checkpoint, and the operations of which its transactions consist.
//!
//! ```text
//!  operation: | kind 1 | fields |      integers little-endian, bytes as length 4 + content
//!  1 replica  : id, recovery point, last applied, membership, checksum     (its keys stay)
//!  2 put      : replica, key, value          3 delete: replica, key
//!  4 remove   : replica                      (with its keys and log starts)
//!  5 log start: lineage, topic 16, partition 4, offset 8
//!  6 forget   : lineage, topic 16, partition 4
//!  7 run      : id 8, lineage 8, incarnation 8, bytes 8, bytes of batches 8, class 1, rewrites 4
//!  8 drop run : id 8
//!  9 run ids  : the next id 8               (ids below it were used)
//! 10 rewritten: segment 8                   (its live batches lie in runs; what its index lists does not count)
//! 11 unlinked : segment 8                   (it was rewritten, and is gone)
//! 12 replica  : as 1, then stretches 4, each: first sequence 8, last sequence 8     (relocated entries that are needed)
//! 13 owner    : replica, lineage 8, topic 16, partition 4     (it serves bytes that came for another)
//! 14 disown   : replica, topic 16, partition 4
//! 15 compacted: lineage 8, topic 16, partition 4, pass 8, horizon 8, cutoff 8, first run 8
//! ```
//! Kinds 7 to 11 appear only in directories of format 2 (`node.json`), kind 12 in those of format 3, kinds 13
//! and 14 in those of format 4, kind 15 in those of format 5: an older release would take them for damage.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ottla_protocol::ids::{Offset, PartitionId};
use uuid::Uuid;

use crate::compact::Pass;
use crate::entry::Vote;
use crate::ids::{Lineage, LogId, LogPosition, RaftIndex, ReplicaId, RunId, Term};
use crate::index::ExtentKey;
use crate::index::compacted::Compacted;
use crate::index::owners::Owners;
use crate::log::RecoveryPoint;
use crate::runs::Listing;
use crate::runs::retention_class::RetentionClass;

/// A replica in a checkpoint, keys aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaHead {
    pub(crate) recovery_point: RecoveryPoint,
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: Bytes,
    pub(crate) checksum: u64,
}

/// A replica in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaState {
    pub(crate) head: ReplicaHead,
    pub(crate) keys: BTreeMap<Bytes, Bytes>,
}

/// The whole state in a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) replicas: BTreeMap<ReplicaId, ReplicaState>,
    pub(crate) log_starts: BTreeMap<ExtentKey, Offset>,
    pub(crate) owners: Owners,
    /// What passes of compaction have made of lineages.
    pub(crate) compacted: BTreeMap<ExtentKey, Compacted>,
    /// The runs that hold live batches.
    pub(crate) runs: BTreeMap<RunId, Listing>,
    /// The id of the next run.
    pub(crate) next_run: RunId,
    /// Segments whose live batches lie in runs.
    pub(crate) rewritten: BTreeSet<u64>,
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Replica(ReplicaHead),
    Put { replica: ReplicaId, key: Bytes, value: Bytes },
    Delete { replica: ReplicaId, key: Bytes },
    Remove(ReplicaId),
    LogStart(ExtentKey, Offset),
    Forget(ExtentKey),
    Owner(ReplicaId, ExtentKey),
    Disown(ReplicaId, PartitionId),
    Compacted(ExtentKey, Compacted),
    Run(Listing),
    DropRun(RunId),
    NextRun(RunId),
    Rewritten(u64),
    Unlinked(u64),
}

impl State {
    /// Applies one operation. False if it names a replica that does not exist, or bytes that have an owner.
    #[must_use]
    pub(crate) fn apply(&mut self, operation: Operation) -> bool {
        match operation {
            Operation::Replica(head) => match self.replicas.get_mut(&head.recovery_point.replica) {
                Some(state) => state.head = head,
                None => drop(
                    self.replicas.insert(head.recovery_point.replica, ReplicaState { head, keys: BTreeMap::new() }),
                ),
            },
            Operation::Put { replica, key, value } => {
                let Some(state) = self.replicas.get_mut(&replica) else { return false };
                state.keys.insert(key, value);
            }
            Operation::Delete { replica, key } => {
                let Some(state) = self.replicas.get_mut(&replica) else { return false };
                state.keys.remove(&key);
            }
            Operation::Remove(replica) => {
                self.replicas.remove(&replica);
            }
            Operation::LogStart(key, log_start) => drop(self.log_starts.insert(key, log_start)),
            Operation::Forget(key) => {
                self.log_starts.remove(&key);
                self.compacted.remove(&key);
            }
            Operation::Owner(replica, key) => return self.owners.set(replica, key),
            Operation::Disown(replica, partition) => self.owners.remove(replica, partition),
            Operation::Compacted(key, compacted) => drop(self.compacted.insert(key, compacted)),
            Operation::Run(run) => drop(self.runs.insert(run.id, run)),
            Operation::DropRun(run) => drop(self.runs.remove(&run)),
            Operation::NextRun(run) => self.next_run = self.next_run.max(run),
            Operation::Rewritten(segment) => drop(self.rewritten.insert(segment)),
            Operation::Unlinked(segment) => drop(self.rewritten.remove(&segment)),
        }
        true
    }

    /// The operations that create this state from an empty one.
    pub(crate) fn operations(&self) -> impl Iterator<Item = Operation> {
        let replicas = self.replicas.iter().flat_map(|(id, state)| {
            let puts = state.keys.iter().map(|(key, value)| Operation::Put {
                replica: *id,
                key: key.clone(),
                value: value.clone(),
            });
            std::iter::once(Operation::Replica(state.head.clone())).chain(puts)
        });
        let log_starts = self.log_starts.iter().map(|(key, log_start)| Operation::LogStart(*key, *log_start));
        let owners = self.owners.rows().map(|(replica, key)| Operation::Owner(replica, key));
        let compacted = self.compacted.iter().map(|(key, compacted)| Operation::Compacted(*key, compacted.clone()));
        let runs = self.runs.values().map(|run| Operation::Run(run.clone()));
        let next_run = (self.next_run > RunId(0)).then_some(Operation::NextRun(self.next_run));
        let rewritten = self.rewritten.iter().map(|segment| Operation::Rewritten(*segment));
        replicas.chain(log_starts).chain(owners).chain(compacted).chain(runs).chain(next_run).chain(rewritten)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    assert!(u32::try_from(bytes.len()).is_ok(), "{} bytes in an operation of the checkpoint", bytes.len());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    out.push(u8::from(id.is_some()));
    let id = id.unwrap_or_default();
    out.extend_from_slice(&id.term.0.to_le_bytes());
    out.extend_from_slice(&id.index.0.to_le_bytes());
}

fn put_key(out: &mut Vec<u8>, key: &ExtentKey) {
    out.extend_from_slice(&key.lineage.0.to_le_bytes());
    put_partition(out, &key.partition);
}

fn put_partition(out: &mut Vec<u8>, partition: &PartitionId) {
    out.extend_from_slice(partition.topic.as_bytes());
    out.extend_from_slice(&partition.index.to_le_bytes());
}

fn put_head(out: &mut Vec<u8>, head: &ReplicaHead) {
    let point = &head.recovery_point;
    out.extend_from_slice(&point.replica.0.to_le_bytes());
    out.extend_from_slice(&point.sequence.to_le_bytes());
    out.extend_from_slice(&point.position.segment.to_le_bytes());
    out.extend_from_slice(&point.position.byte.to_le_bytes());
    out.push(u8::from(point.lost));
    out.push(u8::from(point.vote.is_some()));
    let vote = point.vote.unwrap_or(Vote { term: Term(0), voted_for: ReplicaId(0), committed: false });
    out.extend_from_slice(&vote.term.0.to_le_bytes());
    out.extend_from_slice(&vote.voted_for.0.to_le_bytes());
    out.push(u8::from(vote.committed));
    put_log_id(out, point.purged);
    put_bytes(out, &point.creation);
    put_log_id(out, head.applied);
    put_bytes(out, &head.membership);
    out.extend_from_slice(&head.checksum.to_le_bytes());
}

fn put_numbered(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    out.extend_from_slice(&number.to_le_bytes());
}

impl Operation {
    /// Adds the run that it lists, if it does.
    pub(crate) fn list(&self, listed: &mut BTreeMap<RunId, Listing>) {
        if let Self::Run(run) = self {
            listed.insert(run.id, run.clone());
        }
    }

    /// Appends the operation.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Replica(head) if head.recovery_point.kept.is_empty() => {
                out.push(1);
                put_head(out, head);
            }
            Self::Replica(head) => {
                out.push(12);
                put_head(out, head);
                out.extend_from_slice(&u32::try_from(head.recovery_point.kept.len()).unwrap_or(u32::MAX).to_le_bytes());
                for (first, last) in &head.recovery_point.kept {
                    out.extend_from_slice(&first.to_le_bytes());
                    out.extend_from_slice(&last.to_le_bytes());
                }
            }
            Self::Put { replica, key, value } => {
                out.push(2);
                out.extend_from_slice(&replica.0.to_le_bytes());
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Self::Delete { replica, key } => {
                out.push(3);
                out.extend_from_slice(&replica.0.to_le_bytes());
                put_bytes(out, key);
            }
            Self::Remove(replica) => {
                out.push(4);
                out.extend_from_slice(&replica.0.to_le_bytes());
            }
            Self::LogStart(key, log_start) => {
                out.push(5);
                put_key(out, key);
                out.extend_from_slice(&log_start.0.to_le_bytes());
            }
            Self::Forget(key) => {
                out.push(6);
                put_key(out, key);
            }
            Self::Owner(replica, key) => {
                put_numbered(out, 13, replica.0);
                put_key(out, key);
            }
            Self::Disown(replica, partition) => {
                put_numbered(out, 14, replica.0);
                put_partition(out, partition);
            }
            Self::Compacted(key, compacted) => {
                out.push(15);
                put_key(out, key);
                put_compacted(out, compacted);
            }
            Self::Run(run) => {
                out.push(7);
                for number in [run.id.0, run.lineage.0, run.incarnation, run.bytes, run.batch_bytes] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.push(run.class.0);
                out.extend_from_slice(&run.rewrites.to_le_bytes());
            }
            Self::DropRun(run) => put_numbered(out, 8, run.0),
            Self::NextRun(run) => put_numbered(out, 9, run.0),
            Self::Rewritten(segment) => put_numbered(out, 10, *segment),
            Self::Unlinked(segment) => put_numbered(out, 11, *segment),
        }
    }
}

fn put_compacted(out: &mut Vec<u8>, compacted: &Compacted) {
    let Compacted { number, pass, first_run, imported } = compacted;
    out.extend_from_slice(&number.to_le_bytes());
    for offset in [pass.horizon, pass.cutoff] {
        out.extend_from_slice(&offset.0.to_le_bytes());
    }
    out.extend_from_slice(&first_run.0.to_le_bytes());
    let count = u32::try_from(imported.len()).unwrap_or_else(|_| panic!("{} runs", imported.len()));
    out.extend_from_slice(&count.to_le_bytes());
    imported.iter().for_each(|run| out.extend_from_slice(&run.0.to_le_bytes()));
}

/// Takes operations off the front of checked bytes; values share them.
pub(crate) struct Operations(pub(crate) Bytes);

impl Operations {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let head = *self.0.first_chunk::<N>()?;
        let _ = self.0.split_to(N);
        Some(head)
    }
    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }
    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    fn bytes(&mut self) -> Option<Bytes> {
        let length = self.u32()? as usize;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }
    fn replica(&mut self) -> Option<ReplicaId> {
        self.u64().map(ReplicaId)
    }
    fn log_id(&mut self) -> Option<Option<LogId>> {
        let some = self.byte()? != 0;
        let id = LogId { term: Term(self.u64()?), index: RaftIndex(self.u64()?) };
        Some(some.then_some(id))
    }
    fn key(&mut self) -> Option<ExtentKey> {
        let lineage = Lineage(self.u64()?);
        Some(ExtentKey { partition: self.partition()?, lineage })
    }
    fn partition(&mut self) -> Option<PartitionId> {
        let topic = Uuid::from_bytes(self.array()?);
        Some(PartitionId { topic, index: i32::from_le_bytes(self.array()?) })
    }

    fn head(&mut self) -> Option<ReplicaHead> {
        let replica = self.replica()?;
        let sequence = self.u64()?;
        let position = LogPosition { segment: self.u64()?, byte: self.u32()? };
        let lost = self.byte()? != 0;
        let voted = self.byte()? != 0;
        let vote = Vote { term: Term(self.u64()?), voted_for: self.replica()?, committed: self.byte()? != 0 };
        let purged = self.log_id()?;
        let creation = self.bytes()?;
        let vote = voted.then_some(vote);
        let recovery_point =
            RecoveryPoint { replica, creation, sequence, kept: Vec::new(), position, vote, purged, lost };
        Some(ReplicaHead { recovery_point, applied: self.log_id()?, membership: self.bytes()?, checksum: self.u64()? })
    }

    fn head_with_kept(&mut self) -> Option<ReplicaHead> {
        let mut head = self.head()?;
        for _ in 0..self.u32()? {
            head.recovery_point.kept.push((self.u64()?, self.u64()?));
        }
        Some(head)
    }

    fn run(&mut self) -> Option<Listing> {
        Some(Listing {
            id: RunId(self.u64()?),
            lineage: Lineage(self.u64()?),
            incarnation: self.u64()?,
            bytes: self.u64()?,
            batch_bytes: self.u64()?,
            class: RetentionClass(self.byte()?),
            rewrites: self.u32()?,
        })
    }

    fn offset(&mut self) -> Option<Offset> {
        Some(Offset(i64::from_le_bytes(self.array()?)))
    }

    fn compacted(&mut self) -> Option<Compacted> {
        let number = self.u64()?;
        let pass = Pass { horizon: self.offset()?, cutoff: self.offset()? };
        let first_run = RunId(self.u64()?);
        let imported = (0..self.u32()?).map(|_| self.u64().map(RunId)).collect::<Option<_>>()?;
        Some(Compacted { number, pass, first_run, imported })
    }

    fn operation(&mut self) -> Option<Operation> {
        Some(match self.byte()? {
            1 => Operation::Replica(self.head()?),
            2 => Operation::Put { replica: self.replica()?, key: self.bytes()?, value: self.bytes()? },
            3 => Operation::Delete { replica: self.replica()?, key: self.bytes()? },
            4 => Operation::Remove(self.replica()?),
            5 => Operation::LogStart(self.key()?, self.offset()?),
            6 => Operation::Forget(self.key()?),
            7 => Operation::Run(self.run()?),
            8 => Operation::DropRun(RunId(self.u64()?)),
            9 => Operation::NextRun(RunId(self.u64()?)),
            10 => Operation::Rewritten(self.u64()?),
            11 => Operation::Unlinked(self.u64()?),
            12 => Operation::Replica(self.head_with_kept()?),
            13 => Operation::Owner(self.replica()?, self.key()?),
            14 => Operation::Disown(self.replica()?, self.partition()?),
            15 => Operation::Compacted(self.key()?, self.compacted()?),
            _ => return None,
        })
    }

    /// Applies all of them, and adds the runs that they list. False if they cannot be decoded.
    #[must_use]
    pub(crate) fn apply_to(mut self, state: &mut State, listed: &mut BTreeMap<RunId, Listing>) -> bool {
        while !self.0.is_empty() {
            let Some(operation) = self.operation() else { return false };
            operation.list(listed);
            if !state.apply(operation) {
                return false;
            }
        }
        true
    }
}
