//! Reads of data that is not in the page cache: few at a time, in large spans, with readahead of the next span.
//!
//! So a consumer that replays old data neither occupies the threads that other readers need nor waits for one disk
//! request after the other. May not know: what is in the bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use ottla_env::disk::{File, read_exact_at};

/// Reads of a directory that may wait for its disk at the same time; further ones queue, first come first served.
const CONCURRENT_MAX: usize = 4;

/// Most bytes that are read with one call.
pub(crate) const SPAN_BYTES_MAX: usize = 1024 * 1024;

/// Bytes between two batches that are read along rather than skipped by a second call.
pub(crate) const SPAN_GAP_MAX: usize = 64 * 1024;

/// Readahead: bytes after a read that are requested from the disk in advance, for a sequential reader.
const READAHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Sequential readers whose windows are remembered, so that each range is requested in advance once.
const WINDOWS_MAX: usize = 32;

/// A range of a file that was requested from the disk in advance.
#[derive(Debug, Clone, Copy)]
struct ReadaheadWindow {
    file: u64,
    from: u64,
    to: u64,
}

/// The permits to read from a directory's disk, and the newest readahead windows.
#[derive(Debug)]
pub(crate) struct DiskReads {
    permits: Arc<Semaphore>,
    windows: Mutex<VecDeque<ReadaheadWindow>>,
}

impl Default for DiskReads {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(CONCURRENT_MAX)), windows: Mutex::default() }
    }
}

impl DiskReads {
    /// Waits for a permit to read; never `None`, for the semaphore is not closed.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Requests a range of file `number`, and the readahead after it, from the disk without waiting for it.
    pub(crate) fn read_ahead(&self, number: u64, file: &dyn File, start: u64, end: u64) {
        if let Some((from, to)) = self.window(number, start, end) {
            // Advice only, also about what lies beyond the end of the file: the read that follows reports errors.
            let _ = file.will_need(from, to - from);
        }
    }

    /// The range still to be requested so that `start..end` and enough after it are on their way; `None` if they are.
    fn window(&self, file: u64, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut windows = self.windows.lock();
        let known = windows.iter().position(|w| w.file == file && w.from <= start && start <= w.to);
        let requested_to = match known.and_then(|at| windows.remove(at)) {
            Some(window) if end + READAHEAD_BYTES / 2 <= window.to => {
                windows.push_back(window);
                return None;
            }
            Some(window) => window.to,
            None => start,
        };
        let to = end + READAHEAD_BYTES;
        windows.push_back(ReadaheadWindow { file, from: start, to });
        if windows.len() > WINDOWS_MAX {
            windows.pop_front();
        }
        Some((requested_to, to))
    }
}

/// Buffers that no read uses now: as many as there are permits, not one for each thread of the pool, which come and go.
static SPANS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Reads `bytes` at `start` with one call into a pooled buffer and calls `look` with them. On a blocking thread only.
pub(crate) fn with_span<T>(file: &dyn File, start: u64, bytes: usize, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut span = SPANS.lock().pop().unwrap_or_default();
    if span.len() < bytes {
        span.resize(bytes, 0);
    }
    let read = read_exact_at(file, &mut span[..bytes], start).map(|()| look(&span[..bytes]));
    let mut spans = SPANS.lock();
    // One batch may be larger than a span; its buffer is not kept.
    if span.len() <= SPAN_BYTES_MAX && spans.len() < CONCURRENT_MAX {
        spans.push(span);
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn readahead_is_requested_in_large_steps_and_once() {
        let reads = DiskReads::default();
        let mut requested = Vec::new();
        for step in 0..16 {
            requested.extend(reads.window(7, step * MIB, (step + 1) * MIB));
        }
        assert!(requested.len() <= 6, "{requested:?}");
        assert!(
            requested.windows(2).all(|pair| pair[0].1 == pair[1].0),
            "nothing twice, nothing left out: {requested:?}"
        );
        // Another reader, and another file, have windows of their own.
        assert_eq!(reads.window(7, 100 * MIB, 101 * MIB), Some((100 * MIB, 105 * MIB)));
        assert_eq!(reads.window(8, 0, MIB), Some((0, 5 * MIB)));
        assert_eq!(reads.window(7, 101 * MIB, 102 * MIB), None);
    }

    #[test]
    fn so_many_readers_have_windows_and_of_more_the_oldest_loses_its_own() {
        let reads = DiskReads::default();
        let readers = 0..u64::try_from(WINDOWS_MAX).unwrap();
        for file in readers.clone() {
            assert!(reads.window(file, 0, MIB).is_some());
        }
        assert!(readers.clone().all(|file| reads.window(file, MIB, 2 * MIB).is_none()));
        assert!(reads.window(readers.end, 0, MIB).is_some());
        assert_eq!(reads.window(0, 2 * MIB, 3 * MIB), Some((2 * MIB, 7 * MIB)), "it is forgotten");
    }
}
