//! The runtime facade: tasks, time and randomness, called by every other module instead of tokio and `std::time`.
//!
//! In production this is tokio; on a thread that runs a simulation it is the seeded executor of
//! [`super::sim`]. May not know: its callers, and what a task does.

#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable};
use tokio::sync::oneshot;

pub use super::critical::panic_message;
use super::critical::{self, Critical, Owner};
use super::sim::executor::{self, SimSleep};

/// A point on the node's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

impl Instant {
    /// Time since `earlier`, zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl std::ops::Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(rhs)))
    }
}

impl std::ops::Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(rhs)))
    }
}

/// The future did not finish in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not finished in time")
    }
}

impl std::error::Error for Elapsed {}

/// The task panicked or was cancelled.
#[derive(Debug)]
pub struct JoinError {
    panicked: bool,
    message: String,
}

impl JoinError {
    /// True if the task panicked, false if it was aborted or its node went down.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panicked
    }

    fn cancelled() -> Self {
        JoinError { panicked: false, message: "task cancelled".to_owned() }
    }
}

impl std::fmt::Display for JoinError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for JoinError {}

/// Handle of a spawned task; dropping it detaches the task.
#[derive(Debug)]
pub struct JoinHandle<T>(Inner<T>);

#[derive(Debug)]
enum Inner<T> {
    Tokio(tokio::task::JoinHandle<T>),
    /// A task of the simulation, or one on its own thread.
    Own {
        result: oneshot::Receiver<Result<T, JoinError>>,
        abort: AbortHandle,
    },
}

impl<T> JoinHandle<T> {
    /// Stops the task at its next await.
    pub fn abort(&self) {
        match &self.0 {
            Inner::Tokio(handle) => handle.abort(),
            Inner::Own { abort, .. } => abort.abort(),
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Inner::Tokio(handle) => {
                Pin::new(handle).poll(cx).map_err(|e| JoinError { panicked: e.is_panic(), message: e.to_string() })
            }
            Inner::Own { result, .. } => {
                Pin::new(result).poll(cx).map(|r| r.unwrap_or_else(|_| Err(JoinError::cancelled())))
            }
        }
    }
}

/// Wraps a future so that its handle learns of its result, its panic or its abortion.
fn own_task<F>(future: F) -> (impl Future<Output = ()> + Send + 'static, JoinHandle<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (sender, result) = oneshot::channel();
    let (abort, registration) = AbortHandle::new_pair();
    let guarded = AssertUnwindSafe(Abortable::new(future, registration)).catch_unwind();
    let task = async move {
        let outcome = match guarded.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_aborted)) => Err(JoinError::cancelled()),
            Err(payload) => Err(JoinError { panicked: true, message: panic_message(&*payload) }),
        };
        // The handle may have been dropped: then the result is not needed.
        let _ = sender.send(outcome);
    };
    (task, JoinHandle(Inner::Own { result, abort }))
}

/// Starts a task on the current node that serves one caller, or whose end does no harm: its panic is counted and
/// logged. A task that other tasks rely on is started with [`spawn_critical`].
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(critical::counted(std::panic::Location::caller(), future))
}

/// Starts a task without which `owner` cannot continue: its panic ends the owner.
#[track_caller]
pub fn spawn_critical<F>(name: &'static str, owner: Owner, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(Critical::new(name, owner, future))
}

/// Starts a task that belongs to the current owner; without one, as [`spawn`]. For libraries that start tasks
/// themselves.
#[track_caller]
pub fn spawn_within<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match critical::current_owner() {
        Some(owner) => spawn_critical(name, owner, future),
        None => spawn(future),
    }
}

#[track_caller]
fn start<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match executor::current() {
        None => JoinHandle(Inner::Tokio(tokio::spawn(future))),
        Some(executor) => {
            let (task, handle) = own_task(future);
            executor.spawn(Box::pin(task), std::panic::Location::caller());
            handle
        }
    }
}

/// Starts a critical task on an OS thread of its own, for work that blocks again and again (a log's writer).
/// In a simulation it is a task like any other.
///
/// The thread inherits the caller's tokio runtime for timers, if there is one.
#[track_caller]
pub fn spawn_dedicated<F>(name: &'static str, owner: Owner, future: F) -> std::io::Result<JoinHandle<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (task, handle) = own_task(Critical::new(name, owner, future));
    if let Some(executor) = executor::current() {
        executor.spawn(Box::pin(task), std::panic::Location::caller());
        return Ok(handle);
    }
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _entered = runtime.as_ref().map(tokio::runtime::Handle::enter);
        park_on(task);
    })?;
    Ok(handle)
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps while the future waits.
fn park_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Blocks a task of [`spawn_dedicated`] until it is woken, for `at_most` so long: the runtime's timers count in
/// milliseconds, this in microseconds. False in a simulation, where it does not wait.
pub fn doze(at_most: Duration) -> bool {
    let real = executor::current().is_none();
    if real {
        std::thread::park_timeout(at_most);
    }
    real
}

/// Runs blocking work off the async threads (inline in a simulation).
#[track_caller]
pub fn spawn_blocking<T, F>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let place = std::panic::Location::caller();
    let work = move || critical::counting(place, work);
    if executor::current().is_none() {
        return JoinHandle(Inner::Tokio(tokio::task::spawn_blocking(work)));
    }
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|payload| JoinError { panicked: true, message: panic_message(&*payload) });
    let (sender, result) = oneshot::channel();
    let _ = sender.send(outcome);
    let (abort, _) = AbortHandle::new_pair();
    JoinHandle(Inner::Own { result, abort })
}

/// Runs long work on this thread, while another thread takes over its tasks. Inline in a simulation
/// and where there is no other thread.
pub fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let hands_over = executor::current().is_none()
        && Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if hands_over { tokio::task::block_in_place(work) } else { work() }
}

/// Lets every other task that is ready run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The node's monotonic clock.
#[must_use]
pub fn now() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    if let Some(executor) = executor::current() {
        return Instant(executor.local_now_ns());
    }
    let start = *START.get_or_init(std::time::Instant::now);
    Instant(nanos(start.elapsed()))
}

/// The node's wall clock: milliseconds since 1970. May jump; never used to order anything.
#[must_use]
pub fn wall_clock_ms() -> i64 {
    if let Some(executor) = executor::current() {
        return executor.wall_clock_ms();
    }
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A wait for a point in time.
#[derive(Debug)]
pub struct Sleep(SleepInner);

#[derive(Debug)]
enum SleepInner {
    Tokio(Pin<Box<tokio::time::Sleep>>),
    Sim(SimSleep),
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            SleepInner::Tokio(sleep) => sleep.as_mut().poll(cx),
            SleepInner::Sim(sleep) => Pin::new(sleep).poll(cx),
        }
    }
}

/// Waits for `duration`.
#[track_caller]
pub fn sleep(duration: Duration) -> Sleep {
    match executor::current() {
        None => Sleep(SleepInner::Tokio(Box::pin(tokio::time::sleep(duration)))),
        Some(executor) => Sleep(SleepInner::Sim(SimSleep::for_duration(executor, duration))),
    }
}

/// Waits until `deadline`.
#[track_caller]
pub fn sleep_until(deadline: Instant) -> Sleep {
    match executor::current() {
        None => sleep(deadline.since(now())),
        Some(executor) => Sleep(SleepInner::Sim(SimSleep::until(executor, deadline.0))),
    }
}

/// A future with a deadline.
#[derive(Debug)]
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    deadline: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.deadline).poll(cx).map(|()| Err(Elapsed))
    }
}

/// Runs `future` for at most `duration`.
#[track_caller]
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), deadline: sleep(duration) }
}

/// Runs `future` until `deadline` at the latest.
#[track_caller]
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout { future: Box::pin(future), deadline: sleep_until(deadline) }
}

/// A random number from the node's generator (seeded in a simulation).
#[must_use]
pub fn random_u64() -> u64 {
    match executor::current() {
        None => rand::random(),
        Some(executor) => executor.random_u64(),
    }
}
