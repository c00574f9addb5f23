//! Preparation (preallocation) of segments ahead of the writer: zeroed at a throttled rate, durable under final names.
//!
//! The writer never extends a file: where the next frame needs a segment above the usual size, the first prepared one
//! is made as long as that before it is handed over. When the disk is full preparation waits for space to be freed;
//! ordinary preparation does not use the reserve; only a blocked writer may use it (Raft's own commands free the
//! space).

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::prepared_mark::PreparedMark;
use super::segments::segment_path;
use super::types::LogOptions;
use ottla_env::disk::{Disk, File, OpenMode, PAGE_BYTES};
use ottla_env::rt;
use ottla_env::sync::Mutex;

/// Zeroes are synced in chunks so small that a concurrent commit's sync hardly waits: 4 MiB delayed it by 3 ms.
const ZERO_CHUNK_BYTES: usize = 1 << 20;
/// Zeroing stops for a segment when the writer has written this much more than twice what was zeroed meanwhile: it would
/// come too late for most of the file, and compete with data for the disk.
const WRITER_AHEAD_BYTES: u64 = 16 << 20;
/// How long preparation waits after a failure if no space is freed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A file that is ready to become the next segment.
pub(crate) struct Prepared {
    pub(crate) sequence: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
}

/// The next work of the preparer.
enum Want {
    Make(u64),
    /// The writer needs so many bytes in the segment that is next.
    Extend(Prepared, u64),
}

#[derive(Default)]
struct State {
    ready: VecDeque<Prepared>,
    next_sequence: u64,
    /// The writer is blocked until a segment is prepared.
    urgent: bool,
    /// Size of the segment that the writer waits for, at least.
    needed_bytes: u64,
    closed: bool,
    finished: bool,
    space_freed: bool,
    stalled: bool,
    preparer: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Preparation {
    state: Mutex<State>,
    /// Bytes that the writer has written in all.
    written_bytes: AtomicU64,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Preparation {
    /// `ready`: segments that an earlier process prepared, oldest first.
    pub(crate) fn new(next_sequence: u64, ready: VecDeque<Prepared>) -> Self {
        let state = State { next_sequence, ready, ..State::default() };
        Self { state: Mutex::new(state), written_bytes: AtomicU64::new(0) }
    }

    /// The next segment, of at least `bytes_min`, as soon as there is one; `None` if the log closes and there will be
    /// none.
    pub(crate) async fn take(&self, bytes_min: u64) -> Option<Prepared> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            let fits = state.ready.front().is_some_and(|prepared| prepared.file_bytes >= bytes_min);
            let prepared = if fits { state.ready.pop_front() } else { None };
            state.urgent = prepared.is_none();
            state.needed_bytes = bytes_min;
            if prepared.is_some() || (state.closed && state.stalled) {
                let waker = state.preparer.take();
                drop(state);
                wake(waker);
                return Poll::Ready(prepared);
            }
            let replaced = state.writer.replace(cx.waker().clone());
            let waker = state.preparer.take();
            drop(state);
            drop(replaced);
            wake(waker);
            Poll::Pending
        })
        .await
    }

    /// Returns a segment in which nothing was written yet: it is the next one again.
    pub(crate) fn put_back(&self, prepared: Prepared) {
        self.state.lock().ready.push_front(prepared);
    }

    /// Records that the writer has written so many bytes more.
    pub(crate) fn written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn ready_count(&self) -> u64 {
        self.state.lock().ready.len() as u64
    }

    pub(crate) fn space_freed(&self) {
        self.change(|state| state.space_freed = true);
    }

    /// Begins the end of the log: what the writer still needs is prepared if possible.
    pub(crate) fn close(&self) {
        self.change(|state| state.closed = true);
    }

    /// Ends the preparation: the writer has ended.
    pub(crate) fn finish(&self) {
        self.change(|state| state.finished = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let wakers = (state.preparer.take(), state.writer.take());
        drop(state);
        wake(wakers.0);
        wake(wakers.1);
    }

    fn is_urgent(&self) -> bool {
        let state = self.state.lock();
        state.urgent || state.closed
    }

    /// Whether zeroing goes on after `zeroed` bytes, if the writer was at `begin` when it began.
    fn may_zero(&self, begin: u64, zeroed: u64) -> bool {
        let written = self.written_bytes.load(Ordering::Relaxed).saturating_sub(begin);
        !self.is_urgent() && written <= 2 * zeroed + WRITER_AHEAD_BYTES
    }

    /// Waits until a segment is wanted; `None` at the end.
    async fn wanted(&self, prepared_segments: u32) -> Option<Want> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.finished {
                return Poll::Ready(None);
            }
            let needed_bytes = state.needed_bytes;
            let is_short = state.ready.front().is_some_and(|prepared| prepared.file_bytes < needed_bytes);
            if state.urgent && is_short {
                let extend = state.ready.pop_front().map(|prepared| Want::Extend(prepared, needed_bytes));
                return Poll::Ready(extend);
            }
            let few = state.ready.len() < prepared_segments as usize && !state.closed;
            if few || (state.urgent && state.ready.is_empty()) {
                return Poll::Ready(Some(Want::Make(state.next_sequence)));
            }
            let replaced = state.preparer.replace(cx.waker().clone());
            drop(state);
            drop(replaced);
            Poll::Pending
        })
        .await
    }

    /// Waits until another attempt makes sense.
    async fn another_chance(&self) {
        let freed = poll_fn(|cx| {
            let mut state = self.state.lock();
            if std::mem::take(&mut state.space_freed) || state.finished {
                return Poll::Ready(());
            }
            let replaced = state.preparer.replace(cx.waker().clone());
            drop(state);
            drop(replaced);
            Poll::Pending
        });
        let _ = rt::timeout(RETRY_AFTER, freed).await;
    }
}

/// Takes the space for a segment file and makes it durable, zeroed if `zero` still wants it.
pub(crate) async fn make_segment(
    disk: &dyn Disk,
    dir: &Path,
    sequence: u64,
    options: &LogOptions,
    zero: impl Fn() -> bool,
) -> io::Result<Prepared> {
    let path = segment_path(dir, sequence);
    let file = disk.open(&path, OpenMode::CreateNew)?;
    let mark = PreparedMark { sequence, boot_id: disk.boot_id() };
    let made = fill(&*file, mark, options, zero).await.and_then(|()| disk.sync_dir(dir));
    match made {
        Ok(()) => Ok(Prepared { sequence, file, path, file_bytes: u64::from(options.segment_bytes) }),
        Err(e) => {
            // Best effort: recovery takes a leftover for a segment that was never begun.
            let _ = disk.unlink(&path);
            Err(e)
        }
    }
}

async fn fill(file: &dyn File, mark: PreparedMark, options: &LogOptions, zero: impl Fn() -> bool) -> io::Result<()> {
    let bytes = u64::from(options.segment_bytes);
    // The mark comes first: a killed process leaves no file of full length without it.
    file.write_at(&mark.encode(), 0)?;
    file.preallocate(bytes)?;
    file.sync_data().await?;
    let rate = options.zero_ahead_bytes_per_second;
    if rate == 0 || !zero() {
        return Ok(());
    }
    let zeroes = vec![0; ZERO_CHUNK_BYTES.min(options.segment_bytes as usize)];
    let mut written = PAGE_BYTES as u64;
    while written < bytes && zero() {
        let take = zeroes.len().min(usize::try_from(bytes - written).unwrap_or(usize::MAX));
        file.write_at(&zeroes[..take], written)?;
        written += take as u64;
        file.sync_data().await?;
        rt::sleep(Duration::from_nanos((take as u64).saturating_mul(1_000_000_000) / rate)).await;
    }
    Ok(())
}

/// Prepares segments until the log ends.
pub(crate) async fn run(disk: Arc<dyn Disk>, dir: PathBuf, options: LogOptions, preparation: Arc<Preparation>) {
    while let Some(want) = preparation.wanted(options.prepared_segments).await {
        let made = match want {
            Want::Make(sequence) => {
                attempt(&*disk, &dir, sequence, &options, &preparation).await.map_err(|e| (e, None))
            }
            Want::Extend(prepared, bytes) => extend(&*disk, &dir, prepared, bytes).await,
        };
        let (ready, error) = match made {
            Ok(prepared) => (Some(prepared), None),
            Err((error, as_it_was)) => (as_it_was, Some(error)),
        };
        if let Some(e) = &error {
            tracing::warn!(dir = %dir.display(), error = %e, "cannot prepare the next segment: free space");
        }
        {
            let mut state = preparation.state.lock();
            state.stalled = error.is_some();
            if let Some(prepared) = ready {
                let is_new = prepared.sequence >= state.next_sequence;
                state.next_sequence = state.next_sequence.max(prepared.sequence + 1);
                if is_new { state.ready.push_back(prepared) } else { state.ready.push_front(prepared) }
            }
            let waker = state.writer.take();
            drop(state);
            wake(waker);
        }
        if error.is_some() {
            preparation.another_chance().await;
        }
    }
}

/// Extends a segment in which nothing was written yet; returns it unchanged if there is no space.
async fn extend(
    disk: &dyn Disk,
    dir: &Path,
    prepared: Prepared,
    bytes: u64,
) -> Result<Prepared, (io::Error, Option<Prepared>)> {
    let more = bytes.saturating_sub(prepared.file_bytes);
    let extended = async {
        // The writer is blocked on it: the reserve is for this case.
        let free = disk.space(dir)?.free_bytes;
        if free < more {
            let message = format!("{free} bytes free, {more} more wanted for a segment of {bytes}");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        prepared.file.preallocate(bytes)?;
        prepared.file.sync_data().await
    };
    match extended.await {
        Ok(()) => Ok(Prepared { file_bytes: bytes, ..prepared }),
        Err(error) => Err((error, Some(prepared))),
    }
}

async fn attempt(
    disk: &dyn Disk,
    dir: &Path,
    sequence: u64,
    options: &LogOptions,
    preparation: &Preparation,
) -> io::Result<Prepared> {
    let free = disk.space(dir)?.free_bytes;
    let reserve = if preparation.is_urgent() { 0 } else { options.reserve_bytes };
    if free < u64::from(options.segment_bytes).saturating_add(reserve) {
        let message = format!("{free} bytes free, {} wanted and {reserve} in reserve", options.segment_bytes);
        return Err(io::Error::new(io::ErrorKind::StorageFull, message));
    }
    let (begin, chunks) = (preparation.written_bytes.load(Ordering::Relaxed), Cell::new(0));
    // Called once before each chunk.
    let may_zero = move || preparation.may_zero(begin, chunks.replace(chunks.get() + 1) * ZERO_CHUNK_BYTES as u64);
    make_segment(disk, dir, sequence, options, may_zero).await
}

#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroing_gives_way_to_a_writer_that_is_faster() {
        let preparation = Preparation::new(1, VecDeque::new());
        preparation.written(1 << 30);
        let begin = preparation.written_bytes.load(Ordering::Relaxed);
        assert!(preparation.may_zero(begin, 0));
        preparation.written(WRITER_AHEAD_BYTES + (2 << 20));
        assert!(preparation.may_zero(begin, 1 << 20), "half as fast as the writer, behind its start");
        preparation.written(1);
        assert!(!preparation.may_zero(begin, 1 << 20));
    }
}
