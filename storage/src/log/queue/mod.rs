//! The queue of the writer: one lane per replica, served by deficit round robin in bytes, metadata and coordinator
//! replicas first for up to a quarter of a commit.
//!
//! Pure but for the waker of the writer. May not know: how a commit is written.

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
use crate::ids::{LogPosition, ReplicaId};
use ottla_env::critical::count_panic;
use ottla_env::sync::Mutex;

/// Quantum: bytes that a lane may take per round before the next one is served.
const QUANTUM_BYTES: usize = 64 << 10;
/// Priority lanes are served first for this part of a commit.
const PRIORITY_SHARE: usize = 4;
/// Bytes that a further replica adds to a commit's header, now and in the next commit.
pub(crate) const HEADER_BYTES_PER_REPLICA: usize = 32;

/// A queued frame.
pub(crate) struct Queued {
    pub(crate) replica: Arc<Replica>,
    pub(crate) sequence: u64,
    pub(crate) frame: RawFrame,
    /// Length with padding.
    pub(crate) bytes: usize,
    pub(crate) done: Done,
}

/// How to report that a frame is durable, or never will be.
pub(crate) enum Done {
    Ignored,
    Callback(Option<OnSynced>),
    Place(Option<oneshot::Sender<io::Result<LogPosition>>>),
}

impl Drop for Done {
    /// The writer panicked while it held the frame: without this the append would wait for ever.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.answer(Err(&LogFailure::of_task("the writer panicked")));
        }
    }
}

impl Done {
    /// Reports the result.
    pub(crate) fn report(mut self, result: Result<LogPosition, &LogFailure>) {
        self.answer(result);
    }

    /// Reports the result, if that was not done. A callback that panics must not stop the log.
    fn answer(&mut self, result: Result<LogPosition, &LogFailure>) {
        let result = result.map_err(LogFailure::to_io_error);
        match self {
            Done::Ignored => {}
            Done::Place(sender) => drop(sender.take().map(|sender| sender.send(result))),
            Done::Callback(on_synced) => {
                let Some(on_synced) = on_synced.take() else { return };
                if std::panic::catch_unwind(AssertUnwindSafe(|| on_synced(result.map(drop)))).is_err() {
                    count_panic("log-callback");
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

/// Limits of one commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Bytes of frames in an ordinary commit.
    pub(crate) commit_bytes: usize,
    /// Bytes of frames that the segment still holds.
    pub(crate) segment_bytes: usize,
}

/// The next work of the writer.
pub(crate) enum Work {
    Frames(Vec<Queued>),
    /// The next frame does not fit into the segment; the longest frame at the front of a lane has so many bytes.
    Roll {
        frame_bytes: usize,
    },
    /// The segment is to end early, if it is still this one.
    EndSegment(u64),
    /// The queue is empty and closed.
    Closed,
}

#[derive(Default)]
struct Lane {
    frames: VecDeque<Queued>,
    deficit: usize,
    /// Its turn has begun, and was cut by the end of a commit: it has its quantum already.
    in_turn: bool,
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

/// Wakes the writer when dropped; must be dropped after all locks are released.
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
    /// Adds frames of one replica, in order; returns them if the log has stopped.
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
                let roll = || Work::Roll { frame_bytes: state.lanes.largest_front_bytes() };
                return Poll::Ready(if frames.is_empty() { roll() } else { Work::Frames(frames) });
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

    /// Requests that the segment is sealed early; ignored if it is not the active one.
    pub(crate) fn end_segment(&self, segment: u64) -> Bell {
        let mut state = self.state.lock();
        state.ending = Some(segment);
        Bell(state.writer.take())
    }

    /// Closes the queue: further frames are refused, those that are queued are still written.
    pub(crate) fn close(&self) -> Bell {
        let mut state = self.state.lock();
        state.closed = true;
        Bell(state.writer.take())
    }

    /// Stops the queue because the log failed: returns all queued frames, and refuses further ones.
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

/// The error of a closed log.
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

    /// The longest of the frames at the front of their lanes: in a segment that holds it the next one fits, whichever lane
    /// is served.
    fn largest_front_bytes(&self) -> usize {
        self.by_replica.values().filter_map(|lane| lane.frames.front()).map(|frame| frame.bytes).max().unwrap_or(0)
    }

    /// The frames of the next commit, at least one unless the segment has no room for it. With the bytes that they add to
    /// the commit's header they never exceed the room in the segment.
    fn pick(&mut self, room: Room) -> Vec<Queued> {
        let mut taken = Vec::new();
        let headers = self.rounds.iter().map(VecDeque::len).sum::<usize>() * HEADER_BYTES_PER_REPLICA;
        let alone = room.segment_bytes.saturating_sub(HEADER_BYTES_PER_REPLICA);
        let whole = room.commit_bytes.min(room.segment_bytes.saturating_sub(headers));
        let bytes_of = |taken: &[Queued]| taken.iter().map(|frame| frame.bytes).sum::<usize>();
        let mut share = whole / PRIORITY_SHARE;
        self.pick_round(0, &mut share, &mut taken, alone);
        let mut left = whole.saturating_sub(bytes_of(&taken));
        self.pick_round(1, &mut left, &mut taken, alone);
        self.pick_round(0, &mut left, &mut taken, alone);
        self.bytes -= bytes_of(&taken);
        taken
    }

    /// Serves one class until `room` is used up. A commit's first frame may have up to `alone_bytes`, and is alone in the
    /// commit then.
    fn pick_round(&mut self, round: usize, room: &mut usize, taken: &mut Vec<Queued>, alone_bytes: usize) {
        while let Some(&id) = self.rounds[round].front() {
            let Some(lane) = self.by_replica.get_mut(&id) else {
                self.rounds[round].pop_front();
                continue;
            };
            if !std::mem::replace(&mut lane.in_turn, true) {
                lane.deficit += QUANTUM_BYTES;
            }
            while let Some(front) = lane.frames.front() {
                let bytes = front.bytes;
                let alone = taken.is_empty() && bytes <= alone_bytes;
                if bytes > *room && !alone {
                    return;
                }
                if bytes > lane.deficit {
                    break;
                }
                lane.deficit -= bytes;
                *room = room.saturating_sub(bytes);
                taken.extend(lane.frames.pop_front());
            }
            lane.in_turn = false;
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
