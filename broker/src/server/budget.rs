//! The node's memory budget for requests and responses in flight (invariant I10): a semaphore counted in bytes.
//!
//! A connection that gets no memory stops reading; TCP flow control then stops its client.
//! May not know: connections, requests.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes that all connections of the node share.
#[derive(Debug, Clone)]
pub struct Budget {
    semaphore: Arc<Semaphore>,
    bytes_total: usize,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
#[derive(Debug, Default)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

impl Budget {
    /// A budget of `bytes_total` bytes.
    #[must_use]
    pub fn new(bytes_total: usize) -> Self {
        let bytes_total = bytes_total.min(Semaphore::MAX_PERMITS);
        Self { semaphore: Arc::new(Semaphore::new(bytes_total)), bytes_total }
    }

    /// Bytes in use now.
    #[must_use]
    pub fn bytes_used(&self) -> usize {
        self.bytes_total.saturating_sub(self.semaphore.available_permits())
    }

    /// The whole budget.
    #[must_use]
    pub fn bytes_total(&self) -> usize {
        self.bytes_total
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Reservation> {
        let wanted = self.wanted(bytes);
        self.semaphore.clone().try_acquire_many_owned(wanted).ok().map(|permit| Reservation(Some(permit)))
    }

    /// Takes `bytes` if they are free now and half of the whole budget stays free: for memory that the caller can
    /// do without.
    #[must_use]
    pub fn try_take_spare(&self, bytes: usize) -> Option<Reservation> {
        let is_spare = self.semaphore.available_permits() >= (self.bytes_total / 2).saturating_add(bytes);
        if is_spare { self.try_take(bytes) } else { None }
    }

    /// Waits for `bytes`; waiters are served first come, first served. More than the whole budget counts as the whole
    /// budget, so that a single request above it can still be served, alone.
    pub fn take(&self, bytes: usize) -> impl Future<Output = Reservation> + Send + 'static {
        let semaphore = self.semaphore.clone();
        let wanted = self.wanted(bytes);
        async move { Reservation(semaphore.acquire_many_owned(wanted).await.ok()) }
    }

    /// Takes up to `bytes`: half of what is free at most, and nothing if little is free.
    #[must_use]
    pub fn take_some(&self, bytes: usize) -> Reservation {
        let free = self.semaphore.available_permits();
        self.try_take(bytes.min(free / 2)).unwrap_or_default()
    }

    fn wanted(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.bytes_total)).unwrap_or(u32::MAX)
    }
}

impl Reservation {
    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Adds `other` to this reservation.
    pub fn merge(&mut self, other: Reservation) {
        match (&mut self.0, other.0) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes().saturating_sub(bytes);
        if excess == 0 {
            return;
        }
        if let Some(permit) = &mut self.0 {
            drop(permit.split(excess));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_or_shrunk_can_be_taken_again() {
        let budget = Budget::new(100);
        let mut first = budget.try_take(80).unwrap();
        assert!(budget.try_take(30).is_none());
        first.shrink_to(10);
        assert_eq!(first.bytes(), 10);
        let second = budget.try_take(30).unwrap();
        first.merge(second);
        assert_eq!((first.bytes(), budget.bytes_used()), (40, 40));
        drop(first);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn what_one_can_do_without_never_takes_the_second_half() {
        let budget = Budget::new(100);
        let first = budget.try_take_spare(30).unwrap();
        assert!(budget.try_take_spare(30).is_none());
        let second = budget.try_take_spare(20).unwrap();
        assert!(budget.try_take_spare(1).is_none());
        assert!(budget.try_take(50).is_some(), "requests have their half");
        drop((first, second));
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn a_request_above_the_whole_budget_is_served_alone() {
        let budget = Budget::new(100);
        let whole = budget.try_take(1_000_000).unwrap();
        assert_eq!(whole.bytes(), 100);
        assert!(budget.try_take(1).is_none());
    }
}
