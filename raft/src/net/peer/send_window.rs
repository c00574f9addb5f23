//! What is on its way over one connection: the receiver says how many bytes it has received, and the sender has no more on their
//! way than the link takes without a queue. So whatever else uses the link, heartbeats above all, does not wait behind bulk
//! that was written long ago.
//!
//! A node that speaks version 2 of messages says nothing; to such a node everything is written at once, and counts as received
//! when it is written. May not know: what the bytes mean.

use std::collections::VecDeque;
use std::time::Duration;

use ottla_env::rt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::net::congestion_window::{Bounds, CongestionWindow};

/// The version from which on a receiver says what it has received.
pub(super) const RECEIPTS_SINCE: u8 = 3;
/// A receiver says it after so many bytes, or after so long if it has received anything.
pub(super) const RECEIPT_BYTES: u64 = 128 << 10;
pub(super) const RECEIPT_INTERVAL: Duration = Duration::from_millis(50);

const BOUNDS: Bounds = Bounds {
    first: 512 << 10,
    min: 128 << 10,
    max: 64 << 20,
    queueing_low: Duration::from_millis(100),
    queueing_high: Duration::from_millis(250),
};

// What arrives late only because its receipt waits does not look like a queue.
const _: () = assert!(BOUNDS.queueing_low.as_millis() >= 2 * RECEIPT_INTERVAL.as_millis());
// A sender that waits for room is told of what it has sent.
const _: () = assert!(BOUNDS.min as u64 >= RECEIPT_BYTES);

/// Bytes written together, until they have arrived.
struct Written {
    end: u64,
    at: rt::Instant,
    /// Bytes on their way then, these included.
    on_the_way: usize,
}

struct State {
    window: CongestionWindow,
    written: u64,
    received: u64,
    under_way: VecDeque<Written>,
}

/// The bytes on their way over one connection.
pub(super) struct SendWindow {
    has_receipts: bool,
    state: Mutex<State>,
    arrived: Notify,
}

fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl SendWindow {
    /// Of a connection whose ends speak this version.
    pub(super) fn new(version: u8) -> Self {
        let window = CongestionWindow::new(BOUNDS);
        let state = State { window, written: 0, received: 0, under_way: VecDeque::new() };
        Self { has_receipts: version >= RECEIPTS_SINCE, state: Mutex::new(state), arrived: Notify::new() }
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.state.lock().written
    }

    /// Waits until more may be written; returns how much.
    pub(super) async fn room(&self) -> usize {
        if !self.has_receipts {
            return usize::MAX;
        }
        loop {
            let room = {
                let state = self.state.lock();
                let on_the_way = count(state.written - state.received);
                state.window.bytes_max().saturating_sub(on_the_way)
            };
            if room > 0 {
                return room;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) fn note_written(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.written += bytes as u64;
        if !self.has_receipts {
            state.received = state.written;
            return;
        }
        let (end, on_the_way) = (state.written, count(state.written - state.received));
        state.under_way.push_back(Written { end, at: rt::now(), on_the_way });
    }

    /// The receiver has received so many bytes in all; false if that cannot be.
    pub(super) fn note_received(&self, total: u64) -> bool {
        let mut state = self.state.lock();
        if total > state.written || total < state.received {
            return false;
        }
        let bytes = count(total - state.received);
        state.received = total;
        let mut last = None;
        while state.under_way.front().is_some_and(|written| written.end <= total) {
            last = state.under_way.pop_front();
        }
        if let Some(Written { at, on_the_way, .. }) = last {
            state.window.note_arrival(bytes, on_the_way, at, rt::now());
        }
        self.arrived.notify_one();
        true
    }

    /// True if everything up to this byte has been received.
    pub(super) fn has_received(&self, end: u64) -> bool {
        self.state.lock().received >= end
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use ottla_env::sim;

    use super::*;

    #[test]
    fn no_more_is_written_than_the_way_takes_until_it_has_been_received() {
        sim::run(1, || async {
            let window = SendWindow::new(RECEIPTS_SINCE);
            assert_eq!(window.room().await, BOUNDS.first);
            window.note_written(BOUNDS.first);
            assert!(window.room().now_or_never().is_none());
            assert!(window.note_received(100_000) && !window.has_received(100_001) && window.has_received(100_000));
            assert_eq!(window.room().await, 100_000);
            assert!(window.note_received(BOUNDS.first as u64));
            assert_eq!(window.room().await, 2 * BOUNDS.first - 100_000, "the window has grown by what came at once");
        });
    }

    #[test]
    fn a_receiver_that_says_what_cannot_be_is_not_believed() {
        sim::run(2, || async {
            let window = SendWindow::new(RECEIPTS_SINCE);
            window.note_written(10);
            assert!(!window.note_received(11));
            assert!(window.note_received(8));
            assert!(!window.note_received(7));
        });
    }

    #[test]
    fn to_a_node_of_version_2_everything_is_written_and_counts_as_received() {
        sim::run(3, || async {
            let window = SendWindow::new(2);
            window.note_written(1 << 30);
            assert!(window.has_received(1 << 30));
            assert_eq!(window.room().await, usize::MAX);
        });
    }
}
