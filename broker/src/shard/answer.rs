//! The channel for one batch's answer, from the appender to the caller that appended the batch.
//!
//! Setting an answer and waking the receiver are two steps: a shard sets all answers of an entry first, so that a
//! connection which is woken finds every answer of its burst and writes them at once. May not know: what is answered.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::replicated::error::AppendError;
use crate::replicated::shard_state::BatchOutcome;

/// The answer to a batch.
pub(crate) type BatchAnswer = Result<BatchOutcome, AppendError>;

/// The batch was dropped without an answer: its shard has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unanswered;

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Answered(BatchAnswer),
    /// Dropped, or taken already.
    Empty,
}

#[derive(Debug)]
struct Slot(Mutex<State>);

impl Slot {
    /// Sets the answer; the returned waker is that of the task that waits for it.
    fn set(&self, next: State) -> Option<Waker> {
        match std::mem::replace(&mut *self.0.lock(), next) {
            State::Waiting(waker) => waker,
            State::Answered(_) | State::Empty => None,
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct AnswerSender(Option<Arc<Slot>>);

/// The receiving end. Dropping it discards the answer.
#[derive(Debug)]
pub(crate) struct AnswerReceiver(Arc<Slot>);

/// Both ends.
pub(crate) fn channel() -> (AnswerSender, AnswerReceiver) {
    let slot = Arc::new(Slot(Mutex::new(State::Waiting(None))));
    (AnswerSender(Some(slot.clone())), AnswerReceiver(slot))
}

impl AnswerSender {
    /// Sets the answer. The waker must be woken once no lock is held.
    #[must_use]
    pub(crate) fn set(mut self, answer: BatchAnswer) -> Option<Waker> {
        self.0.take().and_then(|slot| slot.set(State::Answered(answer)))
    }

    /// Sets the answer and wakes the receiver.
    pub(crate) fn send(self, answer: BatchAnswer) {
        if let Some(waker) = self.set(answer) {
            waker.wake();
        }
    }
}

impl Drop for AnswerSender {
    fn drop(&mut self) {
        if let Some(waker) = self.0.take().and_then(|slot| slot.set(State::Empty)) {
            waker.wake();
        }
    }
}

impl AnswerReceiver {
    /// The answer, if it is here.
    #[cfg(test)]
    pub(crate) fn try_recv(&mut self) -> Result<BatchAnswer, Unanswered> {
        match std::mem::replace(&mut *self.0.0.lock(), State::Empty) {
            State::Answered(answer) => Ok(answer),
            State::Waiting(_) | State::Empty => Err(Unanswered),
        }
    }
}

impl Future for AnswerReceiver {
    type Output = Result<BatchAnswer, Unanswered>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.lock();
        match &mut *state {
            State::Waiting(Some(known)) if known.will_wake(cx.waker()) => Poll::Pending,
            State::Waiting(waker) => {
                let replaced = waker.replace(cx.waker().clone());
                drop(state);
                drop(replaced);
                Poll::Pending
            }
            State::Answered(_) | State::Empty => match std::mem::replace(&mut *state, State::Empty) {
                State::Answered(answer) => Poll::Ready(Ok(answer)),
                State::Waiting(_) | State::Empty => Poll::Ready(Err(Unanswered)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::replicated::shard_state::Rejection;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    const ANSWER: BatchAnswer = Ok(BatchOutcome::Rejected(Rejection::Fenced));

    #[test]
    fn an_answer_that_is_set_is_there_before_anybody_is_woken() {
        let (sender, mut receiver) = channel();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut receiver).poll(&mut cx).is_pending());
        let woken = sender.set(ANSWER).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Ready(Ok(ANSWER)));
        woken.wake();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_dropped_batch_wakes_its_owner_without_an_answer() {
        let (sender, mut receiver) = channel();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut receiver).poll(&mut cx).is_pending());
        drop(sender);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut receiver).poll(&mut cx), Poll::Ready(Err(Unanswered)));
    }
}
