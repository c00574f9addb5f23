//! How much may be on its way to another node: follows what the way takes.
//!
//! It grows by what has arrived, while that takes little longer than the fastest did and the window was used; it is halved when
//! it takes much longer, for then what is sent queues somewhere: in front of a slow link, of a slow disk, of whatever else
//! uses the link. Pure: times are arguments. May not know: what is sent.

use std::time::Duration;

use ottla_env::rt::Instant;

/// The bounds of a window.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes on their way at first.
    pub first: usize,
    /// At least.
    pub min: usize,
    /// At most.
    pub max: usize,
    /// The window grows only while what is sent arrives at most so much later than the fastest did.
    pub queueing_low: Duration,
    /// It is halved when something arrives so much later than the fastest did.
    pub queueing_high: Duration,
}

/// Bytes that may be on their way.
#[derive(Debug)]
pub struct CongestionWindow {
    bounds: Bounds,
    bytes_max: usize,
    /// How long the fastest took.
    fastest: Option<Duration>,
    /// What was sent before this says nothing of the window as it is.
    changed_at: Instant,
}

impl CongestionWindow {
    /// A window that nothing is known of.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, bytes_max: bounds.first, fastest: None, changed_at: Instant(i64::MIN) }
    }

    /// Forgets how long the fastest took: the next arrival says it.
    pub fn measure_anew(&mut self) {
        self.fastest = None;
    }

    /// Bytes that may be on their way.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// So many bytes, sent at `sent_at` when `on_the_way` bytes were with them, have arrived `now`.
    pub fn note_arrival(&mut self, bytes: usize, on_the_way: usize, sent_at: Instant, now: Instant) {
        let took = now.since(sent_at);
        let fastest = self.fastest.map_or(took, |fastest| fastest.min(took));
        self.fastest = Some(fastest);
        let queueing = took.saturating_sub(fastest);
        if queueing > self.bounds.queueing_high && sent_at >= self.changed_at {
            if self.bytes_max == self.bounds.min {
                // Nothing of ours queues any more: the way is slower than it was.
                self.fastest = Some(took);
            }
            self.bytes_max = (self.bytes_max / 2).max(self.bounds.min);
            self.changed_at = now;
        } else if queueing <= self.bounds.queueing_low && on_the_way >= self.bytes_max / 2 {
            self.bytes_max = (self.bytes_max + bytes).min(self.bounds.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn window() -> CongestionWindow {
        CongestionWindow::new(Bounds {
            first: MIB,
            min: MIB / 16,
            max: 16 * MIB,
            queueing_low: Duration::from_millis(100),
            queueing_high: Duration::from_millis(500),
        })
    }

    fn at(millis: i64) -> Instant {
        Instant(millis * 1_000_000)
    }

    fn grown() -> CongestionWindow {
        let mut window = window();
        (0..40).for_each(|n| window.note_arrival(MIB, window.bytes_max(), at(n), at(n + 40)));
        assert_eq!(window.bytes_max(), 16 * MIB);
        window
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut window = window();
        (0..40).for_each(|n| window.note_arrival(1_000, 1_000, at(n), at(n + 40)));
        assert_eq!(window.bytes_max(), MIB);
    }

    #[test]
    fn it_is_halved_once_for_what_was_on_its_way_together() {
        let mut window = grown();
        window.note_arrival(MIB, 16 * MIB, at(100), at(900));
        window.note_arrival(MIB, 16 * MIB, at(110), at(910));
        assert_eq!(window.bytes_max(), 8 * MIB);
        window.note_arrival(MIB, 8 * MIB, at(1_000), at(1_900));
        assert_eq!(window.bytes_max(), 4 * MIB);
    }

    #[test]
    fn a_way_that_has_become_slower_for_good_is_not_throttled_for_ever() {
        let mut window = grown();
        (1..9).for_each(|n| window.note_arrival(MIB, 16 * MIB, at(n * 1_000), at(n * 1_000 + 900)));
        assert_eq!(window.bytes_max(), MIB / 16);
        (9..20).for_each(|n| window.note_arrival(MIB, 16 * MIB, at(n * 1_000), at(n * 1_000 + 900)));
        assert!(window.bytes_max() > MIB, "{window:?}");
    }
}
