//! A state machine that remembers what it applied, and the oracle that compares replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_env::sim::{self, SimNode};
use ottla_storage::entry::Entry;
use ottla_storage::ids::{LogId, RaftIndex, ReplicaId, Term};
use parking_lot::Mutex;

use crate::membership::Membership;
use crate::state_machine::{Applied, Extent, Reply, StateMachine};

/// What all replicas together have applied and acknowledged.
#[derive(Default)]
pub(crate) struct Oracle {
    /// The entry that any replica applied at an index.
    applied: BTreeMap<u64, (Term, Bytes)>,
    /// The entries acknowledged to the client.
    pub(crate) acked: BTreeMap<u64, Bytes>,
    /// The replica that was ready to serve in a term.
    leaders: BTreeMap<Term, ReplicaId>,
    /// Violations. Collected, because a panic in a replica only stops the replica.
    pub(crate) violations: Vec<String>,
}

impl Oracle {
    /// I6: replicas that applied the same index applied the same entry.
    pub(crate) fn applied(&mut self, id: LogId, payload: &Bytes) {
        let new = (id.term, payload.clone());
        let known = self.applied.entry(id.index.0).or_insert_with(|| new.clone());
        if *known != new {
            self.violations.push(format!("two entries under index {}: {known:?} and {new:?}", id.index.0));
        }
    }

    /// I1: an acknowledged entry keeps its index.
    pub(crate) fn acknowledged(&mut self, id: LogId, payload: Bytes) {
        let applied = self.applied.get(&id.index.0);
        if applied != Some(&(id.term, payload.clone())) {
            self.violations.push(format!("acknowledged at {id}, but {applied:?} was applied"));
        }
        self.acked.insert(id.index.0, payload);
    }

    /// There is at most one leader in a term.
    pub(crate) fn leads(&mut self, term: Term, replica: ReplicaId) {
        let known = *self.leaders.entry(term).or_insert(replica);
        if known != replica {
            self.violations.push(format!("two leaders in term {}: {known} and {replica}", term.0));
        }
    }

    pub(crate) fn terms(&self) -> usize {
        self.leaders.len()
    }
}

/// Remembers every normal entry.
pub(crate) struct Ledger {
    entries: BTreeMap<u64, (Term, Bytes)>,
    dirty: Vec<u64>,
    /// Applied and not yet published.
    unpublished: Vec<u64>,
    checksum: u64,
    oracle: Arc<Mutex<Oracle>>,
    pub(crate) needs_records: bool,
    /// A copy that tests may read.
    pub(crate) visible: Arc<Mutex<BTreeMap<u64, (Term, Bytes)>>>,
}

/// A payload on which apply panics.
pub(crate) const POISON: &[u8] = b"poison";
/// A payload after which members that lag are not served by a snapshot.
pub(crate) const KEEP_ENTRIES: &[u8] = b"keep entries";
/// A payload after which the state of node 2 is another one than those of the others.
pub(crate) const DIFFERENT_ON_2: &[u8] = b"different";

impl Ledger {
    /// A ledger that holds `state` from a checkpoint.
    pub(crate) fn restore(state: &[(Bytes, Bytes)], oracle: Arc<Mutex<Oracle>>) -> Self {
        let mut ledger = Ledger {
            entries: BTreeMap::new(),
            dirty: Vec::new(),
            unpublished: Vec::new(),
            checksum: 0,
            oracle,
            needs_records: false,
            visible: Arc::default(),
        };
        for (key, value) in state {
            let index = u64::from_be_bytes(key[..].try_into().unwrap());
            let term = Term(u64::from_be_bytes(value[..8].try_into().unwrap()));
            ledger.add(index, term, value.slice(8..));
        }
        ledger.dirty.clear();
        ledger.publish();
        ledger
    }

    fn add(&mut self, index: u64, term: Term, payload: Bytes) {
        for &byte in index.to_le_bytes().iter().chain(&term.0.to_le_bytes()).chain(&payload[..]) {
            self.checksum = (self.checksum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.entries.insert(index, (term, payload));
        self.dirty.push(index);
        self.unpublished.push(index);
    }
}

impl StateMachine for Ledger {
    fn apply(&mut self, entry: &Entry, _members: &Membership) -> Applied {
        assert_ne!(entry.payload, POISON, "poisoned");
        self.oracle.lock().applied(entry.log_id, &entry.payload);
        if sim::is_active() {
            sim::trace(&entry.log_id.index.0.to_le_bytes());
            sim::trace(&entry.payload);
        }
        self.add(entry.log_id.index.0, entry.log_id.term, entry.payload.clone());
        if entry.payload == DIFFERENT_ON_2 && sim::current_node() == SimNode(2) {
            self.checksum ^= 1;
        }
        let verdicts = entry.batches.iter().map(|_| ottla_storage::entry::Verdict::Rejected).collect();
        Applied { verdicts, reply: Reply::new(self.checksum), split_off: None, absorbed: None }
    }

    fn needs_records(&self) -> bool {
        self.needs_records
    }

    fn needs_entries(&self) -> bool {
        self.entries.values().any(|(_, payload)| payload == KEEP_ENTRIES)
    }

    fn term_started(&mut self, _log_id: LogId) {}

    fn publish(&mut self) {
        let news = self.unpublished.drain(..).filter_map(|index| Some((index, self.entries.get(&index)?.clone())));
        self.visible.lock().extend(news);
    }

    fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let change = |index: u64| {
            let (term, payload) = self.entries.get(&index)?;
            let mut value = BytesMut::new();
            value.put_u64(term.0);
            value.put_slice(payload);
            Some(value.freeze())
        };
        dirty.into_iter().map(|index| (Bytes::copy_from_slice(&index.to_be_bytes()), change(index))).collect()
    }

    fn checksum(&self) -> u64 {
        self.checksum
    }

    fn extents(&self, _state: &[(Bytes, Bytes)]) -> std::io::Result<Vec<Extent>> {
        Ok(Vec::new())
    }

    fn install(&mut self, _applied: LogId, state: &[(Bytes, Bytes)]) -> std::io::Result<()> {
        let visible = self.visible.clone();
        *self = Ledger::restore(state, self.oracle.clone());
        visible.lock().clone_from(&self.visible.lock());
        self.visible = visible;
        Ok(())
    }
}

/// The index of an applied entry, 0 without one.
pub(crate) fn index_of(id: Option<LogId>) -> RaftIndex {
    id.map_or(RaftIndex(0), |id| id.index)
}
