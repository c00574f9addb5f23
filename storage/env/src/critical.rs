//! Panics of tasks: each is logged and counted, and the panic of a critical task ends its owner.
//!
//! A task is critical if its owner would malfunction without it and would not notice: the [`Owner`] (a replica, a data
//! directory, the process) ends with an error, so that other replicas take over or a supervisor restarts it. All other
//! tasks serve one caller, which receives no answer. May not know: what owners are, and how they end.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::mutants::{self, Bug};
use super::sim::critical_tasks::Enlisted;
use super::sim::executor;
use super::watch;

/// The message of a panic, if it has one.
#[must_use]
pub fn panic_message(payload: &(dyn Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "panic without a message".to_owned(),
    }
}

/// Panics by the task's name.
static COUNTS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// How many tasks have panicked in this process, by name.
#[must_use]
pub fn panic_counts() -> BTreeMap<String, u64> {
    COUNTS.lock().clone()
}

/// Counts a panic that the code which caught it handles.
pub fn count_panic(task: &str) {
    *COUNTS.lock().entry(task.to_owned()).or_default() += 1;
}

/// Counts and logs a panic that ended a task.
pub(super) fn report(task: &str, payload: &(dyn Any + Send)) -> String {
    let message = panic_message(payload);
    count_panic(task);
    tracing::error!(task, "task panicked: {message}");
    if let Some(executor) = executor::current() {
        executor.note_panic(task, &message);
    }
    message
}

/// The name of a task that has none of its own: the module that started it.
pub(super) fn task_name(place: &Location<'_>) -> String {
    let path = place.file().rsplit_once("src/").map_or(place.file(), |(_, path)| path);
    path.trim_end_matches(".rs").trim_end_matches("/mod").to_owned()
}

/// The owner of critical tasks: it ends when one of them panics.
#[derive(Clone)]
pub struct Owner(Arc<dyn Fn(&str) + Send + Sync>);

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Owner")
    }
}

impl Owner {
    /// `end` receives the reason; it must not wait.
    pub fn new(end: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(end))
    }

    /// The process; in a simulation, the node.
    #[must_use]
    pub fn process() -> Self {
        Self::new(end_process)
    }

    /// Runs `work` as a part of the owner: tasks that a library starts meanwhile belong to it.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut within = Within(Some(self.clone()));
        swap_current(&mut within.0);
        work()
    }

    fn end(&self, why: &str) {
        if !mutants::is_on(Bug::CriticalPanicSwallowed) {
            (self.0)(why);
        }
    }
}

/// Why the process cannot continue.
static FATAL: std::sync::LazyLock<watch::Sender<Option<Arc<str>>>> =
    std::sync::LazyLock::new(|| watch::Sender::new(None));

fn end_process(why: &str) {
    match executor::current() {
        Some(executor) => executor.note_fatal(why),
        None => FATAL.send_modify(|fatal| {
            fatal.get_or_insert_with(|| why.into());
        }),
    }
}

/// Resolves when a critical task of the process itself has panicked.
pub async fn process_failed() -> Arc<str> {
    if let Some(executor) = executor::current() {
        return executor.process_failed().await;
    }
    let mut fatal = FATAL.subscribe();
    loop {
        if let Some(why) = &*fatal.borrow_and_update() {
            return why.clone();
        }
        if fatal.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

thread_local! {
    /// The owner within whose task this thread runs.
    static CURRENT: RefCell<Option<Owner>> = const { RefCell::new(None) };
}

/// Makes `owner` this thread's current one, and `owner` what was it before.
fn swap_current(owner: &mut Option<Owner>) {
    // A thread that ends has no current owner any more, and polls nothing.
    let _ = CURRENT.try_with(|current| std::mem::swap(&mut *current.borrow_mut(), owner));
}

/// Restores the previous owner.
struct Within(Option<Owner>);

impl Drop for Within {
    fn drop(&mut self) {
        swap_current(&mut self.0);
    }
}

/// The owner of the critical task that runs now, or of [`Owner::scope`].
pub(super) fn current_owner() -> Option<Owner> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// A critical task. Its panic ends its owner, and is passed on to the task that joins it.
pub(super) struct Critical<F> {
    name: &'static str,
    /// Absent while the task is polled: then it is this thread's current owner.
    owner: Option<Owner>,
    future: Pin<Box<F>>,
    /// In a simulation, how it is made to panic.
    enlisted: Option<Enlisted>,
}

impl<F> Critical<F> {
    pub(super) fn new(name: &'static str, owner: Owner, future: F) -> Self {
        let enlisted = executor::current().map(|executor| executor.enlist(name));
        // A counter that is there from the beginning shows its first step.
        let mut counts = COUNTS.lock();
        if !counts.contains_key(name) {
            counts.insert(name.to_owned(), 0);
        }
        drop(counts);
        Self { name, owner: Some(owner), future: Box::pin(future), enlisted }
    }
}

impl<F: Future> Future for Critical<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        swap_current(&mut this.owner);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            if let Some(enlisted) = &mut this.enlisted {
                enlisted.panic_if_doomed(cx.waker());
            }
            this.future.as_mut().poll(cx)
        }));
        swap_current(&mut this.owner);
        let Some(owner) = &this.owner else {
            // The owner that should end is not known any more, so the process ends.
            let why = format!("task {}: its owner is not there after it was polled", this.name);
            end_process(&why);
            panic!("{why}")
        };
        polled.unwrap_or_else(|payload| {
            let message = report(this.name, &*payload);
            owner.end(&format!("task {} panicked: {message}", this.name));
            std::panic::resume_unwind(payload)
        })
    }
}

/// A task that serves one caller: its panic is counted and logged, and the task that joins it sees it.
pub(super) async fn counted<F: Future>(place: &'static Location<'static>, future: F) -> F::Output {
    AssertUnwindSafe(future).catch_unwind().await.unwrap_or_else(|payload| {
        report(&task_name(place), &*payload);
        std::panic::resume_unwind(payload)
    })
}

/// As [`counted`], for work that blocks.
pub(super) fn counting<T>(place: &'static Location<'static>, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        report(&task_name(place), &*payload);
        std::panic::resume_unwind(payload)
    })
}
