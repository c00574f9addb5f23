//! The simulated world: whole clusters on one thread, in virtual time, repeated exactly from a seed.
//!
//! May not know: what runs in it. Method: a fresh thread per seed, a random ready task is polled, time
//! jumps to the next timer when no task is ready, and "no task is ready and no timer is set" is a deadlock.

pub(crate) mod critical_tasks;
pub mod disk;
pub mod executor;
pub mod net;
mod node;

use std::future::Future;
use std::time::Duration;

use super::mutants;
use executor::Executor;
pub use executor::NodeClock;
pub use node::SimNode;

/// The result of a simulation.
#[derive(Debug)]
pub struct Report<T> {
    /// What the scenario returned.
    pub output: T,
    /// Hash over every poll and everything given to [`trace`]; equal for equal seeds.
    pub trace_hash: u64,
    /// How many times a task was polled.
    pub polls: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
}

/// Runs `scenario` to its end in a simulation of its own, on a fresh thread.
///
/// # Panics
/// When the scenario panics or deadlocks.
pub fn run<T, F, Fut>(seed: u64, scenario: F) -> Report<T>
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T>,
{
    let bug = mutants::of_next_world();
    #[allow(clippy::disallowed_methods)] // the one thread that becomes the simulated world
    let world = std::thread::spawn(move || {
        mutants::enter_world(bug);
        let executor = Executor::new(seed);
        let output = executor.block_on(async move { scenario().await });
        let (trace_hash, polls, elapsed) = executor.summary();
        executor.finish();
        Report { output, trace_hash, polls, elapsed }
    });
    match world.join() {
        Ok(report) => report,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Runs the seed twice and requires that both runs are the same.
///
/// # Panics
/// When the two runs differ: something in the scenario escapes the seed.
pub fn run_twice<T, F, Fut>(seed: u64, scenario: F) -> Report<T>
where
    T: Send + 'static,
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T>,
{
    let first = run(seed, scenario.clone());
    let second = run(seed, scenario);
    assert_eq!(
        (first.trace_hash, first.polls),
        (second.trace_hash, second.polls),
        "seed {seed} does not repeat: something escapes the simulation"
    );
    second
}

fn executor() -> std::sync::Arc<Executor> {
    match executor::current() {
        Some(executor) => executor,
        None => panic!("only within a simulation"),
    }
}

/// True on a thread that runs a simulation.
#[must_use]
pub fn is_active() -> bool {
    executor::current().is_some()
}

/// Starts a task on a node; tasks that it spawns run on that node, too.
#[track_caller]
pub fn spawn_on<F>(node: SimNode, future: F) -> super::rt::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    executor().on_node(node, || super::rt::spawn(future))
}

/// Does this on a node: tasks that it spawns run there.
pub fn on_node<T>(node: SimNode, work: impl FnOnce() -> T) -> T {
    executor().on_node(node, work)
}

/// The critical tasks that run on a node: a number and a name each.
#[must_use]
pub fn critical_tasks(node: SimNode) -> Vec<(u64, &'static str)> {
    executor().critical.of(node)
}

/// The next poll of this critical task panics.
pub fn make_panic(task: u64) {
    executor().critical.doom(task);
}

/// True if the panic of [`make_panic`] has happened: a task that is never woken, or has ended, is not polled.
#[must_use]
pub fn has_panicked(task: u64) -> bool {
    executor().critical.has_panicked(task)
}

/// True if this is the message of a panic that [`make_panic`] caused.
#[must_use]
pub fn is_injected_panic(message: &str) -> bool {
    message == critical_tasks::INJECTED
}

/// Panics of tasks since the last call that [`make_panic`] did not cause: node, task and reason.
#[must_use]
pub fn take_panics() -> Vec<(SimNode, String)> {
    executor().critical.take_panics()
}

/// Why a node's process has ended by itself, if it has since the last call. Its tasks still run until the
/// scenario, as supervisor, stops it.
#[must_use]
pub fn take_fatal(node: SimNode) -> Option<String> {
    executor().critical.take_fatal(node)
}

/// Stops a node at once: its tasks never run again and their futures are dropped before the next poll.
/// Tasks spawned on it later belong to its next life (process).
pub fn crash(node: SimNode) {
    executor().crash(node);
}

/// Suspends a node's tasks, as SIGSTOP does, or resumes them. A crash ends the suspension, too.
pub fn pause(node: SimNode, paused: bool) {
    executor().pause(node, paused);
}

/// Sets a node's clocks.
pub fn set_clock(node: SimNode, clock: NodeClock) {
    executor().set_clock(node, clock);
}

/// Lets a node's wall clock jump: milliseconds from true time. Its monotonic clock goes on.
pub fn set_wall_clock(node: SimNode, wall_offset_ms: i64) {
    executor().set_wall_clock(node, wall_offset_ms);
}

/// The node of the current task.
#[must_use]
pub fn current_node() -> SimNode {
    executor().current_node()
}

/// A random number below `bound` (0 if `bound` is 0).
#[must_use]
pub fn random_below(bound: u64) -> u64 {
    if bound == 0 { 0 } else { executor().random_u64() % bound }
}

/// Adds a value that must be equal in every run of the seed to the trace.
pub fn trace(bytes: &[u8]) {
    executor().trace(bytes);
}

/// Virtual time since the start, the same for all nodes.
#[must_use]
pub fn elapsed() -> Duration {
    executor().summary().2
}

#[cfg(test)]
mod tests;
