//! What waits for the writer: one lane per replica, served by deficit round robin in bytes, metadata and coordinator
//! replicas first for up to a quarter of a commit.
//!
//! Pure but for the bell that wakes the writer. May not know how a commit is written.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::oneshot;

use super::frame::{RawFrame, padded};
use super::replica::Replica;
use super::types::{LogFailure, OnSynced};
use crate::env::sync::Mutex;
use crate::ids::{LogPosition, ReplicaId};

/// What a lane may take per round before the next one has its turn.
const QUANTUM_BYTES: usize = 64 << 10;
/// Priority lanes go first for this part of a commit.
const PRIORITY_SHARE: usize = 4;
/// What a further replica adds to a commit's header, now and in the next commit.
const HEADER_BYTES_PER_REPLICA: usize = 32;

/// A frame that waits.
pub(crate) struct Queued {
    pub(crate) replica: Arc<Replica>,
    pub(crate) sequence: u64,
    pub(crate) frame: RawFrame,
    /// Length with padding.
    pub(crate) bytes: usize,
    pub(crate) done: Done,
}

/// Who is told when a frame is durable, or never will be.
pub(crate) enum Done {
    Nobody,
    Callback(OnSynced),
    Place(oneshot::Sender<io::Result<LogPosition>>),
}

impl Done {
    /// Tells. A caller that panics must not take the log with it.
    pub(crate) fn tell(self, result: Result<LogPosition, &LogFailure>) {
        let result = result.map_err(LogFailure::to_io_error);
        match self {
            Done::Nobody => {}
            Done::Place(sender) => drop(sender.send(result)),
            Done::Callback(on_synced) => {
                if std::panic::catch_unwind(AssertUnwindSafe(|| on_synced(result.map(drop)))).is_err() {
                    tracing::error!("a callback of the log panicked");
                }
            }
        }
    }
}

impl Queued {
    pub(crate) fn new(replica: &Arc<Replica>, sequence: u64, frame: RawFrame, done: Done) -> Self {
        let bytes = padded(frame.frame_bytes());
        Self { replica: replica.clone(), sequence, frame, bytes, done }
    }
}

/// How much a commit may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes of frames in an ordinary commit.
    pub(crate) commit_bytes: usize,
    /// Bytes of frames that the segment still holds.
    pub(crate) segment_bytes: usize,
}

/// What the writer is to do next.
pub(crate) enum Work {
    Frames(Vec<Queued>),
    /// The next frame does not fit into the segment.
    Roll,
    /// The segment is to end early, if it is still this one.
    EndSegment(u64),
    /// Nothing waits and nothing will come.
    Closed,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<Queued>,
    deficit: usize,
}

#[derive(Default)]
struct Lanes {
    by_replica: BTreeMap<ReplicaId, Lane>,
    /// Replicas with frames, in turn: priority, others.
    rounds: [VecDeque<ReplicaId>; 2],
    bytes: usize,
}

#[derive(Default)]
struct State {
    lanes: Lanes,
    closed: bool,
    /// The segment that is to end early.
    ending: Option<u64>,
    failure: Option<LogFailure>,
    writer: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

/// Wakes the writer when dropped; hold it until no lock is held.
#[must_use]
pub(crate) struct Bell(Option<Waker>);

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

impl Queue {
    /// Adds frames of one replica, in order; gives them back if the log has stopped.
    pub(crate) fn push(&self, frames: Vec<Queued>) -> Result<Bell, (LogFailure, Vec<Queued>)> {
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err((failure.clone(), frames));
        }
        if state.closed {
            return Err((closed(), frames));
        }
        frames.into_iter().for_each(|frame| state.lanes.push(frame));
        Ok(Bell(state.writer.take()))
    }

    /// Waits for work.
    pub(crate) async fn next(&self, room: Room) -> Work {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if let Some(segment) = state.ending.take() {
                return Poll::Ready(Work::EndSegment(segment));
            }
            if !state.lanes.is_empty() {
                let frames = state.lanes.pick(room);
                return Poll::Ready(if frames.is_empty() { Work::Roll } else { Work::Frames(frames) });
            }
            if state.closed {
                return Poll::Ready(Work::Closed);
            }
            let replaced = state.writer.replace(cx.waker().clone());
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await
    }

    /// Returns when there is something to do.
    pub(crate) async fn some(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if !state.lanes.is_empty() || state.closed || state.ending.is_some() {
                return Poll::Ready(());
            }
            let replaced = state.writer.replace(cx.waker().clone());
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await;
    }

    /// True while a commit may wait for one of `expected`: ordinary frames wait, and none of that replica. `waker` is woken
    /// by the next frame.
    pub(crate) fn lacks(&self, expected: &[ReplicaId], waker: &Waker) -> bool {
        let mut state = self.state.lock();
        let lanes = &state.lanes;
        let hurry = state.closed || state.ending.is_some() || lanes.is_empty() || !lanes.rounds[0].is_empty();
        let lacks = !hurry && expected.iter().any(|id| !lanes.by_replica.contains_key(id));
        let replaced = if lacks { state.writer.replace(waker.clone()) } else { None };
        drop(state);
        drop(replaced);
        lacks
    }

    /// The segment ends with what is written; nothing happens if it is not the one that is written to.
    pub(crate) fn end_segment(&self, segment: u64) -> Bell {
        let mut state = self.state.lock();
        state.ending = Some(segment);
        Bell(state.writer.take())
    }

    /// No more frames are taken; those that wait are still written.
    pub(crate) fn close(&self) -> Bell {
        let mut state = self.state.lock();
        state.closed = true;
        Bell(state.writer.take())
    }

    /// The log has stopped: everything that waits is returned, everything that comes is refused.
    pub(crate) fn fail(&self, failure: LogFailure) -> Vec<Queued> {
        let mut state = self.state.lock();
        state.failure.get_or_insert(failure);
        state.lanes.take_all()
    }

    pub(crate) fn failure(&self) -> Option<LogFailure> {
        self.state.lock().failure.clone()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().lanes.bytes
    }

    /// Bytes of one replica's frames.
    pub(crate) fn bytes_of(&self, replica: ReplicaId) -> usize {
        let state = self.state.lock();
        state.lanes.by_replica.get(&replica).map_or(0, |lane| lane.frames.iter().map(|f| f.bytes).sum())
    }
}

/// Why a closed log refuses.
pub(crate) fn closed() -> LogFailure {
    LogFailure { operation: "use", kind: std::io::ErrorKind::NotConnected, message: "the log is closed".to_owned() }
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.rounds.iter().all(VecDeque::is_empty)
    }

    fn push(&mut self, frame: Queued) {
        let id = frame.replica.id;
        let round = usize::from(!frame.replica.has_priority());
        self.bytes += frame.bytes;
        let lane = self.by_replica.entry(id).or_default();
        if lane.frames.is_empty() {
            self.rounds[round].push_back(id);
        }
        lane.frames.push_back(frame);
    }

    fn take_all(&mut self) -> Vec<Queued> {
        self.rounds.iter_mut().for_each(VecDeque::clear);
        self.bytes = 0;
        std::mem::take(&mut self.by_replica).into_values().flat_map(|lane| lane.frames).collect()
    }

    /// The frames of the next commit, at least one unless the segment has no room for it.
    fn pick(&mut self, room: Room) -> Vec<Queued> {
        let mut taken = Vec::new();
        let headers = self.rounds.iter().map(VecDeque::len).sum::<usize>() * HEADER_BYTES_PER_REPLICA;
        let segment = room.segment_bytes.saturating_sub(headers);
        let whole = room.commit_bytes.min(segment);
        let mut left = whole;
        let mut share = whole / PRIORITY_SHARE;
        let before = share;
        self.pick_round(0, &mut share, &mut taken, segment);
        left = left.saturating_sub(before.saturating_sub(share));
        if taken.iter().map(|f| f.bytes).sum::<usize>() <= whole {
            self.pick_round(1, &mut left, &mut taken, segment);
            self.pick_round(0, &mut left, &mut taken, segment);
        }
        self.bytes -= taken.iter().map(|f| f.bytes).sum::<usize>();
        taken
    }

    /// Serves one class until `room` is used up. A commit's first frame may be larger than `room`.
    fn pick_round(&mut self, round: usize, room: &mut usize, taken: &mut Vec<Queued>, segment: usize) {
        while let Some(&id) = self.rounds[round].front() {
            let Some(lane) = self.by_replica.get_mut(&id) else {
                self.rounds[round].pop_front();
                continue;
            };
            lane.deficit += QUANTUM_BYTES;
            while let Some(front) = lane.frames.front() {
                let bytes = front.bytes;
                let alone = taken.is_empty() && bytes <= segment;
                if bytes > *room && !alone {
                    // Its turn goes on in the next commit, without a quantum more.
                    lane.deficit -= QUANTUM_BYTES.min(lane.deficit);
                    return;
                }
                if bytes > lane.deficit {
                    break;
                }
                lane.deficit -= bytes;
                *room = room.saturating_sub(bytes);
                taken.extend(lane.frames.pop_front());
            }
            self.rounds[round].pop_front();
            if lane.frames.is_empty() {
                self.by_replica.remove(&id);
            } else {
                self.rounds[round].push_back(id);
            }
        }
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
#[cfg(test)]
mod tests;
