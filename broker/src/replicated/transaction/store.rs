//! The transactional ids of one partition of `__transaction_state`, from its committed records. Pure, on every replica.
//!
//! May not know: clocks, configuration, which replica leads, what a transition may be. Invariant: equal accepted batches make
//! equal stores (I6); memory follows the number of ids, not of transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::records::{self, TransactionRecord, TransactionValue};
use crate::checksum::record_hash;
use crate::replicated::group::batch;
use crate::replicated::group::schema::Malformed;

/// The transactional ids of one partition.
#[derive(Debug, Default)]
pub struct TransactionStore {
    ids: BTreeMap<Arc<str>, Arc<TransactionValue>>,
    order: Order,
    /// Ids changed since the last [`TransactionStore::changes`].
    dirty: BTreeSet<Arc<str>>,
    /// XOR over all live records; order does not matter, so equal states have equal sums.
    checksum: u64,
}

/// The ids by what their coordinator does with them of itself, so that it searches nothing. Each is in one of these.
#[derive(Debug, Default)]
struct Order {
    /// Those with an open transaction, by when it times out.
    open: BTreeSet<(i64, Arc<str>)>,
    /// Those whose markers are being written.
    prepared: BTreeSet<Arc<str>>,
    /// Those at rest, by when they changed last.
    at_rest: BTreeSet<(i64, Arc<str>)>,
}

impl Order {
    /// Adds or removes an id; true if that changed anything.
    fn set(&mut self, id: &Arc<str>, value: &TransactionValue, is_there: bool) -> bool {
        let timed = match value.deadline_ms() {
            Some(deadline_ms) => Some((&mut self.open, deadline_ms)),
            None if value.is_at_rest() => Some((&mut self.at_rest, value.updated_ms)),
            None => None,
        };
        match (timed, is_there) {
            (Some((set, time_ms)), true) => set.insert((time_ms, id.clone())),
            (Some((set, time_ms)), false) => set.remove(&(time_ms, id.clone())),
            (None, true) => self.prepared.insert(id.clone()),
            (None, false) => self.prepared.remove(id),
        }
    }
}

impl TransactionStore {
    /// A store without ids.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// A record cannot be read: a replica that passed over what a newer release takes would differ from others.
    pub fn decode(batch: &Bytes) -> Result<Vec<TransactionRecord>, Malformed> {
        let records = batch::records(batch)?.into_iter();
        records.map(|(key, value)| TransactionRecord::decode(key, value)).collect()
    }

    /// Applies the records of a batch that was accepted.
    pub fn apply(&mut self, records: Vec<TransactionRecord>) {
        for TransactionRecord { id, value } in records {
            let id: Arc<str> = Arc::from(id);
            self.set(&id, value);
            self.dirty.insert(id);
        }
    }

    fn set(&mut self, id: &Arc<str>, value: Option<TransactionValue>) {
        let key = records::key(id);
        let added = value.as_ref().map(records::encode);
        let value = value.map(Arc::new);
        let removed = match &value {
            Some(value) => self.ids.insert(id.clone(), value.clone()),
            None => self.ids.remove(id),
        };
        if let Some(removed) = &removed {
            assert!(self.order.set(id, removed, false), "{id} is not in its order: {removed:?}");
        }
        if let Some(value) = &value {
            assert!(self.order.set(id, value, true), "{id} is in its order already: {value:?}");
        }
        for value in [removed.map(|value| records::encode(&value)), added].into_iter().flatten() {
            self.checksum ^= record_hash(&key, &value);
        }
    }

    /// What changed since the last call, for the checkpoint: records' keys with their values now, `None` if gone.
    pub fn changes(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().map(|id| (records::key(id), self.ids.get(id).map(|value| records::encode(value)))).collect()
    }

    /// All that the store holds is to be in the next [`TransactionStore::changes`]: another shard's checkpoint begins with it.
    pub fn all_changed(&mut self) {
        self.dirty = self.ids.keys().cloned().collect();
    }

    /// The keys of everything that the store holds.
    pub fn live_keys(&self) -> impl Iterator<Item = Bytes> {
        self.ids.keys().map(|id| records::key(id))
    }

    /// Restores one record of a checkpoint.
    ///
    /// # Errors
    /// This release does not know such a record.
    pub fn restore(&mut self, key: Bytes, value: Bytes) -> Result<(), Malformed> {
        let TransactionRecord { id, value } = TransactionRecord::decode(key, Some(value))?;
        self.set(&Arc::from(id), value);
        Ok(())
    }

    /// Equal on every replica that applied the same entries.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        self.checksum
    }

    /// One transactional id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<TransactionValue>> {
        self.ids.get(id)
    }

    /// Ids whose open transaction times out at or before this time, oldest first, at most `count`.
    #[must_use]
    pub fn timed_out(&self, now_ms: i64, count: usize) -> Vec<Arc<str>> {
        first_until(&self.order.open, now_ms, count)
    }

    /// Ids at rest that changed last at or before this time, oldest first, at most `count`.
    #[must_use]
    pub fn unused_since(&self, time_ms: i64, count: usize) -> Vec<Arc<str>> {
        first_until(&self.order.at_rest, time_ms, count)
    }

    /// Ids whose markers are being written.
    pub fn prepared(&self) -> impl Iterator<Item = &Arc<str>> {
        self.order.prepared.iter()
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<TransactionValue>)> {
        self.ids.iter()
    }
}

fn first_until(set: &BTreeSet<(i64, Arc<str>)>, time_ms: i64, count: usize) -> Vec<Arc<str>> {
    set.iter().take_while(|(at, _)| *at <= time_ms).take(count).map(|(_, id)| id.clone()).collect()
}
