//! Critical tasks as the simulation has them: which run on each node, which is made to panic, and what became of it.
//!
//! May not know: what a panic ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use super::{Executor, current};
use crate::env::sim::SimNode;

/// The message of an injected panic.
const INJECTED: &str = "made to panic by the simulation";

/// A critical task that has not ended.
struct Running {
    node: SimNode,
    name: &'static str,
    /// Its next poll panics.
    doomed: Arc<AtomicBool>,
    /// Known from its first poll on.
    waker: Option<Waker>,
}

/// What a critical task holds of it. A flag of its own, so that a poll takes no lock.
pub(crate) struct Enlisted {
    number: u64,
    doomed: Arc<AtomicBool>,
    is_polled: bool,
}

impl Enlisted {
    /// Called within each poll of the task, which has one waker for all of them.
    pub(crate) fn panic_if_doomed(&mut self, waker: &Waker) {
        if !self.is_polled {
            self.is_polled = true;
            if let Some(executor) = current() {
                let mut state = executor.state.lock();
                if let Some(task) = state.critical.running.get_mut(&self.number) {
                    task.waker = Some(waker.clone());
                }
            }
        }
        if self.doomed.load(Ordering::Relaxed) {
            self.doomed.store(false, Ordering::Relaxed);
            if let Some(executor) = current() {
                executor.state.lock().critical.struck.insert(self.number);
            }
            panic!("{INJECTED}");
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        let Some(executor) = current() else { return };
        let ended = executor.state.lock().critical.running.remove(&self.number);
        drop(ended);
    }
}

/// Critical tasks, and what became of those that panicked.
#[derive(Default)]
pub(super) struct CriticalTasks {
    next: u64,
    running: BTreeMap<u64, Running>,
    /// Those that were made to panic, and did.
    struck: std::collections::BTreeSet<u64>,
    /// Panics of tasks that were not made to.
    panics: Vec<(SimNode, String)>,
    /// Nodes whose process has ended by itself, and why.
    fatal: BTreeMap<SimNode, String>,
}

impl Executor {
    pub(crate) fn enlist(&self, name: &'static str) -> Enlisted {
        let mut state = self.state.lock();
        let node = state.here.node;
        state.critical.next += 1;
        let (number, doomed) = (state.critical.next, Arc::new(AtomicBool::new(false)));
        state.critical.running.insert(number, Running { node, name, doomed: doomed.clone(), waker: None });
        Enlisted { number, doomed, is_polled: false }
    }

    /// The critical tasks that run on a node.
    pub(crate) fn critical_tasks(&self, node: SimNode) -> Vec<(u64, &'static str)> {
        let state = self.state.lock();
        let here = state.critical.running.iter().filter(|(_, task)| task.node == node);
        here.map(|(number, task)| (*number, task.name)).collect()
    }

    pub(crate) fn doom(&self, number: u64) {
        let waker = {
            let state = self.state.lock();
            state.critical.running.get(&number).and_then(|task| {
                task.doomed.store(true, Ordering::Relaxed);
                task.waker.clone()
            })
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn is_injected(message: &str) -> bool {
        message == INJECTED
    }

    pub(crate) fn has_panicked(&self, number: u64) -> bool {
        self.state.lock().critical.struck.contains(&number)
    }

    pub(crate) fn note_panic(&self, task: &str, message: &str) {
        if message != INJECTED {
            let mut state = self.state.lock();
            let node = state.here.node;
            state.critical.panics.push((node, format!("task {task}: {message}")));
        }
    }

    pub(crate) fn take_panics(&self) -> Vec<(SimNode, String)> {
        std::mem::take(&mut self.state.lock().critical.panics)
    }

    pub(crate) fn note_fatal(&self, why: &str) {
        let mut state = self.state.lock();
        let node = state.here.node;
        state.critical.fatal.entry(node).or_insert_with(|| why.to_owned());
    }

    pub(crate) fn take_fatal(&self, node: SimNode) -> Option<String> {
        self.state.lock().critical.fatal.remove(&node)
    }
}
