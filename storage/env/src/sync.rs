//! Locks and atomics of state that threads share. With the feature `shuttle` they are shuttle's, so that its tests try
//! many interleavings of the threads; the feature is for these tests alone and never in a release build.

#[cfg(all(feature = "shuttle", not(debug_assertions)))]
compile_error!("the feature `shuttle` is for tests only");

#[cfg(not(feature = "shuttle"))]
pub use parking_lot::{Mutex, RwLock, RwLockReadGuard};
#[cfg(not(feature = "shuttle"))]
pub use std::sync::atomic::AtomicI64;

#[cfg(feature = "shuttle")]
pub use shuttle::sync::{RwLockReadGuard, atomic::AtomicI64};
#[cfg(feature = "shuttle")]
pub use shuttled::{Mutex, RwLock};

/// Shuttle's locks with the API of parking_lot's.
#[cfg(feature = "shuttle")]
mod shuttled {
    use shuttle::sync;
    use std::sync::PoisonError;

    /// A mutex.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        /// An open one.
        pub fn new(value: T) -> Self {
            Self(sync::Mutex::new(value))
        }

        /// Waits for it.
        pub fn lock(&self) -> sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// A lock for many readers or one writer.
    #[derive(Debug, Default)]
    pub struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        /// An open one.
        pub fn new(value: T) -> Self {
            Self(sync::RwLock::new(value))
        }

        /// Waits to read.
        pub fn read(&self) -> sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        /// Waits to write.
        pub fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
