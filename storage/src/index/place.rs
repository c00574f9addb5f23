//! Where what is applied lies, once it is durable.
//!
//! An entry is applied when most replicas have it, which may be before it is durable here; until then its batches are served from
//! memory. Batches of a partition get their places in the order of their offsets. After a merge the first ones may be another
//! replica's: its shard is a log of its own, and what follows in the survivor's may be durable here before them.
//!
//! May not know: what moves a partition from one replica to another.

use std::collections::BTreeMap;
use std::io;

use super::batch_index::{BatchIndex, ReplicaIndex, UnplacedEntry, check_place};
use crate::ids::{RaftIndex, ReplicaId};
use crate::log::EntryPlace;

/// An entry that is to get its place before one of another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaited {
    /// The entry that waits.
    pub(crate) waiting: RaftIndex,
    /// Who wrote the one that it waits for, which is not durable yet.
    pub(crate) writer: ReplicaId,
    pub(crate) index: RaftIndex,
}

impl BatchIndex {
    /// Assigns positions to what has become durable of a replica, and before it to what others of the directory wrote earlier of the
    /// same partitions. Returns what the first entry without a place waits for, if that is another replica's. After an error the
    /// index must not be used any more.
    pub(crate) fn place_durable(
        &self,
        replica: ReplicaId,
        place_of: impl Fn(ReplicaId, RaftIndex) -> Option<EntryPlace>,
    ) -> io::Result<Option<Awaited>> {
        self.place(&mut self.replicas.lock(), replica, &place_of)
    }

    /// True if every applied entry of the replica up to `upto` has its place.
    pub(crate) fn is_placed(&self, replica: ReplicaId, upto: RaftIndex) -> bool {
        is_placed(&self.replicas.lock(), replica, upto)
    }

    /// An entry waits for earlier ones alone, so that the recursion ends.
    pub(super) fn place(
        &self,
        replicas: &mut BTreeMap<ReplicaId, ReplicaIndex>,
        replica: ReplicaId,
        place_of: &dyn Fn(ReplicaId, RaftIndex) -> Option<EntryPlace>,
    ) -> io::Result<Option<Awaited>> {
        while let Some(entry) = replicas.get(&replica).and_then(|state| state.unplaced.front()) {
            let waiting = entry.index;
            if let Some((writer, index)) = self.written_before(replica, entry) {
                let is_here = replicas.contains_key(&writer);
                assert!(
                    is_here,
                    "replica {replica}, entry {}: replica {writer} left without a place for entry {}",
                    waiting.0, index.0
                );
                let awaited = self.place(replicas, writer, place_of)?;
                if !is_placed(replicas, writer, index) {
                    let awaited = awaited.unwrap_or(Awaited { waiting, writer, index });
                    return Ok(Some(Awaited { waiting, ..awaited }));
                }
                continue;
            }
            let Some(place) = place_of(replica, waiting) else { break };
            check_place(replica, waiting, &entry.layout, place)?;
            let Some(entry) = replicas.get_mut(&replica).and_then(|state| state.unplaced.pop_front()) else { break };
            for (number, key) in entry.keys {
                let partition = self.partition_or_new(key);
                let mut partition = partition.write();
                // What is dead is not waited for.
                let Some(mut unplaced) = partition.unplaced.pop_front() else { continue };
                let (found, wanted) = ((unplaced.writer, unplaced.index), (replica, entry.index));
                assert_eq!(found, wanted, "{}: the entry whose batch is placed next", key.partition);
                unplaced.indexed.position = entry.layout.batch_at(number, place);
                self.push(&mut partition, key, (replica, entry.index), &unplaced.indexed)?;
            }
        }
        Ok(None)
    }

    /// The newest entry of another replica that comes before this one in a partition.
    fn written_before(&self, replica: ReplicaId, entry: &UnplacedEntry) -> Option<(ReplicaId, RaftIndex)> {
        entry.keys.iter().find_map(|(_, key)| {
            let partition = self.partition(*key)?;
            let partition = partition.read();
            let writer = partition.unplaced.front().map(|first| first.writer).filter(|writer| *writer != replica)?;
            let its = partition.unplaced.iter().take_while(|unplaced| unplaced.writer == writer);
            its.last().map(|last| (writer, last.index))
        })
    }
}

fn is_placed(replicas: &BTreeMap<ReplicaId, ReplicaIndex>, replica: ReplicaId, upto: RaftIndex) -> bool {
    let first = replicas.get(&replica).and_then(|state| state.unplaced.front());
    first.is_none_or(|first| first.index > upto)
}
