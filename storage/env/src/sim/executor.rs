//! The seeded executor: random order of ready tasks, virtual time, nodes that crash, clocks that drift.
//!
//! May not know: tokio, threads, or what its tasks do. Everything happens on one thread; futures and
//! wakers are never dropped or woken while the state is locked, because both may call back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::critical_tasks::{CriticalTasks, Enlisted};
use super::node::SimNode;

/// How a node's clocks differ from true time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeClock {
    /// Monotonic clock minus true time at the start, nanoseconds.
    pub offset_ns: i64,
    /// How much faster the monotonic clock runs, parts per million.
    pub drift_ppm: i64,
    /// Wall clock minus true time, milliseconds.
    pub wall_offset_ms: i64,
}

const MILLION: i64 = 1_000_000;
/// Wall clock at the start of every simulation.
const EPOCH_MS: i64 = 1_750_000_000_000;
/// A poll takes up to this long, so that a busy loop cannot freeze time.
const POLL_NS_MAX: u64 = 2_000;
/// Limit of polls: a scenario that needs more is taken to spin.
const POLLS_MAX: u64 = 200_000_000;

/// `value * by / over`. In 64 bits where they suffice, as they do for all times of a run: 128 bits are slow to divide.
fn scaled(value: i64, by: i64, over: i64) -> i64 {
    match value.checked_mul(by) {
        Some(product) => product / over,
        None => i64::try_from(i128::from(value) * i128::from(by) / i128::from(over)).unwrap_or(i64::MAX),
    }
}

type TaskId = u64;
type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;
/// The task that `block_on` runs.
const ROOT: TaskId = 0;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Executor>>> = const { RefCell::new(None) };
}

/// The executor that runs this thread, if it runs a simulation.
pub(crate) fn current() -> Option<Arc<Executor>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

#[derive(Debug)]
struct TaskWaker {
    task: TaskId,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.task);
        }
    }
}

struct Task {
    /// None while it is being polled.
    future: Option<BoxedTask>,
    waker: Arc<TaskWaker>,
    place: Place,
    spawned_at: &'static Location<'static>,
}

/// A node in one of its lives (processes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    node: SimNode,
    life: u64,
}

#[derive(Debug, Default)]
struct Node {
    life: u64,
    clock: NodeClock,
    /// Its tasks are suspended.
    paused: bool,
    /// Those of its suspended tasks that are ready.
    held: Vec<TaskId>,
}

struct State {
    now_ns: i64,
    rng: StdRng,
    tasks: BTreeMap<TaskId, Task>,
    next_task: TaskId,
    timers: BTreeMap<(i64, u64), Waker>,
    next_timer: u64,
    nodes: BTreeMap<SimNode, Node>,
    here: Place,
    /// Futures of crashed nodes, to be dropped before the next poll.
    graveyard: Vec<(Place, BoxedTask)>,
    trace: u64,
    polls: u64,
}

impl State {
    fn mix(&mut self, value: u64) {
        self.trace = (self.trace.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn clock(&self, node: SimNode) -> NodeClock {
        self.nodes.get(&node).map(|n| n.clock).unwrap_or_default()
    }

    fn life(&self, node: SimNode) -> u64 {
        self.nodes.get(&node).map_or(0, |n| n.life)
    }

    fn local(&self, node: SimNode) -> i64 {
        let clock = self.clock(node);
        let drift = scaled(self.now_ns, clock.drift_ppm, MILLION);
        self.now_ns.saturating_add(drift).saturating_add(clock.offset_ns)
    }

    /// True time at which the node's clock shows `local`, rounded up.
    fn global(&self, node: SimNode, local: i64) -> i64 {
        let clock = self.clock(node);
        let shifted = local.saturating_sub(clock.offset_ns);
        scaled(shifted, MILLION, MILLION + clock.drift_ppm).saturating_add(1)
    }
}

/// One simulated world.
pub struct Executor {
    state: Mutex<State>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    pub(super) critical: CriticalTasks,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Executor")
    }
}

/// Makes an executor the thread's current one until dropped.
struct Entered(Option<Arc<Executor>>);

impl Entered {
    fn new(executor: Arc<Executor>) -> Self {
        Entered(CURRENT.with(|current| current.borrow_mut().replace(executor)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.0.take();
        let _ = CURRENT.try_with(|current| *current.borrow_mut() = outer);
    }
}

impl Executor {
    /// A world whose every random choice follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State {
            now_ns: 0,
            rng: StdRng::seed_from_u64(seed),
            tasks: BTreeMap::new(),
            next_task: ROOT + 1,
            timers: BTreeMap::new(),
            next_timer: 0,
            nodes: BTreeMap::new(),
            here: Place::default(),
            graveyard: Vec::new(),
            trace: seed,
            polls: 0,
        };
        Arc::new(Executor { state: Mutex::new(state), ready: Arc::default(), critical: CriticalTasks::default() })
    }

    /// Runs `root` to its end; other tasks run as long as it does and may continue in the next call.
    ///
    /// # Panics
    /// On a deadlock, or when the world spins.
    pub fn block_on<F: Future>(self: &Arc<Self>, root: F) -> F::Output {
        let entered = Entered::new(self.clone());
        let mut root = pin!(root);
        let root_waker = Arc::new(TaskWaker { task: ROOT, queued: AtomicBool::new(true), ready: self.ready.clone() });
        self.ready.lock().push(ROOT);
        let output = loop {
            self.bury();
            let Some(id) = self.next_ready() else {
                assert!(self.jump_to_next_timer(), "deadlock at {:?}:\n{}", self.summary().2, self.describe_tasks());
                continue;
            };
            self.advance(id);
            if id != ROOT {
                self.poll_task(id);
                continue;
            }
            root_waker.queued.store(false, Ordering::Relaxed);
            self.state.lock().here = Place::default();
            let waker = Waker::from(root_waker.clone());
            if let Poll::Ready(output) = root.as_mut().poll(&mut Context::from_waker(&waker)) {
                break output;
            }
        };
        // Later calls must not find the finished root's stale wake-ups.
        self.ready.lock().retain(|&id| id != ROOT);
        drop(entered);
        output
    }

    fn next_ready(&self) -> Option<TaskId> {
        loop {
            let mut ready = self.ready.lock();
            if ready.is_empty() {
                return None;
            }
            let mut state = self.state.lock();
            let pick = state.rng.next_u64() % ready.len() as u64;
            let task = ready.swap_remove(usize::try_from(pick).unwrap_or(0));
            let node = state.tasks.get(&task).map(|task| task.place.node);
            match node.and_then(|node| state.nodes.get_mut(&node)).filter(|node| node.paused) {
                Some(node) => node.held.push(task),
                None => return Some(task),
            }
        }
    }

    pub(crate) fn pause(&self, node: SimNode, paused: bool) {
        let mut state = self.state.lock();
        let node = state.nodes.entry(node).or_default();
        node.paused = paused;
        let held = if paused { Vec::new() } else { std::mem::take(&mut node.held) };
        drop(state);
        self.ready.lock().extend(held);
    }

    /// Advances time a little, fires due timers, and records the choice in the trace.
    fn advance(&self, id: TaskId) {
        let due = {
            let mut state = self.state.lock();
            let step = state.rng.next_u64() % POLL_NS_MAX + 1;
            state.now_ns += i64::try_from(step).unwrap_or(1);
            state.polls += 1;
            assert!(state.polls < POLLS_MAX, "the world spins");
            let (now, polls) = (state.now_ns, state.polls);
            state.mix(id);
            state.mix(now.unsigned_abs() ^ polls);
            Self::take_due(&mut state)
        };
        due.into_iter().for_each(Waker::wake);
    }

    fn take_due(state: &mut State) -> Vec<Waker> {
        let later = state.timers.split_off(&(state.now_ns + 1, 0));
        std::mem::replace(&mut state.timers, later).into_values().collect()
    }

    fn jump_to_next_timer(&self) -> bool {
        let due = {
            let mut state = self.state.lock();
            let Some((&(deadline, _), _)) = state.timers.first_key_value() else {
                return false;
            };
            state.now_ns = state.now_ns.max(deadline);
            Self::take_due(&mut state)
        };
        due.into_iter().for_each(Waker::wake);
        true
    }

    fn poll_task(&self, id: TaskId) {
        let (mut future, waker) = {
            let mut state = self.state.lock();
            let Some(task) = state.tasks.get_mut(&id) else {
                return;
            };
            let (place, waker) = (task.place, task.waker.clone());
            let Some(future) = task.future.take() else {
                return;
            };
            state.here = place;
            (future, waker)
        };
        waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(waker);
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut state = self.state.lock();
        if !done && let Some(task) = state.tasks.get_mut(&id) {
            task.future = Some(future);
            return;
        }
        // Done, or its node crashed while it ran.
        let task = state.tasks.remove(&id);
        drop(state);
        drop(future);
        drop(task);
    }

    /// Drops the futures of crashed nodes, with their node as the current one: what they spawn meanwhile never runs.
    fn bury(&self) {
        loop {
            let dead = {
                let mut state = self.state.lock();
                let Some((place, dead)) = state.graveyard.pop() else {
                    return;
                };
                state.here = place;
                dead
            };
            drop(dead);
        }
    }

    pub(crate) fn spawn(&self, future: BoxedTask, spawned_at: &'static Location<'static>) {
        let mut state = self.state.lock();
        let place = state.here;
        if state.life(place.node) != place.life {
            // A crashed node starts nothing.
            drop(state);
            drop(future);
            return;
        }
        let id = state.next_task;
        state.next_task += 1;
        let waker = Arc::new(TaskWaker { task: id, queued: AtomicBool::new(true), ready: self.ready.clone() });
        state.tasks.insert(id, Task { future: Some(future), waker, place, spawned_at });
        drop(state);
        self.ready.lock().push(id);
    }

    pub(crate) fn on_node<T>(&self, node: SimNode, work: impl FnOnce() -> T) -> T {
        let outer = {
            let mut state = self.state.lock();
            let life = state.life(node);
            std::mem::replace(&mut state.here, Place { node, life })
        };
        let result = work();
        self.state.lock().here = outer;
        result
    }

    pub(crate) fn crash(&self, node: SimNode) {
        self.critical.forget(node);
        let mut state = self.state.lock();
        let crashed = state.nodes.entry(node).or_default();
        crashed.life += 1;
        crashed.paused = false;
        crashed.held.clear();
        let dead: Vec<TaskId> =
            state.tasks.iter().filter(|(_, task)| task.place.node == node).map(|(&id, _)| id).collect();
        for id in dead {
            let Some(Task { future, place, waker, .. }) = state.tasks.remove(&id) else { continue };
            // Tasks of crashed nodes are not woken: drops wake them in an order that may not follow from the seed (a
            // hash map's).
            waker.queued.store(true, Ordering::Relaxed);
            if let Some(future) = future {
                state.graveyard.push((place, future));
            }
        }
        state.mix(u64::from(node.0) | 1 << 40);
    }

    /// Puts the critical task that is started now on the list of its node.
    pub(crate) fn enlist(&self, name: &'static str) -> Enlisted {
        self.critical.enlist(self.here(), name)
    }

    pub(crate) fn note_panic(&self, task: &str, message: &str) {
        self.critical.note_panic(self.here(), task, message);
    }

    pub(crate) fn note_fatal(&self, why: &str) {
        self.critical.note_fatal(self.here(), why);
    }

    /// Resolves when the process of the current node has ended by itself.
    pub(crate) async fn process_failed(&self) -> Arc<str> {
        let node = self.here();
        std::future::poll_fn(|cx| self.critical.poll_fatal(node, cx.waker())).await
    }

    fn here(&self) -> SimNode {
        self.state.lock().here.node
    }

    pub(crate) fn set_clock(&self, node: SimNode, clock: NodeClock) {
        self.state.lock().nodes.entry(node).or_default().clock = clock;
    }

    pub(crate) fn set_wall_clock(&self, node: SimNode, wall_offset_ms: i64) {
        self.state.lock().nodes.entry(node).or_default().clock.wall_offset_ms = wall_offset_ms;
    }

    pub(crate) fn current_node(&self) -> SimNode {
        self.state.lock().here.node
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.state.lock().rng.next_u64()
    }

    pub(crate) fn trace(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        for chunk in bytes.chunks(8) {
            let value = chunk.iter().fold(chunk.len() as u64, |sum, &byte| (sum << 8) | u64::from(byte));
            state.mix(value);
        }
    }

    pub(crate) fn local_now_ns(&self) -> i64 {
        let state = self.state.lock();
        state.local(state.here.node)
    }

    pub(crate) fn wall_clock_ms(&self) -> i64 {
        let state = self.state.lock();
        EPOCH_MS + state.now_ns / 1_000_000 + state.clock(state.here.node).wall_offset_ms
    }

    /// Trace hash, polls, virtual time.
    #[must_use]
    pub fn summary(&self) -> (u64, u64, Duration) {
        let state = self.state.lock();
        (state.trace, state.polls, Duration::from_nanos(state.now_ns.unsigned_abs()))
    }

    /// Ends the world: every task is dropped, and what they spawn meanwhile never runs.
    pub fn finish(self: &Arc<Self>) {
        let _entered = Entered::new(self.clone());
        let nodes: std::collections::BTreeSet<SimNode> =
            self.state.lock().tasks.values().map(|task| task.place.node).collect();
        for node in nodes {
            self.crash(node);
        }
        self.bury();
    }

    fn describe_tasks(&self) -> String {
        let state = self.state.lock();
        let line = |task: &Task| format!("  node {} task of {}\n", task.place.node.0, task.spawned_at);
        state.tasks.values().map(line).collect()
    }
}

/// A wait in virtual time.
#[derive(Debug)]
pub(crate) struct SimSleep {
    executor: Arc<Executor>,
    deadline_ns: i64,
    timer: Option<u64>,
}

impl SimSleep {
    pub(crate) fn until(executor: Arc<Executor>, local_ns: i64) -> Self {
        let deadline_ns = {
            let state = executor.state.lock();
            state.global(state.here.node, local_ns)
        };
        SimSleep { executor, deadline_ns, timer: None }
    }

    pub(crate) fn for_duration(executor: Arc<Executor>, duration: Duration) -> Self {
        let wait = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        let local = executor.local_now_ns().saturating_add(wait);
        Self::until(executor, local)
    }
}

impl Future for SimSleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let replaced;
        {
            let mut state = this.executor.state.lock();
            if state.now_ns >= this.deadline_ns {
                return Poll::Ready(());
            }
            let timer = *this.timer.get_or_insert_with(|| {
                state.next_timer += 1;
                state.next_timer
            });
            replaced = state.timers.insert((this.deadline_ns, timer), cx.waker().clone());
        }
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for SimSleep {
    fn drop(&mut self) {
        let Some(timer) = self.timer else { return };
        let waker = self.executor.state.lock().timers.remove(&(self.deadline_ns, timer));
        drop(waker);
    }
}
