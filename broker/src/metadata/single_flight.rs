//! Deduplicates work that several callers request at the same time.
//!
//! - `SingleFlight` runs one piece of work per key: a caller that comes while it runs gets the same result.
//! - `Coalesced` runs one piece of work for all callers that came before it began; a caller that comes while it runs
//!   waits for the next run.
//!
//! May not know: what the work is.

use std::collections::BTreeMap;
use std::future::Future;

use ottla_env::rt;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Releases the callers and the key of work that panics: else they, and all later callers of the key, would wait
/// forever.
struct OnPanic<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)();
        }
    }
}

type Waiting<T> = Vec<oneshot::Sender<T>>;

/// One piece of work per key at a time.
#[derive(Debug)]
pub(super) struct SingleFlight<T> {
    running: Arc<Mutex<BTreeMap<String, Waiting<T>>>>,
    keys_max: usize,
}

impl<T: Clone + Send + 'static> SingleFlight<T> {
    pub(super) fn new(keys_max: usize) -> Self {
        Self { running: Arc::default(), keys_max }
    }

    /// The result of `work` for `key`, or of the same work that runs already. `None`: work runs for too many keys, or
    /// it panicked. The work continues when its callers are dropped.
    pub(super) async fn run<F>(&self, key: &str, work: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut running = self.running.lock();
            let full = running.len() >= self.keys_max;
            match running.get_mut(key) {
                Some(waiting) => {
                    waiting.push(sender);
                    false
                }
                None if full => return None,
                None => {
                    running.insert(key.to_owned(), vec![sender]);
                    true
                }
            }
        };
        if first {
            let (work, running, key) = (work(), Arc::clone(&self.running), key.to_owned());
            rt::spawn(async move {
                let _on_panic = OnPanic(|| drop(running.lock().remove(&key)));
                let result = work.await;
                let waiting = running.lock().remove(&key).unwrap_or_default();
                for sender in waiting {
                    let _ = sender.send(result.clone());
                }
            });
        }
        receiver.await.ok()
    }
}

#[derive(Debug)]
struct Runs<T> {
    running: bool,
    waiting: Waiting<T>,
}

/// One piece of work at a time, for all callers that wait.
#[derive(Debug)]
pub(super) struct Coalesced<T>(Arc<Mutex<Runs<T>>>);

impl<T: Clone + Send + 'static> Coalesced<T> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Runs { running: false, waiting: Vec::new() })))
    }

    /// The result of a `work` that began after this call. `None` only when the work panicked or the runtime stops.
    pub(super) async fn run<F>(&self, work: impl Fn() -> F + Send + 'static) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut runs = self.0.lock();
            runs.waiting.push(sender);
            !std::mem::replace(&mut runs.running, true)
        };
        if first {
            let runs = Arc::clone(&self.0);
            rt::spawn(async move {
                let _on_panic = OnPanic(|| *runs.lock() = Runs { running: false, waiting: Vec::new() });
                loop {
                    let waiting = {
                        let mut runs = runs.lock();
                        if runs.waiting.is_empty() {
                            runs.running = false;
                            return;
                        }
                        std::mem::take(&mut runs.waiting)
                    };
                    let result = work().await;
                    for sender in waiting {
                        let _ = sender.send(result.clone());
                    }
                }
            });
        }
        receiver.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn callers_of_one_key_share_one_piece_of_work() {
        let single_flight = SingleFlight::new(1);
        let done = Arc::new(AtomicUsize::new(0));
        let (open, gate) = oneshot::channel::<()>();
        let count = Arc::clone(&done);
        let first = single_flight.run("a", || async move {
            let _ = gate.await;
            count.fetch_add(1, Ordering::SeqCst) + 1
        });
        let second = single_flight.run("a", || async { 99 });
        let third = single_flight.run("b", || async { 7 });
        let opened = async { open.send(()).ok() };
        let (first, second, third, _) = tokio::join!(first, second, third, opened);
        assert_eq!((first, second, third), (Some(1), Some(1), None));
        assert_eq!(done.load(Ordering::SeqCst), 1);
        assert_eq!(single_flight.run("b", || async { 7 }).await, Some(7));
    }

    /// Callers of work that panics get no result, and the next caller begins anew.
    #[tokio::test]
    async fn work_that_panics_releases_its_callers_and_its_key() {
        let single_flight: SingleFlight<u32> = SingleFlight::new(1);
        let broken = || async {
            rt::yield_now().await;
            panic!("in the work")
        };
        let (first, second) = tokio::join!(single_flight.run("a", broken), single_flight.run("a", || async { 99 }));
        assert_eq!((first, second), (None, None));
        assert_eq!(single_flight.run("a", || async { 7 }).await, Some(7));
        let coalesced: Coalesced<u32> = Coalesced::new();
        assert_eq!(coalesced.run(broken).await, None);
        assert_eq!(coalesced.run(|| async { 7 }).await, Some(7));
    }

    #[tokio::test]
    async fn a_caller_that_comes_while_work_runs_waits_for_the_next_run() {
        let coalesced = Coalesced::new();
        let begun = Arc::new(AtomicUsize::new(0));
        let work = |begun: &Arc<AtomicUsize>| {
            let begun = Arc::clone(begun);
            move || {
                let begun = Arc::clone(&begun);
                async move {
                    let run = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    rt::yield_now().await;
                    run
                }
            }
        };
        let all = (0..10).map(|_| coalesced.run(work(&begun)));
        let runs: Vec<_> = futures_util::future::join_all(all).await.into_iter().flatten().collect();
        assert_eq!(runs.len(), 10);
        assert!(begun.load(Ordering::SeqCst) <= 2);
        assert!(coalesced.run(work(&begun)).await > runs.into_iter().max());
    }
}
