//! A watch channel: many tasks see the newest value, and none sees every value.
//!
//! An own implementation, because tokio's wakes its receivers in random order, which no seed repeats. The API is that of
//! `tokio::sync::watch`. Invariant: receivers are woken in the order in which they were created.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::sync::{Mutex, RwLock, RwLockReadGuard};

/// All senders were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvError;

impl std::fmt::Display for RecvError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("watch channel closed")
    }
}

impl std::error::Error for RecvError {}

/// All receivers were dropped; the value is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendError<T>(pub T);

/// The current value; hold it only briefly: senders wait meanwhile.
pub type Ref<'a, T> = RwLockReadGuard<'a, T>;

#[derive(Debug, Default)]
struct Parties {
    version: u64,
    senders: usize,
    receivers: usize,
    next_id: u64,
    /// Waiting receivers by id, and senders that wait for the last receiver to go.
    wakers: BTreeMap<u64, Waker>,
}

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    parties: Mutex<Parties>,
}

impl<T> Shared<T> {
    fn wake_all(wakers: BTreeMap<u64, Waker>) {
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    fn new_id(&self) -> u64 {
        let mut parties = self.parties.lock();
        parties.next_id += 1;
        parties.next_id
    }
}

/// Changes the value.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value and waits for changes.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    id: u64,
    seen: u64,
}

/// A channel that holds `initial`.
pub fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let parties = Parties { senders: 1, receivers: 1, ..Parties::default() };
    let shared = Arc::new(Shared { value: RwLock::new(initial), parties: Mutex::new(parties) });
    let receiver = Receiver { shared: shared.clone(), id: shared.new_id(), seen: 0 };
    (Sender(shared), receiver)
}

impl<T> Sender<T> {
    /// A channel without a receiver yet.
    pub fn new(initial: T) -> Self {
        channel(initial).0
    }

    /// Replaces the value, unless there is no receiver.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.receiver_count() == 0 {
            return Err(SendError(value));
        }
        self.send_replace(value);
        Ok(())
    }

    /// Replaces the value, with or without receivers, and returns the old one.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_if_modified(|current| {
            std::mem::swap(current, &mut value);
            true
        });
        value
    }

    /// Changes the value in place.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value in place; receivers are woken only if `modify` returns true.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let wakers = {
            let mut value = self.0.value.write();
            if !modify(&mut value) {
                return false;
            }
            let mut parties = self.0.parties.lock();
            parties.version += 1;
            std::mem::take(&mut parties.wakers)
        };
        Shared::<T>::wake_all(wakers);
        true
    }

    /// The current value.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.0.value.read()
    }

    /// A further receiver, which has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        let id = self.0.new_id();
        let mut parties = self.0.parties.lock();
        parties.receivers += 1;
        Receiver { shared: self.0.clone(), id, seen: parties.version }
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.0.parties.lock().receivers
    }

    /// True once no receiver is left.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.parties.lock().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let wakers = {
            let mut parties = self.0.parties.lock();
            parties.senders -= 1;
            if parties.senders > 0 {
                return;
            }
            std::mem::take(&mut parties.wakers)
        };
        Shared::<T>::wake_all(wakers);
    }
}

impl<T> Receiver<T> {
    /// The current value, without marking it as seen.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.value.read()
    }

    /// The current value, marked as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.parties.lock().version;
        value
    }

    /// Whether there is a value that was not seen; an error if no sender is left to send one.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        let parties = self.shared.parties.lock();
        match (parties.version != self.seen, parties.senders) {
            (true, _) => Ok(true),
            (false, 0) => Err(RecvError),
            (false, _) => Ok(false),
        }
    }

    fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RecvError>> {
        let replaced;
        {
            let mut parties = self.shared.parties.lock();
            if parties.version != self.seen {
                self.seen = parties.version;
                return Poll::Ready(Ok(()));
            }
            if parties.senders == 0 {
                return Poll::Ready(Err(RecvError));
            }
            replaced = parties.wakers.insert(self.id, cx.waker().clone());
        }
        drop(replaced);
        Poll::Pending
    }

    /// Waits until there is a value that was not seen, and marks it as seen.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|cx| self.poll_changed(cx)).await
    }

    /// Waits until the value meets `condition`, at once if it does already.
    pub async fn wait_for(&mut self, mut condition: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            let met = condition(&self.borrow_and_update());
            if met {
                return Ok(self.shared.value.read());
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        let id = self.shared.new_id();
        self.shared.parties.lock().receivers += 1;
        Receiver { shared: self.shared.clone(), id, seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let waker = {
            let mut parties = self.shared.parties.lock();
            parties.receivers -= 1;
            parties.wakers.remove(&self.id)
        };
        drop(waker);
    }
}

#[cfg(all(test, feature = "shuttle"))]
mod shuttle_tests;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_channel_is_closed_when_the_last_of_its_senders_has_gone() {
        let first = Sender::new(1);
        let (second, mut receiver) = (first.clone(), first.subscribe());
        drop(first);
        assert!(receiver.changed().now_or_never().is_none(), "a sender is left");
        second.send_replace(2);
        assert!(matches!(receiver.changed().now_or_never(), Some(Ok(()))));
        drop(second);
        assert!(matches!(receiver.changed().now_or_never(), Some(Err(_))));
    }
}
