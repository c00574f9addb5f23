//! What a replica keeps of a partition of an internal topic: the state that its records make.
//!
//! Readers share it with apply, under a lock. In a checkpoint it is rows of Kafka's keys and values. May not know: what is in
//! the records.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::group::{GroupStore, Malformed};
use super::transaction::TransactionStore;

/// What the partitions of a shard keep beside their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeps {
    /// Nothing: they belong to clients.
    #[default]
    Records,
    /// Consumer groups: partitions of `__consumer_offsets`.
    Groups,
    /// Transactional ids: partitions of `__transaction_state`.
    Transactions,
}

/// What one partition keeps; cheap to clone.
#[derive(Debug, Clone)]
pub enum Kept {
    /// Its groups.
    Groups(Arc<Mutex<GroupStore>>),
    /// Its transactional ids.
    Transactions(Arc<Mutex<TransactionStore>>),
}

impl Kept {
    /// Of a new partition.
    #[must_use]
    pub fn new(keeps: Keeps) -> Option<Self> {
        match keeps {
            Keeps::Records => None,
            Keeps::Groups => Some(Self::Groups(Arc::default())),
            Keeps::Transactions => Some(Self::Transactions(Arc::default())),
        }
    }

    /// The groups, if it keeps groups.
    #[must_use]
    pub fn groups(&self) -> Option<&Arc<Mutex<GroupStore>>> {
        match self {
            Self::Groups(groups) => Some(groups),
            Self::Transactions(_) => None,
        }
    }

    /// The transactional ids, if it keeps these.
    #[must_use]
    pub fn transactions(&self) -> Option<&Arc<Mutex<TransactionStore>>> {
        match self {
            Self::Transactions(transactions) => Some(transactions),
            Self::Groups(_) => None,
        }
    }

    /// What changed since the last call, for the checkpoint: keys with their values now, `None` if gone.
    pub(crate) fn changes(&self) -> Vec<(Bytes, Option<Bytes>)> {
        match self {
            Self::Groups(groups) => groups.lock().changes(),
            Self::Transactions(transactions) => transactions.lock().changes(),
        }
    }

    /// All of it is to be in the next changes: another shard's checkpoint begins with it.
    pub(crate) fn all_changed(&self) {
        match self {
            Self::Groups(groups) => groups.lock().all_changed(),
            Self::Transactions(transactions) => transactions.lock().all_changed(),
        }
    }

    /// The keys of everything.
    pub(crate) fn live_keys(&self) -> Vec<Bytes> {
        match self {
            Self::Groups(groups) => groups.lock().live_keys(),
            Self::Transactions(transactions) => transactions.lock().live_keys().collect(),
        }
    }

    /// Equal on every replica that applied the same entries.
    pub(crate) fn checksum(&self) -> u64 {
        match self {
            Self::Groups(groups) => groups.lock().checksum(),
            Self::Transactions(transactions) => transactions.lock().checksum(),
        }
    }

    /// Restores one row of a checkpoint.
    pub(crate) fn restore(&self, key: Bytes, value: Bytes) -> Result<(), Malformed> {
        match self {
            Self::Groups(groups) => groups.lock().restore(key, value),
            Self::Transactions(transactions) => transactions.lock().restore(key, value),
        }
    }

    /// Exchanges what both keep: readers of this one see the other's from now on.
    ///
    /// # Panics
    /// When they are of two kinds: a partition never changes its own.
    pub(crate) fn swap(&self, other: &Self) {
        match (self, other) {
            (Self::Groups(own), Self::Groups(other)) => std::mem::swap(&mut *own.lock(), &mut *other.lock()),
            (Self::Transactions(own), Self::Transactions(other)) => {
                std::mem::swap(&mut *own.lock(), &mut *other.lock());
            }
            _ => panic!("a partition keeps {self:?}, and {other:?} comes for it"),
        }
    }
}
