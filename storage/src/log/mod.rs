//! The one log of a data directory: an append-only sequence of segments shared by the replicas of all shards.
//!
//! Invariant (I8): what recovery yields after any crash is, for each replica, a prefix of what was written that contains
//! everything synced. May not know what an entry means.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::entry::{Entry, EntryVerdicts, Vote};
use crate::env::disk::{Disk, File};
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId};

pub mod types;

pub use types::*;

/// A segment file, open for reading. Holding it pins it: an unlinked segment stays readable until it is dropped.
pub struct Segment {
    /// Its number.
    pub sequence: u64,
    /// Its file.
    pub file: Arc<dyn File>,
}

/// The log of a data directory; a cheap handle.
#[derive(Clone)]
pub struct Log {
    _private: (),
}

/// One replica's part of the log; a cheap handle.
#[derive(Clone)]
pub struct ReplicaLog {
    _private: (),
}

fn not_yet() -> io::Error {
    io::Error::from(io::ErrorKind::Unsupported)
}

#[allow(clippy::unused_async)]
impl Log {
    /// Opens or begins the log in `dir`: syncs and re-reads its tail, reads on from the floors, tells `sink` every whole
    /// frame from there (with no floors: of the whole log), and starts the writer.
    pub async fn open(
        _disk: Arc<dyn Disk>,
        dir: &Path,
        _options: LogOptions,
        _floors: Vec<ReplicaFloor>,
        _sink: &mut dyn FrameSink,
    ) -> Result<(Log, Vec<RecoveredReplica>), LogError> {
        Err(LogError::Io { path: dir.to_owned(), source: not_yet() })
    }
    /// Begins a replica's log; returns when the creation is durable. `AlreadyExists` if the id is known.
    pub async fn create_group(&self, _creation: GroupCreation) -> io::Result<ReplicaLog> {
        Err(not_yet())
    }
    /// Ends a replica's log; its id never comes back.
    pub async fn remove_group(&self, _replica: ReplicaId) -> io::Result<()> {
        Err(not_yet())
    }
    /// The log of a known replica.
    #[must_use]
    pub fn replica(&self, _replica: ReplicaId) -> Option<ReplicaLog> {
        None
    }
    /// All replicas of this directory.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        Vec::new()
    }
    /// Opens a segment for reading and pins it.
    #[must_use]
    pub fn segment(&self, _sequence: u64) -> Option<Arc<Segment>> {
        None
    }
    /// The segments that exist, oldest first; the last is the active one.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        Vec::new()
    }
    /// Removes a sealed segment. Refused (`ResourceBusy`) while Raft still needs an entry in or before it.
    pub async fn unlink(&self, _sequence: u64) -> io::Result<()> {
        Err(not_yet())
    }
    /// Tells `sink` every whole frame of a segment. `Err` for what cannot be read at all.
    pub async fn scan(&self, sequence: u64, _sink: &mut dyn FrameSink) -> Result<(), LogError> {
        Err(LogError::Segment(sequence, "not there"))
    }
    /// Everything before this place is durable.
    #[must_use]
    pub fn durable_upto(&self) -> LogPosition {
        LogPosition { segment: 0, byte: 0 }
    }
    /// Bytes that can be written without taking new space: the rest of the active segment and the prepared ones.
    #[must_use]
    pub fn headroom_bytes(&self) -> u64 {
        0
    }
    /// Tells the preparation of segments that space was freed.
    pub fn space_freed(&self) {}
    /// Why the log stopped for good, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<LogFailure> {
        None
    }
    /// Counters.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats::default()
    }
    /// Writes what waits, marks a clean end, and stops the writer.
    pub async fn close(&self) -> io::Result<()> {
        Ok(())
    }
}

#[allow(clippy::unused_async)]
impl ReplicaLog {
    /// The replica.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        ReplicaId(0)
    }
    /// What its group was created with.
    #[must_use]
    pub fn creation(&self) -> bytes::Bytes {
        bytes::Bytes::new()
    }
    /// Coordinator and metadata replicas: first in every commit, up to a quarter of it.
    pub fn set_priority(&self, _first: bool) {}
    /// Appends entries, readable when this returns; `on_synced` is called when they are durable. Indexes follow each
    /// other; one that exists already voids what was there and above.
    pub fn append(&self, _entries: Vec<Entry>, on_synced: OnSynced) {
        on_synced(Err(not_yet()));
    }
    /// Makes a vote durable.
    pub async fn save_vote(&self, _vote: Vote) -> io::Result<()> {
        Err(not_yet())
    }
    /// Voids the entries after `last` (all, if `None`); durable when this returns.
    pub async fn truncate_after(&self, _last: Option<LogId>) -> io::Result<()> {
        Err(not_yet())
    }
    /// Forgets the entries up to `upto`, which may lie beyond the last one. Their data stays where it is.
    pub async fn purge(&self, _upto: LogId) -> io::Result<()> {
        Err(not_yet())
    }
    /// The newest vote.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        None
    }
    /// The newest entry, or what was purged.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        None
    }
    /// The newest entry that is durable, or what was purged.
    #[must_use]
    pub fn last_synced(&self) -> Option<LogId> {
        None
    }
    /// Up to where entries are purged.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        None
    }
    /// The id of one entry, without reading it.
    #[must_use]
    pub fn log_id(&self, _index: RaftIndex) -> Option<LogId> {
        None
    }
    /// Entries of `range` from the front, stopping before `bytes_max` is passed but after at least one.
    pub async fn read(&self, _range: EntryRange, _bytes_max: usize) -> io::Result<Vec<Entry>> {
        Err(not_yet())
    }
    /// Where a durable entry lies.
    #[must_use]
    pub fn place_of(&self, _index: RaftIndex) -> Option<EntryPlace> {
        None
    }
    /// Where the batches of a durable entry lie, in the entry's order.
    #[must_use]
    pub fn batch_places(&self, _index: RaftIndex) -> Option<Vec<BatchPlace>> {
        None
    }
    /// Makes verdicts durable; returns where the frames lie.
    pub async fn write_verdicts(&self, _verdicts: Vec<EntryVerdicts>) -> io::Result<Vec<LogPosition>> {
        Err(not_yet())
    }
    /// From where this replica's recovery may begin, given what is purged and durable now.
    #[must_use]
    pub fn floor(&self) -> ReplicaFloor {
        ReplicaFloor {
            replica: ReplicaId(0),
            creation: bytes::Bytes::new(),
            sequence: 0,
            position: LogPosition { segment: 0, byte: 0 },
            vote: None,
            purged: None,
            lost: false,
        }
    }
    /// Bytes waiting for the writer.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        0
    }
}
mod body;
mod commit;
mod frame;
mod segment_header;
