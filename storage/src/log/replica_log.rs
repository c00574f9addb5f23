//! One replica's handle on the log: append, vote, truncate, purge, verdicts, read.
//!
//! A change is visible in memory at once (entries can be read when `append` returns) and durable when the callback is
//! called or the future completes.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use ottla_protocol::batch::is_whole;
use tokio::sync::oneshot;

use super::frame::{self, DESCRIPTOR_BYTES, FRAME_BYTES_MAX, HEAD_BYTES, Kind, padded};
use super::frame_body::{from_raw, to_raw};
use super::queue::{Done, Queued, closed};
use super::reader::read_by_page;
use super::replay::greater_vote;
use super::replica::{Replica, Slot, entry_bytes};
use super::segments::Segment;
use super::shared::Shared;
use super::types::{EntryPlace, EntryRange, FrameBody, LogFailure, OnSynced, RecoveryPoint};
use super::{Inner, blocking};
use crate::entry::{Entry, EntryVerdicts, Vote};
use crate::ids::{LogId, LogPosition, RaftIndex, ReplicaId};
use ottla_env::disk::{is_unreadable, read_exact_at};
use ottla_env::mutants::{self, Bug};

/// Batches whose verdicts share a frame, about.
const VERDICTS_PER_FRAME: usize = 50_000;

/// One replica's part of the log; a cheap handle.
#[derive(Clone)]
pub struct ReplicaLog {
    replica: Arc<Replica>,
    shared: Arc<Shared>,
    /// Keeps the writer alive.
    _inner: Arc<Inner>,
}

impl std::fmt::Debug for ReplicaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaLog").field("replica", &self.replica.id).finish_non_exhaustive()
    }
}

fn invalid(what: String) -> LogFailure {
    LogFailure { operation: "append", kind: io::ErrorKind::InvalidInput, message: what }
}

fn removed(replica: ReplicaId) -> LogFailure {
    let message = format!("replica {replica} was removed");
    LogFailure { operation: "append", kind: io::ErrorKind::NotFound, message }
}

/// Where a read finds an entry: in memory, or at a position in the log.
pub(super) enum Source {
    Cached(Entry),
    Placed(EntryPlace, LogId),
}

/// Which records a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    Sound,
    AsTheyAre,
}

impl ReplicaLog {
    pub(super) fn new(replica: Arc<Replica>, shared: Arc<Shared>, inner: Arc<Inner>) -> Self {
        Self { replica, shared, _inner: inner }
    }

    /// The replica.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.replica.id
    }

    /// The creation payload of its group.
    #[must_use]
    pub fn creation(&self) -> Bytes {
        self.replica.creation.clone()
    }

    /// Coordinator and metadata replicas: first in every commit, up to a quarter of it.
    pub fn set_priority(&self, first: bool) {
        self.replica.set_priority(first);
    }

    /// True if it lost bytes that may have been acknowledged (I11).
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.replica.state.lock().lost
    }

    /// Marks the replica as lost, durably: it takes no part any more, and is found lost at the next start.
    pub async fn mark_lost(&self) -> io::Result<()> {
        let mark = |state: &mut super::replica::ReplicaState, _| {
            state.lost = true;
            0
        };
        self.write_with(FrameBody::Lost, mark).await.map(drop)
    }

    /// Accepts its loss: a checkpoint with its next recovery point replaces what was before.
    pub fn accept_loss(&self) {
        self.replica.state.lock().lost = false;
    }

    /// True if its removal is queued: no frame of it is written any more.
    pub(crate) fn is_removed(&self) -> bool {
        self.replica.state.lock().removed
    }

    /// Appends entries, readable when this returns; `on_synced` is called when they are durable. Indexes are consecutive;
    /// an index that exists already voids the entries there and above.
    pub fn append(&self, entries: Vec<Entry>, on_synced: OnSynced) {
        if let Err((failure, done)) = self.try_append(entries, Done::Callback(Some(on_synced))) {
            done.report(Err(&failure));
        }
    }

    fn try_append(&self, entries: Vec<Entry>, mut done: Done) -> Result<(), (LogFailure, Done)> {
        if let Err(failure) = self.check(&entries) {
            return Err((failure, done));
        }
        if entries.is_empty() {
            done.report(Ok(self.shared.durable_upto()));
            return Ok(());
        }
        let mut state = self.replica.state.lock();
        if state.removed {
            return Err((removed(self.replica.id), done));
        }
        let first = entries[0].log_id.index.0;
        if !state.may_follow(first) {
            let last = state.last_log_id();
            return Err((invalid(format!("entry {first} cannot follow {last:?}")), done));
        }
        let count = entries.len();
        let mut queued = Vec::with_capacity(count);
        for (number, entry) in entries.iter().enumerate() {
            let sequence = state.next_sequence + number as u64;
            let last = number + 1 == count;
            let callback = if last { std::mem::replace(&mut done, Done::Ignored) } else { Done::Ignored };
            queued.push(Queued::new(&self.replica, sequence, to_raw(FrameBody::Entry(entry.clone())), callback));
        }
        let bell = match self.shared.queue.push(queued) {
            Ok(bell) => bell,
            Err((failure, frames)) => {
                let done = frames.into_iter().next_back().map_or(Done::Ignored, |frame| frame.done);
                return Err((failure, done));
            }
        };
        let (mut added, mut freed) = (0, 0);
        for entry in entries {
            let sequence = state.take_sequence();
            let bytes = entry_bytes(&entry);
            added += bytes;
            let id = entry.log_id;
            let slot = Slot { term: id.term, sequence, place: None, cached: Some(entry), bytes, moving: false };
            freed += state.push(id.index.0, slot);
        }
        self.shared.cache.added(added);
        self.shared.cache.freed(freed);
        drop(state);
        drop(bell);
        Ok(())
    }

    /// Checks that can refuse an append before anything is changed.
    pub(super) fn check(&self, entries: &[Entry]) -> Result<(), LogFailure> {
        for (number, entry) in entries.iter().enumerate() {
            if entry.log_id.index.0 != entries[0].log_id.index.0 + number as u64 {
                return Err(invalid(format!("entry {} does not follow the one before it", entry.log_id)));
            }
            if let Some(batch) = entry.batches.iter().find(|batch| !is_whole(&batch.data)) {
                return Err(invalid(format!(
                    "entry {}: a batch of {} has a wrong length",
                    entry.log_id, batch.partition
                )));
            }
            let described: usize = entry.batches.iter().map(|b| b.data.len() + DESCRIPTOR_BYTES).sum();
            let bytes = HEAD_BYTES + entry.payload.len() + described;
            // An entry longer than a segment gets a segment of its size: only one longer than any frame is refused.
            if padded(bytes) > FRAME_BYTES_MAX {
                return Err(invalid(format!("entry {}: {bytes} bytes, a frame has {FRAME_BYTES_MAX}", entry.log_id)));
            }
        }
        Ok(())
    }

    /// Queues a frame that is no entry, with a change to the state; waits until it is durable.
    async fn write_with(
        &self,
        body: FrameBody,
        change: impl FnOnce(&mut super::replica::ReplicaState, u64) -> usize,
    ) -> io::Result<LogPosition> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.replica.state.lock();
            let removes = matches!(body, FrameBody::Remove);
            // A caller that stopped waiting for a removal may repeat it.
            if state.removed && !removes {
                return Err(removed(self.replica.id).to_io_error());
            }
            let queued = Queued::new(&self.replica, state.next_sequence, to_raw(body), Done::Place(Some(sender)));
            let bell = match self.shared.queue.push(vec![queued]) {
                Ok(bell) => bell,
                Err((failure, _)) => return Err(failure.to_io_error()),
            };
            state.removed |= removes;
            let sequence = state.take_sequence();
            let freed = change(&mut state, sequence);
            self.shared.cache.freed(freed);
            drop(state);
            drop(bell);
        }
        receiver.await.unwrap_or_else(|_| Err(closed().to_io_error()))
    }

    pub(super) async fn write(&self, body: FrameBody) -> io::Result<LogPosition> {
        self.write_with(body, |_, _| 0).await
    }

    /// Makes a vote durable.
    pub async fn save_vote(&self, vote: Vote) -> io::Result<()> {
        let writing = self.write(FrameBody::Vote(vote));
        if mutants::is_on(Bug::VoteNotPersisted) || mutants::is_on(Bug::VoteNotSynced) {
            if mutants::is_on(Bug::VoteNotSynced) {
                drop(writing.now_or_never());
            }
            let mut state = self.replica.state.lock();
            state.vote = greater_vote(state.vote, vote);
            return Ok(());
        }
        writing.await.map(drop)
    }

    /// Voids the entries after `last` (all, if `None`); durable when this returns.
    pub async fn truncate_after(&self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index.0 + 1);
        let last = match last {
            Some(LogId { term, index }) if mutants::is_on(Bug::TruncationBelowCommit) => {
                Some(LogId { term, index: RaftIndex(index.0.saturating_sub(1)) })
            }
            last => last,
        };
        self.write_with(FrameBody::Truncate(last), move |state, by| state.void_from(from, by)).await.map(drop)
    }

    /// Forgets the entries up to `upto`, which may lie beyond the last one. Their data stays where it is.
    pub async fn purge(&self, upto: LogId) -> io::Result<()> {
        if self.purged().is_some_and(|purged| purged >= upto) {
            return Ok(());
        }
        self.write_with(FrameBody::Purge(upto), move |state, by| state.purge(upto, by)).await.map(drop)
    }

    pub(super) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Reads the in-memory state of the log.
    pub(super) fn with_state<T>(&self, look: impl FnOnce(&super::replica::ReplicaState) -> T) -> T {
        look(&self.replica.state.lock())
    }

    /// The newest durable vote.
    #[must_use]
    pub fn vote(&self) -> Option<Vote> {
        self.replica.state.lock().vote
    }

    /// The newest entry, or the purge point.
    #[must_use]
    pub fn last_log_id(&self) -> Option<LogId> {
        self.replica.state.lock().last_log_id()
    }

    /// The newest durable entry, or the purge point.
    #[must_use]
    pub fn last_synced(&self) -> Option<LogId> {
        self.replica.state.lock().last_synced()
    }

    /// Up to where entries are purged.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        self.replica.state.lock().purged
    }

    /// The id of one entry, without reading it.
    #[must_use]
    pub fn log_id(&self, index: RaftIndex) -> Option<LogId> {
        self.replica.state.lock().log_id(index)
    }

    /// Entries of `range` from the front, stopping before `bytes_max` is passed but after at least one. An entry with
    /// damaged records is an error.
    pub async fn read(&self, range: EntryRange, bytes_max: usize) -> io::Result<Vec<Entry>> {
        self.read_with(range, bytes_max, Records::Sound).await
    }

    /// As [`Self::read`], but an entry is returned although its records are damaged: its command and the headers of its
    /// batches are sound. Such records must never reach a peer or a client.
    pub async fn read_to_apply(&self, range: EntryRange, bytes_max: usize) -> io::Result<Vec<Entry>> {
        self.read_with(range, bytes_max, Records::AsTheyAre).await
    }

    async fn read_with(&self, range: EntryRange, bytes_max: usize, records: Records) -> io::Result<Vec<Entry>> {
        self.read_sources(self.sources(range, bytes_max), records).await
    }

    pub(super) async fn read_sources(&self, sources: Vec<Source>, records: Records) -> io::Result<Vec<Entry>> {
        if sources.iter().all(|source| matches!(source, Source::Cached(_))) {
            return Ok(sources.into_iter().filter_map(cached).collect());
        }
        let shared = self.shared.clone();
        let replica = self.replica.id;
        blocking(&*self.shared.disk, move || {
            let read = |source| match source {
                Source::Cached(entry) => Ok(entry),
                Source::Placed(place, id) => {
                    let segment = shared.segments.get(place.position.segment);
                    let segment = segment.ok_or_else(|| damaged(id, "its segment is gone"))?;
                    read_entry(&segment, place, replica, id, records)
                }
            };
            sources.into_iter().map(read).collect()
        })
        .await
    }

    /// The entries that a read returns, and their sources.
    fn sources(&self, range: EntryRange, bytes_max: usize) -> Vec<Source> {
        let state = self.replica.state.lock();
        let mut bytes = 0;
        let mut sources = Vec::new();
        for index in range.first.0..=range.last.0 {
            let Some(slot) = state.slot(RaftIndex(index)) else { break };
            bytes += slot.place.map_or(slot.bytes, |place| place.frame_bytes as usize);
            if bytes > bytes_max && !sources.is_empty() {
                break;
            }
            sources.push(match (&slot.cached, slot.place) {
                (Some(entry), _) => Source::Cached(entry.clone()),
                (None, Some(place)) => Source::Placed(place, LogId { term: slot.term, index: RaftIndex(index) }),
                (None, None) => break,
            });
        }
        sources
    }

    /// The position of a durable entry.
    #[must_use]
    pub fn place_of(&self, index: RaftIndex) -> Option<EntryPlace> {
        self.replica.state.lock().slot(index)?.place
    }

    /// Returns when the entry is durable (an entry may be committed by others before it is durable here). `NotFound` if
    /// there is none.
    pub async fn placed(&self, index: RaftIndex) -> io::Result<EntryPlace> {
        loop {
            let waiting = {
                let mut state = self.replica.state.lock();
                let Some(slot) = state.slot(index) else {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("no entry {}", index.0)));
                };
                match slot.place.filter(|_| !slot.moving) {
                    Some(place) => return Ok(place),
                    None => {
                        let sequence = slot.sequence;
                        state.wait_for(sequence)
                    }
                }
            };
            if let Some(failure) = self.shared.queue.failure() {
                return Err(failure.to_io_error());
            }
            waiting.await.map_err(|_| closed().to_io_error())?;
        }
    }

    /// The position of a durable entry, which is final from now on: the entry is not relocated any more. `None` while the
    /// position is not known. Reads nothing: callers hold locks that requests wait for.
    #[must_use]
    pub fn final_place(&self, index: RaftIndex) -> Option<EntryPlace> {
        self.replica.state.lock().fix_place(index)?.place
    }

    /// Makes verdicts durable; returns the positions of their frames.
    pub async fn write_verdicts(&self, verdicts: Vec<EntryVerdicts>) -> io::Result<Vec<LogPosition>> {
        let mut places = Vec::new();
        let mut chunk = Vec::new();
        let mut batches = 0;
        let count = verdicts.len();
        for (number, mut entry) in verdicts.into_iter().enumerate() {
            entry.relocated_to = self.relocated_to(entry.log_id.index);
            batches += entry.verdicts.len() + 1;
            chunk.push(entry);
            if batches >= VERDICTS_PER_FRAME || number + 1 == count {
                places.push(self.write(FrameBody::Verdicts(std::mem::take(&mut chunk))).await?);
                batches = 0;
            }
        }
        Ok(places)
    }

    /// The recovery point of this replica, by what is purged and durable now.
    #[must_use]
    pub fn recovery_point(&self) -> RecoveryPoint {
        recovery_point_of(&self.replica, self.shared.resume_from(), None)
    }

    /// As [`Self::recovery_point`], for a checkpoint that contains the entries up to `upto`, which may be missing here:
    /// frames before it do not count for them.
    #[must_use]
    pub fn recovery_point_after(&self, upto: LogId) -> RecoveryPoint {
        recovery_point_of(&self.replica, self.shared.resume_from(), Some(upto))
    }

    /// Continues the log after `upto`: a checkpoint with [`Self::recovery_point_after`] is durable and replaces what was
    /// before.
    pub fn begin_after(&self, upto: LogId) {
        let mut state = self.replica.state.lock();
        let freed = state.purge(upto, 0);
        state.purged_synced = state.purged_synced.max(Some(upto));
        drop(state);
        self.shared.cache.freed(freed);
    }

    /// The last entry after which more than `bytes` of the whole log, of all replicas, were written. A relocated entry is
    /// no reason to keep those after it.
    #[must_use]
    pub fn behind(&self, bytes: u64) -> Option<LogId> {
        let before = self.shared.place_behind(bytes);
        let state = self.replica.state.lock();
        let is_behind = |slot: &Slot| slot.place.is_some_and(|place| place.position < before);
        let is_relocated = |at: usize| state.relocated.contains(&(state.first_index + at as u64));
        let mut last = None;
        for (at, slot) in state.slots.iter().enumerate() {
            if is_behind(slot) {
                last = Some(LogId { term: slot.term, index: RaftIndex(state.first_index + at as u64) });
            } else if !is_relocated(at) {
                break;
            }
        }
        last
    }

    /// The lowest place of an entry above `index`, or of any.
    pub(crate) fn lowest_place_above(&self, index: Option<RaftIndex>) -> Option<LogPosition> {
        let state = self.replica.state.lock();
        let standing = state.standing(index);
        let slots = standing.first.into_iter().chain(standing.relocated);
        slots.filter_map(|slot| Some(slot.place?.position)).min()
    }

    /// Bytes waiting for the writer.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.shared.queue.bytes_of(self.replica.id) as u64
    }
}

/// The recovery point of what is durable: one that ran ahead of the log would bring back what the log voids.
/// `durable` must have been read before: it may be less than what is durable now, never more. Entries up to `released`
/// count as purged.
pub(super) fn recovery_point_of(replica: &Replica, durable: LogPosition, released: Option<LogId>) -> RecoveryPoint {
    let state = replica.state.lock();
    let needed = state.needed(released.map(|id| id.index));
    let (sequence, mut position) = match needed.first {
        Some(Slot { sequence, place: Some(place), .. }) => (sequence - 1, commit_of(place).min(durable)),
        Some(slot) => (state.synced_sequence.min(slot.sequence - 1), durable),
        None => (state.synced_sequence, durable),
    };
    // Everything after the first entry in log order is found anyway.
    let mut kept = Vec::new();
    for slot in needed.relocated.into_iter().filter(|slot| slot.sequence <= sequence) {
        kept.push(slot.sequence);
        position = slot.place.map_or(position, |place| commit_of(&place).min(position));
    }
    RecoveryPoint {
        replica: replica.id,
        creation: replica.creation.clone(),
        sequence,
        kept: stretches(kept),
        position,
        vote: state.vote,
        purged: state.purged_synced.max(released),
        lost: state.lost,
    }
}

/// First byte of the commit that holds a frame.
fn commit_of(place: &EntryPlace) -> LogPosition {
    LogPosition { byte: place.commit_byte, ..place.position }
}

/// The ranges of consecutive numbers, first and last of each.
fn stretches(mut numbers: Vec<u64>) -> Vec<(u64, u64)> {
    numbers.sort_unstable();
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match stretches.last_mut() {
            Some((_, last)) if *last + 1 >= number => *last = number,
            _ => stretches.push((number, number)),
        }
    }
    stretches
}

fn cached(source: Source) -> Option<Entry> {
    match source {
        Source::Cached(entry) => Some(entry),
        Source::Placed(..) => None,
    }
}

fn damaged(id: LogId, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("entry {id} cannot be read: {what}"))
}

/// Reads one entry and checks every sum of it, those of records only if they matter.
fn read_entry(
    segment: &Segment,
    place: EntryPlace,
    replica: ReplicaId,
    id: LogId,
    records: Records,
) -> io::Result<Entry> {
    let mut buf = BytesMut::zeroed(place.frame_bytes as usize);
    let at = u64::from(place.position.byte);
    match read_exact_at(&*segment.file, &mut buf, at) {
        // The frame may have all that is asked for on its other pages.
        Err(error) if is_unreadable(&error) => read_by_page(&*segment.file, &mut buf, at),
        read => read?,
    }
    let decoded = frame::decode(&buf.freeze(), 0, segment.incarnation);
    let decoded = decoded.ok_or_else(|| damaged(id, "its frame is damaged"))?;
    if records == Records::Sound && !decoded.damaged_batches.is_empty() {
        return Err(damaged(id, "a record batch is damaged"));
    }
    if decoded.stamp.replica != replica || decoded.frame.kind != Kind::Entry {
        return Err(damaged(id, "another frame lies there"));
    }
    match from_raw(decoded.frame, replica) {
        Some(FrameBody::Entry(entry)) if entry.log_id == id => Ok(entry),
        _ => Err(damaged(id, "another entry lies there")),
    }
}
