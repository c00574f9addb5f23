//! The way of bytes from one simulated machine to another: delay, jitter, bandwidth, loss, and whether it is cut.
//!
//! All connections from one machine to another share their link's bandwidth. Bytes are never lost or reordered within a
//! connection: as with TCP, a lost packet arrives later, and so does what was sent while the link was cut. May not
//! know: connections.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use crate::sim::{elapsed, random_below};

/// The time after which a lost packet is sent again.
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// How links behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Shortest time from write to arrival.
    pub delay_min: Duration,
    /// Longest time from write to arrival, without waiting for bandwidth.
    pub delay_max: Duration,
    /// Bytes that a link carries a second; `None`: as many as are written.
    pub bytes_per_second: Option<u64>,
    /// Writes of which a packet is lost and sent again, of a thousand.
    pub loss_per_mille: u64,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_micros(50),
            delay_max: Duration::from_micros(500),
            bytes_per_second: None,
            loss_per_mille: 0,
        }
    }
}

fn random_duration(bound: Duration) -> Duration {
    Duration::from_nanos(random_below(u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX)))
}

#[derive(Default)]
struct State {
    is_cut: bool,
    /// When the link has carried everything that was written to it.
    busy_until: Duration,
    /// What was sent while the link was cut arrives from then on.
    resumes_at: Duration,
    /// Those that wait for the link to be restored.
    waiting: Vec<Waker>,
}

/// One direction between two machines.
#[derive(Default)]
pub(super) struct Link {
    state: Mutex<State>,
    conditions: Arc<Mutex<Conditions>>,
}

impl Link {
    pub(super) fn new(conditions: Arc<Mutex<Conditions>>) -> Self {
        Self { state: Mutex::default(), conditions }
    }

    /// A delay without bandwidth: that of a packet without content.
    pub(super) fn delay(&self) -> Duration {
        let conditions = *self.conditions.lock();
        let lost = random_below(1_000) < conditions.loss_per_mille;
        let jitter = random_duration(conditions.delay_max.saturating_sub(conditions.delay_min));
        conditions.delay_min + jitter + if lost { RETRANSMISSION } else { Duration::ZERO }
    }

    /// The time at which so many bytes arrive that are written now, not before `earliest`.
    pub(super) fn arrival(&self, bytes: usize, earliest: Duration) -> Duration {
        let bandwidth = self.conditions.lock().bytes_per_second;
        let sent_at = match bandwidth {
            None => elapsed(),
            Some(bandwidth) => {
                let nanos = 1_000_000_000 * bytes as u64 / bandwidth.max(1);
                let mut state = self.state.lock();
                state.busy_until = state.busy_until.max(elapsed()) + Duration::from_nanos(nanos);
                state.busy_until
            }
        };
        (sent_at + self.delay()).max(earliest)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }

    /// Registers a waker for the moment at which the link is restored, if it is cut; else returns how long what has
    /// been due still takes, because the link was cut meanwhile.
    pub(super) fn wait_while_cut(&self, waker: &Waker) -> Option<Duration> {
        let mut state = self.state.lock();
        if state.is_cut {
            state.waiting.push(waker.clone());
            return None;
        }
        Some(state.resumes_at.saturating_sub(elapsed()))
    }

    pub(super) fn cut(&self) {
        self.state.lock().is_cut = true;
    }

    pub(super) fn restore(&self) {
        let resumes_at = elapsed() + random_duration(RETRANSMISSION);
        let waiting = {
            let mut state = self.state.lock();
            if !state.is_cut {
                return;
            }
            (state.is_cut, state.resumes_at) = (false, resumes_at);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}
