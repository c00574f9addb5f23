//! The window: HTTP for people and tools. Health, metrics, a small JSON API.

#[cfg(any())]
mod api;
#[cfg(any())]
mod exposition;
#[cfg(any())]
mod families;
#[cfg(any())]
mod lag;
pub mod readiness;

pub use readiness::Readiness;
