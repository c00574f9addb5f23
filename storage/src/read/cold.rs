//! Reads that wait for the disk: few at a time, in large pieces, and with the next piece asked for ahead.
//!
//! A replay of old data so neither occupies the threads that others need nor waits for one request after the other.
//! May not know: what is in the bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::env::disk::{File, read_exact_at};

/// Reads of a directory that may wait for its disk at the same time; others queue in the order of asking.
const CONCURRENT_MAX: usize = 4;

/// Bytes that are read with one call.
pub(crate) const SPAN_BYTES_MAX: usize = 1024 * 1024;

/// Bytes between two batches that are read along rather than skipped by a second call.
pub(crate) const SPAN_GAP_MAX: usize = 64 * 1024;

/// Bytes behind a read that the disk is asked for ahead: what a replay will want next.
const AHEAD_BYTES: u64 = 4 * 1024 * 1024;

/// Readers whose places are remembered, so that the disk is asked ahead once.
const WINDOWS_MAX: usize = 32;

/// A range of a file that the disk was asked for.
#[derive(Debug, Clone, Copy)]
struct Window {
    file: u64,
    from: u64,
    to: u64,
}

/// The turns at a directory's disk, and what it was asked for last.
#[derive(Debug)]
pub(crate) struct ColdReads {
    turns: Arc<Semaphore>,
    windows: Mutex<VecDeque<Window>>,
}

impl Default for ColdReads {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(CONCURRENT_MAX)), windows: Mutex::default() }
    }
}

impl ColdReads {
    /// Waits for a turn; `None` never, for the semaphore is not closed.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Asks the disk for a range of file `number` and for what a replay wants after it, without waiting.
    pub(crate) fn ask_ahead(&self, number: u64, file: &dyn File, start: u64, end: u64) {
        if let Some((from, to)) = self.window(number, start, end) {
            // Advice only, also about what lies beyond the end: the read that follows says what is wrong.
            let _ = file.will_need(from, to - from);
        }
    }

    /// What is still to be asked for so that `start..end` and enough behind it are on their way.
    fn window(&self, file: u64, start: u64, end: u64) -> Option<(u64, u64)> {
        let mut windows = self.windows.lock();
        let known = windows.iter().position(|w| w.file == file && w.from <= start && start <= w.to);
        let asked_to = match known.and_then(|at| windows.remove(at)) {
            Some(window) if end + AHEAD_BYTES / 2 <= window.to => {
                windows.push_back(window);
                return None;
            }
            Some(window) => window.to,
            None => start,
        };
        let to = end + AHEAD_BYTES;
        windows.push_back(Window { file, from: start, to });
        if windows.len() > WINDOWS_MAX {
            windows.pop_front();
        }
        Some((asked_to, to))
    }
}

/// Buffers between two reads: as many as read at a time, not one for each thread of the pool, which come and go.
static SPANS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Reads `bytes` at `start` with one call into a pooled buffer and shows them. On a blocking thread only.
pub(crate) fn with_span<T>(file: &dyn File, start: u64, bytes: usize, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
    let mut span = SPANS.lock().pop().unwrap_or_default();
    if span.len() < bytes {
        span.resize(bytes, 0);
    }
    let read = read_exact_at(file, &mut span[..bytes], start).map(|()| look(&span[..bytes]));
    let mut spans = SPANS.lock();
    // One batch may be larger than a span; its buffer need not stay.
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
    fn the_disk_is_asked_ahead_in_large_steps_and_once() {
        let cold = ColdReads::default();
        let mut asked = Vec::new();
        for step in 0..16 {
            asked.extend(cold.window(7, step * MIB, (step + 1) * MIB));
        }
        assert!(asked.len() <= 6, "{asked:?}");
        assert!(asked.windows(2).all(|pair| pair[0].1 == pair[1].0), "nothing twice, nothing left out: {asked:?}");
        // Another reader, and another file, have their own.
        assert_eq!(cold.window(7, 100 * MIB, 101 * MIB), Some((100 * MIB, 105 * MIB)));
        assert_eq!(cold.window(8, 0, MIB), Some((0, 5 * MIB)));
        assert_eq!(cold.window(7, 101 * MIB, 102 * MIB), None);
    }
}
