//! The transactions of one partition (KIP-98, KIP-890): which are open, which were aborted, and what apply decides about
//! a batch that would open one and about the marker that ends one.
//!
//! ```text
//!  batch   carries the number of its producer's last marker, as the leader read it before it asked the coordinator
//!          another marker since: refused, since the answer was about an earlier transaction
//!  marker  closes the transaction, aborted ones are listed; none open: nothing is appended, but late batches are refused
//! ```
//! Markers are numbered per partition, not by the shard's log: a partition that moves gets a log with other numbers. Pure,
//! as apply is (design section 7). May not know: coordinators, who asks them, how a batch is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_env::mutants::{self, Bug};
use ottla_protocol::ids::{Offset, ProducerId};

use super::producer_state::ProducerHistory;
use crate::shared_map::SharedMap;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The transaction is committed, else aborted.
    pub commits: bool,
    /// Epoch of the coordinator that wrote it.
    pub coordinator_epoch: i32,
    /// `transaction.version` under which the transaction ran; from 2 on the marker's epoch is the next transaction's.
    pub version: u8,
}

/// What apply does with a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerVerdict {
    /// It ends the transaction that begins here: append it.
    Ends(Offset),
    /// None is open: remember epochs and number, append nothing.
    NoneOpen,
    /// A newer coordinator has written a marker.
    CoordinatorFenced,
    /// The producer has gone on, or the open transaction is the one after.
    ProducerFenced,
}

/// A transaction that was aborted, as readers of committed data are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: ProducerId,
    /// Offset of its first record.
    pub first_offset: Offset,
    /// Offset of its marker.
    pub last_offset: Offset,
    /// Last stable offset once it was aborted: later aborted ones begin there or behind.
    pub last_stable: Offset,
}

/// The aborted transactions of a partition by the offset of their marker; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct AbortedIndex(SharedMap<Offset, AbortedTransaction>);

impl AbortedIndex {
    /// Those with records in `from..to`, by first offset.
    #[must_use]
    pub fn within(&self, from: Offset, to: Offset) -> Vec<AbortedTransaction> {
        let mut found = Vec::new();
        for (_, aborted) in self.0.iter_at(self.0.position(&from)) {
            let is_passed_over = mutants::is_on(Bug::AbortedNotListed) && aborted.first_offset < from;
            if aborted.first_offset < to && !is_passed_over {
                found.push(*aborted);
            }
            if aborted.last_stable >= to {
                break;
            }
        }
        found.sort_unstable_by_key(|aborted| (aborted.first_offset, aborted.last_offset));
        found
    }

    /// Adds one.
    pub fn add(&mut self, aborted: AbortedTransaction) {
        self.0.insert(aborted.last_offset, aborted);
    }

    /// Removes those whose marker is below the log start, and returns the offsets of their markers.
    pub fn prune(&mut self, log_start: Offset) -> Vec<Offset> {
        let below: Vec<Offset> = self.0.keys().take_while(|at| **at < log_start).copied().collect();
        for at in &below {
            self.0.remove(at);
        }
        below
    }

    /// By the offset of its marker.
    #[must_use]
    pub fn get(&self, last_offset: Offset) -> Option<&AbortedTransaction> {
        self.0.get(&last_offset)
    }

    /// All of them, by marker.
    pub fn iter(&self) -> impl Iterator<Item = &AbortedTransaction> {
        self.0.values()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The transactions of one partition, apart from what each producer's history has.
#[derive(Debug, Clone, Default)]
pub struct PartitionTransactions {
    /// Open ones by first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// Number of the partition's last marker; 0: there was none.
    pub(crate) last_marker: u64,
    /// The greatest number of a marker of a producer that is not remembered any more.
    pub(crate) forgotten_marker: u64,
    /// Those aborted above the log start. Readers share it: what they hold stays as it is.
    pub(crate) aborted: Arc<AbortedIndex>,
}

impl PartitionTransactions {
    /// Of a partition that had these markers; what is open and aborted is added.
    #[must_use]
    pub fn restored(last_marker: u64, forgotten_marker: u64) -> Self {
        Self { last_marker, forgotten_marker, ..Self::default() }
    }

    /// First offset of the oldest open transaction.
    #[must_use]
    pub fn first_unstable(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// How many are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The number of a producer's last marker: what a batch carries that opens a transaction.
    #[must_use]
    pub fn marker_number(&self, history: Option<&ProducerHistory>) -> u64 {
        match history.map_or(0, |history| history.last_marker) {
            0 => self.forgotten_marker,
            number => number,
        }
    }

    /// A producer's transaction begins with this record.
    ///
    /// # Panics
    /// When another one begins there.
    pub fn opened(&mut self, producer: ProducerId, first: Offset) {
        let other = self.open.insert(first, producer);
        assert!(other.is_none(), "two transactions begin at {}: of {other:?} and {producer:?}", first.0);
    }

    /// A transaction was ended by the marker with this offset, where one was appended. Returns the marker's number.
    pub fn ended(&mut self, producer: ProducerId, first: Offset, marker: &Marker, at: Offset) -> u64 {
        let was = self.open.remove(&first);
        assert_eq!(was, Some(producer), "the transaction that begins at {}", first.0);
        if !marker.commits {
            let last_stable = self.first_unstable().unwrap_or(at.plus(1));
            let aborted =
                AbortedTransaction { producer_id: producer, first_offset: first, last_offset: at, last_stable };
            Arc::make_mut(&mut self.aborted).add(aborted);
        }
        self.next_marker()
    }

    /// The number of a marker.
    pub fn next_marker(&mut self) -> u64 {
        self.last_marker += 1;
        self.last_marker
    }

    /// One that was aborted, from the checkpoint.
    pub fn restore_aborted(&mut self, aborted: AbortedTransaction) {
        Arc::make_mut(&mut self.aborted).add(aborted);
    }

    /// Forgets those that were aborted below the log start, and returns the offsets of their markers.
    pub fn prune(&mut self, log_start: Offset) -> Vec<Offset> {
        if self.aborted.is_empty() { Vec::new() } else { Arc::make_mut(&mut self.aborted).prune(log_start) }
    }

    /// A producer is forgotten, and its last marker's number is not.
    ///
    /// # Panics
    /// When it has an open transaction.
    pub fn forgotten(&mut self, history: &ProducerHistory) {
        assert!(!history.is_in_transaction(), "a producer with an open transaction is forgotten");
        self.forgotten_marker = self.forgotten_marker.max(history.last_marker);
    }
}

/// What apply does with a marker of a producer that claims this epoch.
#[must_use]
pub fn judge_marker(history: Option<&ProducerHistory>, epoch: i16, marker: &Marker) -> MarkerVerdict {
    let Some(history) = history else { return MarkerVerdict::NoneOpen };
    if marker.coordinator_epoch < history.coordinator_epoch && !mutants::is_on(Bug::OldCoordinatorMarker) {
        return MarkerVerdict::CoordinatorFenced;
    }
    if epoch < history.epoch {
        return MarkerVerdict::ProducerFenced;
    }
    match history.transaction_start {
        None => MarkerVerdict::NoneOpen,
        // The transaction before has ended with this epoch, and this one was begun with it.
        Some(_) if marker.version >= 2 && epoch == history.epoch && !mutants::is_on(Bug::MarkerEndsNextTransaction) => {
            MarkerVerdict::ProducerFenced
        }
        Some(first) => MarkerVerdict::Ends(first),
    }
}
