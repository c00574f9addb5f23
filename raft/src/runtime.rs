//! openraft's `AsyncRuntime` over the facade `ottla_env::rt`: one implementation for tokio and for the
//! simulation.
//!
//! Channels other than watch are tokio's, which need no executor and wake in order. May not know: Raft.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::sync::Arc;
use std::time::Duration;

use openraft_rt::watch::{RecvError, SendError, WatchReceiver, WatchSender};
use openraft_rt::{
    AsyncRuntime, Mpsc, MpscReceiver, MpscSender, MpscWeakSender, Mutex, Oneshot, OneshotSender, OptionalSend,
    OptionalSync, TryRecvError, Watch,
};
use ottla_env::{rt, sim, watch};

/// The facade as openraft's runtime. A value of it is a simulation of its own (`new` and `block_on` are for tests).
pub(crate) struct Runtime {
    executor: Arc<sim::executor::Executor>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.executor.finish();
    }
}

/// Seed of simulations that were given no seed.
const SEED_DEFAULT: u64 = 1;

impl AsyncRuntime for Runtime {
    type JoinError = rt::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = rt::JoinHandle<T>;
    type Sleep = rt::Sleep;
    type Instant = Instant;
    type TimeoutError = rt::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = rt::Timeout<T>;
    type ThreadLocalRng = FacadeRng;
    type Mpsc = TokioMpsc;
    type Watch = FacadeWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        rt::spawn_within("openraft", future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        rt::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        rt::sleep_until(deadline.0)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        rt::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        rt::timeout_at(deadline.0, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        FacadeRng
    }

    fn new(_threads: usize) -> Self {
        Runtime { executor: sim::executor::Executor::new(SEED_DEFAULT) }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.executor.block_on(future)
    }

    async fn spawn_blocking<F, T>(f: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        rt::spawn_blocking(f).await.map_err(io::Error::other)
    }
}

/// A point on the node's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(pub(crate) rt::Instant);

impl openraft_rt::Instant for Instant {
    fn now() -> Self {
        Instant(rt::now())
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0 + rhs)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0 - rhs)
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, rhs: Instant) -> Duration {
        self.0.since(rhs.0)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, rhs: Duration) {
        *self = *self - rhs;
    }
}

/// Random numbers from the facade.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FacadeRng;

impl rand::TryRng for FacadeRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        #[allow(clippy::cast_possible_truncation)] // the lower half is what is wanted
        Ok(rt::random_u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(rt::random_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in out.chunks_mut(8) {
            let random = rt::random_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}

/// tokio's bounded queue.
#[derive(Debug)]
pub(crate) struct TokioMpsc;
/// Sending half.
pub(crate) struct MpscTx<T>(tokio::sync::mpsc::Sender<T>);
/// Receiving half.
pub(crate) struct MpscRx<T>(tokio::sync::mpsc::Receiver<T>);
/// Sending half that does not keep the queue open.
pub(crate) struct MpscWeakTx<T>(tokio::sync::mpsc::WeakSender<T>);

impl Mpsc for TokioMpsc {
    type Sender<T: OptionalSend> = MpscTx<T>;
    type Receiver<T: OptionalSend> = MpscRx<T>;
    type WeakSender<T: OptionalSend> = MpscWeakTx<T>;

    fn channel<T: OptionalSend>(buffer: usize) -> (MpscTx<T>, MpscRx<T>) {
        let (tx, rx) = tokio::sync::mpsc::channel(buffer);
        (MpscTx(tx), MpscRx(rx))
    }
}

impl<T> Clone for MpscTx<T> {
    fn clone(&self) -> Self {
        MpscTx(self.0.clone())
    }
}

impl<T: OptionalSend> MpscSender<TokioMpsc, T> for MpscTx<T> {
    async fn send(&self, message: T) -> Result<(), openraft_rt::SendError<T>> {
        self.0.send(message).await.map_err(|e| openraft_rt::SendError(e.0))
    }

    fn downgrade(&self) -> MpscWeakTx<T> {
        MpscWeakTx(self.0.downgrade())
    }
}

impl<T: OptionalSend> MpscReceiver<T> for MpscRx<T> {
    async fn recv(&mut self) -> Option<T> {
        self.0.recv().await
    }

    fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.0.try_recv().map_err(|e| match e {
            tokio::sync::mpsc::error::TryRecvError::Empty => TryRecvError::Empty,
            tokio::sync::mpsc::error::TryRecvError::Disconnected => TryRecvError::Disconnected,
        })
    }
}

impl<T> Clone for MpscWeakTx<T> {
    fn clone(&self) -> Self {
        MpscWeakTx(self.0.clone())
    }
}

impl<T: OptionalSend> MpscWeakSender<TokioMpsc, T> for MpscWeakTx<T> {
    fn upgrade(&self) -> Option<MpscTx<T>> {
        self.0.upgrade().map(MpscTx)
    }
}

/// tokio's oneshot.
#[derive(Debug)]
pub(crate) struct TokioOneshot;
/// Sending half.
pub(crate) struct OneshotTx<T>(tokio::sync::oneshot::Sender<T>);

impl Oneshot for TokioOneshot {
    type Sender<T: OptionalSend> = OneshotTx<T>;
    type Receiver<T: OptionalSend> = tokio::sync::oneshot::Receiver<T>;
    type ReceiverError = tokio::sync::oneshot::error::RecvError;

    fn channel<T: OptionalSend>() -> (OneshotTx<T>, Self::Receiver<T>) {
        let (tx, rx) = tokio::sync::oneshot::channel();
        (OneshotTx(tx), rx)
    }
}

impl<T: OptionalSend> OneshotSender<T> for OneshotTx<T> {
    fn send(self, value: T) -> Result<(), T> {
        self.0.send(value)
    }
}

/// tokio's mutex, which is fair.
pub(crate) struct TokioMutex<T>(tokio::sync::Mutex<T>);

impl<T: OptionalSend + 'static> Mutex<T> for TokioMutex<T> {
    type Guard<'a> = tokio::sync::MutexGuard<'a, T>;

    fn new(value: T) -> Self {
        TokioMutex(tokio::sync::Mutex::new(value))
    }

    async fn lock(&self) -> Self::Guard<'_> {
        self.0.lock().await
    }
}

/// The facade's watch channel.
#[derive(Debug)]
pub(crate) struct FacadeWatch;
/// Sending half.
pub(crate) struct WatchTx<T>(watch::Sender<T>);
/// Receiving half.
pub(crate) struct WatchRx<T>(watch::Receiver<T>);

impl Watch for FacadeWatch {
    type Sender<T: OptionalSend + OptionalSync> = WatchTx<T>;
    type Receiver<T: OptionalSend + OptionalSync> = WatchRx<T>;
    type Ref<'a, T: OptionalSend + 'a> = watch::Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (WatchTx<T>, WatchRx<T>) {
        let (tx, rx) = watch::channel(init);
        (WatchTx(tx), WatchRx(rx))
    }
}

impl<T> Clone for WatchTx<T> {
    fn clone(&self) -> Self {
        WatchTx(self.0.clone())
    }
}

impl<T> Clone for WatchRx<T> {
    fn clone(&self) -> Self {
        WatchRx(self.0.clone())
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<FacadeWatch, T> for WatchTx<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        self.0.send(value).map_err(|e| SendError(e.0))
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> WatchRx<T> {
        WatchRx(self.0.subscribe())
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<FacadeWatch, T> for WatchRx<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        self.0.changed().await.map_err(|_| RecvError(()))
    }

    fn borrow_watched(&self) -> watch::Ref<'_, T> {
        self.0.borrow()
    }

    fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.0.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_s_runtime_suite_passes_in_simulation() {
        openraft_rt::testing::Suite::<Runtime>::test_all();
    }
}
