//! The proposal window: the entries of a shard that were proposed and are not applied yet, in the order in which they were
//! proposed, and the rule by which another one may be proposed.
//!
//! - A full entry is proposed as long as entries and bytes in flight are below their limits: throughput is bound by bandwidth, not
//!   by round trips. The limit of bytes follows what entries take: it grows while they hardly queue. Where many shards share a
//!   disk more in flight would wait for it, leave the entry cache meanwhile, and be read back.
//! - An entry that is not full waits while it fills: for half the time that entries take at present. Where that is short, one such
//!   entry is in flight at a time, and everything that arrives meanwhile shares the next one (natural batching).
//! - A failed proposal closes the window: nothing is proposed until every entry in it is decided. An entry that was proposed
//!   behind a failed one may still commit.
//!
//! Pure but for the futures that it holds. May not know: what an entry means, and how its caller is answered.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::mutants::{self, Bug};
use ottla_env::rt::Instant;
use ottla_raft::congestion_window::{Bounds, CongestionWindow};
use ottla_raft::{Proposal, ProposeError, Proposed};
use ottla_storage::ids::Term;

/// Entries in flight.
pub(crate) const ENTRIES_MAX: usize = 64;
/// Bytes of entries in flight, except for a single longer entry. At least, so that entries follow each other without a pause; at
/// most, so that one partition is bound by bandwidth where a round trip takes 40 ms.
const BYTES: Bounds = Bounds {
    first: 2 << 20,
    min: 2 << 20,
    max: 16 << 20,
    queueing_low: Duration::from_millis(30),
    queueing_high: Duration::from_millis(500),
};
/// What entries take while nothing queues is measured anew after so long, by the first one that nothing is in front of.
const MEASURED_FOR: Duration = Duration::from_secs(10);
/// Where entries are applied faster, an entry that is not full waits for the one before it.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// How a proposal ended.
pub(crate) type Outcome = Result<Proposed, ProposeError>;
/// The outcome of a proposal that was submitted.
pub(crate) type Applied = BoxFuture<'static, Outcome>;

/// An entry in flight.
pub(crate) struct InFlight<C> {
    /// Who waits for it.
    pub(crate) caller: C,
    /// What was proposed, if it may be proposed once more where it was refused before it was logged.
    pub(crate) proposal: Option<Proposal>,
    pub(crate) bytes: usize,
    pub(crate) proposed_at: Instant,
    pub(crate) applied: Applied,
}

/// The entries in flight.
pub(crate) struct ProposalWindow<C> {
    /// The term in which they were proposed.
    term: Term,
    entries: VecDeque<InFlight<C>>,
    bytes: usize,
    congestion: CongestionWindow,
    measured_at: Instant,
    is_closed: bool,
    /// How long entries take at present.
    latency: Duration,
    last_proposed: Instant,
}

impl<C> ProposalWindow<C> {
    pub(crate) fn new() -> Self {
        Self {
            term: Term(0),
            entries: VecDeque::new(),
            bytes: 0,
            congestion: CongestionWindow::new(BYTES),
            measured_at: Instant(0),
            is_closed: false,
            latency: Duration::ZERO,
            last_proposed: Instant(0),
        }
    }

    pub(crate) fn term(&self) -> Term {
        self.term
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if another entry may be proposed, if only a command.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closed && self.entries.len() < ENTRIES_MAX
    }

    /// True if bytes in flight are below their limit. Batches wait for that; a command is short, and does not.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < self.congestion.bytes_max()
    }

    /// How long an entry waits until it is proposed though it is not full; `None`: not at all.
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        if self.entries.is_empty() {
            return None;
        }
        let pause = (self.latency / 2).max(PAUSE_MIN);
        pause.checked_sub(now.since(self.last_proposed)).filter(|left| *left > Duration::ZERO)
    }

    /// Adds an entry that was proposed behind all others.
    ///
    /// # Panics
    /// When entries of another term are in flight.
    pub(crate) fn push(&mut self, term: Term, entry: InFlight<C>) {
        assert!(
            self.entries.is_empty() || self.term == term,
            "entries of two terms in flight: {:?} and {term:?}",
            self.term
        );
        if self.entries.is_empty() && entry.proposed_at.since(self.measured_at) > MEASURED_FOR {
            self.congestion.measure_anew();
            self.measured_at = entry.proposed_at;
        }
        self.term = term;
        self.bytes += entry.bytes;
        self.last_proposed = entry.proposed_at;
        self.entries.push_back(entry);
    }

    /// The first entry and its outcome, when it is decided; pending while the window is empty. A failure closes the window until it
    /// is empty.
    pub(crate) fn poll_decided(&mut self, cx: &mut Context<'_>) -> Poll<(InFlight<C>, Outcome)> {
        let Some(first) = self.entries.front_mut() else { return Poll::Pending };
        let Poll::Ready(outcome) = first.applied.poll_unpin(cx) else { return Poll::Pending };
        let Some(mut entry) = self.entries.pop_front() else { return Poll::Pending };
        if mutants::is_on(Bug::AnsweredOutOfOrder)
            && let Some(next) = self.entries.front_mut()
        {
            std::mem::swap(&mut entry.caller, &mut next.caller);
        }
        self.bytes -= entry.bytes;
        self.is_closed = (self.is_closed || outcome.is_err()) && !self.entries.is_empty();
        Poll::Ready((entry, outcome))
    }

    /// An entry of so many bytes, which is not in the window any more, was applied `now`.
    pub(crate) fn note_applied(&mut self, bytes: usize, proposed_at: Instant, now: Instant) {
        self.latency = (self.latency * 7 + now.since(proposed_at)) / 8;
        self.congestion.note_arrival(bytes, self.bytes + bytes, proposed_at, now);
    }

    /// Takes all entries: their term has ended, and whether they commit is not known.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = InFlight<C>> {
        (self.bytes, self.is_closed) = (0, false);
        std::mem::take(&mut self.entries).into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_util::FutureExt;
    use futures_util::future::{pending, ready};
    use ottla_storage::ids::{LogId, RaftIndex};

    use super::*;

    const TERM: Term = Term(3);
    const AT: Instant = Instant(1_000_000_000);

    fn entry(number: u64, bytes: usize, applied: Applied) -> InFlight<u64> {
        InFlight { caller: number, proposal: None, bytes, proposed_at: AT, applied }
    }

    fn fails() -> Applied {
        ready(Err(ProposeError::Unknown)).boxed()
    }

    fn decided(window: &mut ProposalWindow<u64>) -> Option<(u64, bool)> {
        match window.poll_decided(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready((entry, outcome)) => Some((entry.caller, outcome.is_ok())),
            Poll::Pending => None,
        }
    }

    fn stored(index: u64) -> Applied {
        let log_id = LogId { term: TERM, index: RaftIndex(index) };
        ready(Ok(Proposed { log_id, reply: ottla_raft::Reply::new(()) })).boxed()
    }

    #[test]
    fn entries_are_decided_in_their_order() {
        let mut window = ProposalWindow::new();
        window.push(TERM, entry(1, 10, pending().boxed()));
        window.push(TERM, entry(2, 10, stored(2)));
        assert_eq!(decided(&mut window), None);
        let mut window = ProposalWindow::new();
        window.push(TERM, entry(1, 10, stored(1)));
        window.push(TERM, entry(2, 10, stored(2)));
        assert_eq!([decided(&mut window), decided(&mut window)], [Some((1, true)), Some((2, true))]);
        assert!(window.is_empty() && window.is_open());
    }

    #[test]
    fn a_failure_closes_the_window_until_all_behind_it_are_decided() {
        let mut window = ProposalWindow::new();
        window.push(TERM, entry(1, 10, fails()));
        window.push(TERM, entry(2, 10, stored(2)));
        window.push(TERM, entry(3, 10, stored(3)));
        assert!(window.is_open());
        assert_eq!(decided(&mut window), Some((1, false)));
        assert!(!window.is_open());
        assert_eq!(decided(&mut window), Some((2, true)));
        assert!(!window.is_open());
        assert_eq!(decided(&mut window), Some((3, true)));
        assert!(window.is_open());
    }

    #[test]
    fn entries_and_bytes_in_flight_are_bounded() {
        let mut window = ProposalWindow::new();
        (0..ENTRIES_MAX as u64).for_each(|number| {
            assert!(window.is_open());
            window.push(TERM, entry(number, 10, pending().boxed()));
        });
        assert!(!window.is_open());
        let mut window = ProposalWindow::new();
        window.push(TERM, entry(1, BYTES.first, pending().boxed()));
        assert!(window.is_open() && !window.has_room());
        assert_eq!(window.take_all().count(), 1);
        assert!(window.has_room());
    }

    #[test]
    fn an_entry_that_is_not_full_waits_for_half_of_what_entries_take() {
        let mut window = ProposalWindow::new();
        assert_eq!(window.pause(AT), None);
        window.push(TERM, entry(1, 10, stored(1)));
        assert_eq!(window.pause(AT), Some(PAUSE_MIN));
        assert_eq!(window.pause(AT + PAUSE_MIN), None);
        (0..100).for_each(|_| window.note_applied(10, AT, AT + Duration::from_millis(40)));
        let pause = window.pause(AT).unwrap_or_default();
        assert!(pause > Duration::from_millis(19) && pause <= Duration::from_millis(20), "{pause:?}");
        assert_eq!(decided(&mut window), Some((1, true)));
        assert_eq!(window.pause(AT), None);
    }

    /// A window of one entry after the other, each of a MiB and applied after so long; returns the bytes that it allows then.
    fn allowed_after(window: &mut ProposalWindow<u64>, from: Instant, millis: u64) -> usize {
        let takes = Duration::from_millis(millis);
        for round in 0..20 {
            let proposed_at = from + takes * round;
            while window.has_room() {
                window.push(TERM, InFlight { proposed_at, ..entry(0, 1 << 20, stored(1)) });
            }
            while decided(window).is_some() {
                window.note_applied(1 << 20, proposed_at, proposed_at + takes);
            }
        }
        window.congestion.bytes_max()
    }

    #[test]
    fn more_is_in_flight_over_a_long_way_and_no_more_where_entries_queue() {
        let mut window = ProposalWindow::new();
        assert_eq!(allowed_after(&mut window, AT, 40), BYTES.max, "nothing queues");
        let mut window = ProposalWindow::new();
        window.push(TERM, entry(0, 10, stored(1)));
        assert!(decided(&mut window).is_some());
        window.note_applied(10, AT, AT + Duration::from_millis(1));
        assert_eq!(allowed_after(&mut window, AT, 100), BYTES.first, "one that was alone took 1 ms");
        let later = AT + MEASURED_FOR + Duration::from_millis(2_001);
        assert_eq!(allowed_after(&mut window, later, 100), BYTES.max, "measured anew");
    }
}
