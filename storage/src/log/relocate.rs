//! Relocation: entries that wait long to be applied are written again at the tail, so that a shard without a quorum does
//! not hold back the segments of all others.
//!
//! A copy keeps its number, so recovery finds the same log wherever it lies. The old frame counts until the copy is
//! durable; from then on recovery points name the copy ([`super::types::RecoveryPoint::kept`]). Entries that the index
//! or verdicts refer to are not relocated.

use std::io;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::frame_body::to_raw;
use super::queue::{Done, Queued, closed};
use super::replica_log::{Records, ReplicaLog, Source};
use super::types::{EntryPlace, FrameBody};
use crate::entry::Entry;
use crate::ids::{LogId, LogPosition, RaftIndex};

/// An entry that lies too far back.
struct Far {
    id: LogId,
    sequence: u64,
    place: EntryPlace,
}

impl ReplicaLog {
    /// Relocates entries above `applied` that lie before `before`, about `bytes_max` of them; returns how many bytes, when
    /// they are durable at the tail. An entry that cannot be read is not relocated, nor are those after it.
    pub(crate) async fn relocate(
        &self,
        applied: Option<RaftIndex>,
        before: LogPosition,
        bytes_max: u64,
    ) -> io::Result<u64> {
        let far = self.far(applied, before, bytes_max);
        let mut entries = Vec::with_capacity(far.len());
        for far in far {
            let source = Source::Placed(far.place, far.id);
            match self.read_sources(vec![source], Records::Sound).await {
                Ok(read) if self.check(&read).is_ok() => {
                    entries.extend(read.into_iter().map(|entry| (far.sequence, far.place, entry)))
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(replica = %self.id(), %error, "an entry that waits cannot be relocated: it holds its segment");
                    break;
                }
            }
        }
        self.move_to_tail(entries).await
    }

    fn far(&self, applied: Option<RaftIndex>, before: LogPosition, bytes_max: u64) -> Vec<Far> {
        self.with_state(|state| {
            let first = applied.max(state.fixed).map_or(state.first_index, |last| last.0.saturating_add(1));
            let mut bytes = 0;
            let mut far = Vec::new();
            for index in first.max(state.first_index)..state.end_index() {
                let Some(slot) = state.slot(RaftIndex(index)) else { break };
                let Some(place) = slot.place else { break };
                if place.position >= before {
                    // Copies lie before the frames that follow in log order.
                    if state.relocated.contains(&index) {
                        continue;
                    }
                    break;
                }
                if bytes >= bytes_max {
                    break;
                }
                bytes += u64::from(place.frame_bytes);
                if !slot.moving {
                    let id = LogId { term: slot.term, index: RaftIndex(index) };
                    far.push(Far { id, sequence: slot.sequence, place });
                }
            }
            far
        })
    }

    /// Queues copies of the entries that still exist and are not applied; waits until they are durable.
    async fn move_to_tail(&self, entries: Vec<(u64, EntryPlace, Entry)>) -> io::Result<u64> {
        let (sender, receiver) = oneshot::channel();
        let mut bytes = 0;
        {
            let mut state = self.replica().state.lock();
            let mut queued = Vec::with_capacity(entries.len());
            for (sequence, place, entry) in entries {
                let Some(slot) = state.may_move(entry.log_id.index, sequence, place) else { continue };
                slot.moving = true;
                bytes += u64::from(place.frame_bytes);
                queued.push(Queued::new(self.replica(), sequence, to_raw(FrameBody::Entry(entry)), Done::Ignored));
            }
            let Some(last) = queued.last_mut() else { return Ok(0) };
            last.done = Done::Place(Some(sender));
            let pushed = self.shared().queue.push(queued);
            drop(state);
            drop(pushed.map_err(|(failure, _)| failure.to_io_error())?);
        }
        receiver.await.unwrap_or_else(|_| Err(closed().to_io_error()))?;
        self.shared().counters.relocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Returns when no copy of an entry up to `last` is being written: verdicts name the final position.
    pub(crate) async fn at_rest(&self, last: RaftIndex) -> io::Result<()> {
        loop {
            let moving = self.with_state(|state| {
                let upto = last.0.saturating_add(1).min(state.end_index());
                let is_moving = |index: &u64| state.slot(RaftIndex(*index)).is_some_and(|slot| slot.moving);
                let first = state.fixed.map_or(0, |fixed| fixed.0.saturating_add(1)).max(state.first_index);
                (first..upto).find(is_moving)
            });
            let Some(index) = moving else { return Ok(()) };
            match self.placed(RaftIndex(index)).await {
                // It was voided meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                outcome => drop(outcome?),
            }
        }
    }

    /// The segment with the copy of an entry, if it was relocated.
    pub(super) fn relocated_to(&self, index: RaftIndex) -> Option<u64> {
        self.with_state(|state| {
            let place = state.slot(index)?.place?;
            state.relocated.contains(&index.0).then_some(place.position.segment)
        })
    }
}
