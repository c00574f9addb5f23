//! Critical tasks as the simulation has them: which run on each node, which is made to panic, and what became of it.
//!
//! May not know: the executor, and what a panic ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::node::SimNode;

/// The message of an injected panic.
pub(super) const INJECTED: &str = "made to panic by the simulation";

/// A critical task that has not ended.
struct Running {
    node: SimNode,
    name: &'static str,
    /// Its next poll panics.
    doomed: Arc<AtomicBool>,
    /// Known from its first poll on.
    waker: Option<Waker>,
}

/// Critical tasks, and what became of those that panicked.
#[derive(Default)]
struct Tasks {
    next: u64,
    running: BTreeMap<u64, Running>,
    /// Those that were made to panic, and did.
    struck: BTreeSet<u64>,
    /// Panics of tasks that were not made to.
    panics: Vec<(SimNode, String)>,
    /// Nodes whose process has ended by itself, and why.
    fatal: BTreeMap<SimNode, String>,
    /// The tasks that wait for the end of their node's process.
    waiting: BTreeMap<SimNode, Vec<Waker>>,
}

/// The critical tasks of a simulation.
#[derive(Default)]
pub(crate) struct CriticalTasks(Arc<Mutex<Tasks>>);

/// What a critical task holds of its entry. A flag of its own, so that a poll takes no lock.
pub(crate) struct Enlisted {
    number: u64,
    doomed: Arc<AtomicBool>,
    is_polled: bool,
    tasks: Arc<Mutex<Tasks>>,
}

impl Enlisted {
    /// Called within each poll of the task, which has one waker for all of them.
    pub(crate) fn panic_if_doomed(&mut self, waker: &Waker) {
        if !self.is_polled {
            self.is_polled = true;
            if let Some(task) = self.tasks.lock().running.get_mut(&self.number) {
                task.waker = Some(waker.clone());
            }
        }
        if self.doomed.load(Ordering::Relaxed) {
            self.doomed.store(false, Ordering::Relaxed);
            self.tasks.lock().struck.insert(self.number);
            panic!("{INJECTED}");
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        // Its waker is dropped after the lock.
        let ended = self.tasks.lock().running.remove(&self.number);
        drop(ended);
    }
}

impl CriticalTasks {
    pub(super) fn enlist(&self, node: SimNode, name: &'static str) -> Enlisted {
        let mut tasks = self.0.lock();
        tasks.next += 1;
        let (number, doomed) = (tasks.next, Arc::new(AtomicBool::new(false)));
        tasks.running.insert(number, Running { node, name, doomed: doomed.clone(), waker: None });
        Enlisted { number, doomed, is_polled: false, tasks: self.0.clone() }
    }

    /// Those that run on a node: a number and a name each.
    pub(super) fn of(&self, node: SimNode) -> Vec<(u64, &'static str)> {
        let tasks = self.0.lock();
        let here = tasks.running.iter().filter(|(_, task)| task.node == node);
        here.map(|(number, task)| (*number, task.name)).collect()
    }

    /// The next poll of this task panics.
    pub(super) fn doom(&self, number: u64) {
        let waker = self.0.lock().running.get(&number).and_then(|task| {
            task.doomed.store(true, Ordering::Relaxed);
            task.waker.clone()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn has_panicked(&self, number: u64) -> bool {
        self.0.lock().struck.contains(&number)
    }

    pub(super) fn note_panic(&self, node: SimNode, task: &str, message: &str) {
        if message != INJECTED {
            self.0.lock().panics.push((node, format!("task {task}: {message}")));
        }
    }

    pub(super) fn take_panics(&self) -> Vec<(SimNode, String)> {
        std::mem::take(&mut self.0.lock().panics)
    }

    pub(super) fn note_fatal(&self, node: SimNode, why: &str) {
        let mut tasks = self.0.lock();
        tasks.fatal.entry(node).or_insert_with(|| why.to_owned());
        let waiting = tasks.waiting.remove(&node).unwrap_or_default();
        drop(tasks);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Ready with the reason once the node's process has ended by itself.
    pub(super) fn poll_fatal(&self, node: SimNode, waker: &Waker) -> Poll<Arc<str>> {
        let mut tasks = self.0.lock();
        if let Some(why) = tasks.fatal.get(&node) {
            return Poll::Ready(why.as_str().into());
        }
        let waiting = tasks.waiting.entry(node).or_default();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        Poll::Pending
    }

    /// The node is down: its next process begins anew.
    pub(super) fn forget(&self, node: SimNode) {
        let mut tasks = self.0.lock();
        tasks.fatal.remove(&node);
        let waiting = tasks.waiting.remove(&node);
        drop(tasks);
        drop(waiting);
    }

    pub(super) fn take_fatal(&self, node: SimNode) -> Option<String> {
        self.0.lock().fatal.remove(&node)
    }
}
