//! What the log is held against: a history of operations per replica, what was acknowledged of it, and the state that
//! any prefix of it must give.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ottla_protocol::batch::{CRC_FROM, crc32c};
use ottla_protocol::ids::{LeaderEpoch, Offset, PartitionId};
use ottla_storage::entry::{Entry, EntryBatch, EntryKind, EntryVerdicts, Verdict, Vote};
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use ottla_storage::log::{
    BatchPlace, EntryRange, FrameBody, FrameSink, GroupCreation, Log, RecoveredReplica, RecoveryPoint, ScannedFrame,
};
use parking_lot::Mutex;
use uuid::Uuid;

pub mod history;

/// SplitMix64: the tests' own generator.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A record batch with a sound checksum; its content depends on `seed`.
pub fn batch(seed: u64, records: usize) -> Bytes {
    let mut rng = Rng(seed);
    let mut data: Vec<u8> = (0..61 + records).map(|_| rng.next().to_le_bytes()[0]).collect();
    let length = (data.len() - 12) as u32;
    data[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&data[CRC_FROM..]);
    data[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(data)
}

pub fn log_id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: RaftIndex(index) }
}

/// An entry whose content is its own: no other entry of a test equals it.
pub fn entry(term: u64, index: u64, rng: &mut Rng) -> Entry {
    let batches = (0..rng.below(3))
        .map(|_| EntryBatch {
            partition: PartitionId { topic: Uuid::from_u128(u128::from(1 + rng.below(4))), index: rng.below(3) as i32 },
            data: batch(rng.next(), rng.below(900) as usize),
        })
        .collect();
    let payload: Vec<u8> = (0..8 + rng.below(120)).map(|_| rng.next().to_le_bytes()[0]).collect();
    Entry {
        log_id: log_id(term, index),
        kind: EntryKind::Normal,
        clock_ms: rng.below(1 << 40) as i64,
        payload: Bytes::from(payload),
        batches,
    }
}

pub fn verdicts(index: u64, rng: &mut Rng) -> EntryVerdicts {
    let verdict = |rng: &mut Rng| match rng.below(4) {
        0 => Verdict::Rejected,
        _ => Verdict::Accepted {
            base_offset: Offset(rng.below(1 << 40) as i64),
            epoch: LeaderEpoch(rng.below(9) as i32),
        },
    };
    EntryVerdicts {
        log_id: log_id(1, index),
        verdicts: (0..rng.below(4)).map(|_| verdict(rng)).collect(),
        lineages: Vec::new(),
        relocated_to: None,
    }
}

/// One frame of a replica, in the order of the requests; its number is its index in the list, from 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Create(GroupCreation),
    Append(Entry),
    Vote(Vote),
    Truncate(Option<LogId>),
    Purge(LogId),
    Verdicts(Vec<EntryVerdicts>),
    Remove,
    /// The log marked the replica.
    Lost,
}

/// What a replica's log says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelState {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub entries: BTreeMap<u64, Entry>,
}

impl ModelState {
    pub fn after(ops: &[Op]) -> Self {
        let mut state = Self::default();
        ops.iter().for_each(|op| state.apply(op));
        state
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(creation) => {
                self.vote = creation.vote;
                self.purged = creation.purged;
            }
            Op::Append(entry) => {
                self.entries.split_off(&entry.log_id.index.0);
                self.entries.insert(entry.log_id.index.0, entry.clone());
            }
            Op::Vote(vote) => self.vote = Some(*vote),
            Op::Truncate(last) => {
                self.entries.split_off(&last.map_or(0, |id| id.index.0 + 1));
            }
            Op::Purge(upto) => {
                self.entries = self.entries.split_off(&(upto.index.0 + 1));
                self.purged = self.purged.max(Some(*upto));
            }
            Op::Verdicts(_) | Op::Remove | Op::Lost => {}
        }
    }

    /// Ids without contents.
    pub fn brief(&self) -> String {
        let ids: Vec<String> = self.entries.values().map(|entry| entry.log_id.to_string()).collect();
        format!("vote {:?}, purged {:?}, entries {}", self.vote, self.purged, ids.join(" "))
    }

    pub fn last(&self) -> Option<LogId> {
        self.entries.values().next_back().map(|entry| entry.log_id).or(self.purged)
    }
}

#[derive(Debug, Clone, Default)]
pub struct ReplicaHistory {
    pub ops: Vec<Op>,
    pub acked: usize,
}

/// The requests and the acknowledgements, per replica.
#[derive(Debug, Clone, Default)]
pub struct Oracle(pub Arc<Mutex<BTreeMap<ReplicaId, ReplicaHistory>>>);

/// How much of each history was requested, and how much acknowledged, at one moment.
pub type Moment = BTreeMap<ReplicaId, (usize, usize)>;

impl Oracle {
    /// Records an operation just before it is requested; returns its number.
    pub fn asked(&self, replica: ReplicaId, op: Op) -> usize {
        let mut histories = self.0.lock();
        let history = histories.entry(replica).or_default();
        history.ops.push(op);
        history.ops.len()
    }

    /// Acknowledgements come in order.
    pub fn acked(&self, replica: ReplicaId, number: usize) {
        let mut histories = self.0.lock();
        let history = histories.get_mut(&replica).unwrap();
        assert!(number > history.acked, "replica {replica}: {number} acknowledged after {}", history.acked);
        history.acked = number;
    }

    pub fn moment(&self) -> Moment {
        self.0.lock().iter().map(|(id, history)| (*id, (history.acked, history.ops.len()))).collect()
    }

    pub fn ops(&self, replica: ReplicaId) -> Vec<Op> {
        self.0.lock().get(&replica).map(|history| history.ops.clone()).unwrap_or_default()
    }
}

/// Collects the frames that recovery passes on.
#[derive(Debug, Default)]
pub struct Seen(pub BTreeMap<(ReplicaId, u64), FrameBody>);

impl FrameSink for Seen {
    fn frame(&mut self, frame: &ScannedFrame, batches: &[BatchPlace]) {
        if let FrameBody::Entry(entry) = &frame.body {
            assert_eq!(entry.batches.len(), batches.len());
        }
        self.0.insert((frame.replica, frame.sequence), frame.body.clone());
    }
}

/// What a log says of a replica now.
pub async fn state_of(log: &Log, replica: ReplicaId) -> ModelState {
    let replica = log.replica(replica).unwrap();
    let mut state = ModelState { vote: replica.vote(), purged: replica.purged(), entries: BTreeMap::new() };
    let Some(last) = replica.last_log_id() else { return state };
    let mut index = state.purged.map_or(0, |id| id.index.0 + 1);
    while replica.log_id(RaftIndex(index)).is_none() && index <= last.index.0 {
        index += 1;
    }
    while index <= last.index.0 {
        let range = EntryRange { first: RaftIndex(index), last: last.index };
        let entries = replica.read(range, 4096).await.unwrap();
        assert!(!entries.is_empty(), "entry {index} of {last} cannot be read");
        for entry in entries {
            assert_eq!(entry.log_id.index.0, index);
            index += 1;
            state.entries.insert(entry.log_id.index.0, entry);
        }
    }
    state
}

/// I8: each replica has a prefix of what was requested that contains everything acknowledged.
/// What a checkpoint (`recovery_points`) says is purged is purged, whether or not the log came to say so.
pub async fn check(
    log: &Log,
    recovered: &[RecoveredReplica],
    recovery_points: &[RecoveryPoint],
    oracle: &Oracle,
    moment: &Moment,
    what: &str,
) {
    let by_id: BTreeMap<ReplicaId, &RecoveredReplica> = recovered.iter().map(|r| (r.id, r)).collect();
    for id in by_id.keys() {
        assert!(moment.contains_key(id), "{what}: replica {id} was never asked for");
    }
    for (id, (acked, asked)) in moment {
        let ops = oracle.ops(*id);
        let Some(found) = by_id.get(id) else {
            let removed = ops[..*asked].contains(&Op::Remove);
            assert!(*acked == 0 || removed, "{what}: replica {id} is gone, {acked} of {asked} acknowledged");
            continue;
        };
        let prefix = found.sequence as usize;
        assert!(
            (*acked..=*asked).contains(&prefix),
            "{what}: replica {id} has {prefix} frames, {acked} of {asked} acknowledged"
        );
        assert!(found.lost.is_none(), "{what}: replica {id} counts as lost: {:?}", found.lost);
        assert!(!ops[..prefix].contains(&Op::Remove), "{what}: replica {id} is back");
        let mut expected = ModelState::after(&ops[..prefix]);
        if let Some(upto) = recovery_points.iter().find(|point| point.replica == *id).and_then(|point| point.purged) {
            expected.apply(&Op::Purge(upto));
        }
        let actual = state_of(log, *id).await;
        assert_eq!(found.last_log_id, actual.last(), "{what}: replica {id}");
        assert!(
            actual == expected,
            "{what}: replica {id} after {prefix} frames:\n{}\nexpected\n{}",
            actual.brief(),
            expected.brief()
        );
    }
}
