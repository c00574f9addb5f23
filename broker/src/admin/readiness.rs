//! The progress of a node's startup, for `/readyz` and the log. May not know: what the steps do.

use std::sync::Arc;

use ottla_env::rt::{self, Instant};
use parking_lot::Mutex;
use serde::Serialize;

/// The phase of a node between start and stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading the configuration, binding sockets.
    Starting,
    /// Recovering the data directories.
    Recovering,
    /// Waiting until shards have leaders.
    Joining,
    /// Serving clients.
    Serving,
    /// Shutting down.
    Stopping,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether the node serves clients.
    pub ready: bool,
    /// The phase of the node.
    pub phase: Phase,
    /// The current step, in words.
    pub step: String,
    /// Steps of this phase that are done.
    pub done: usize,
    /// All steps of this phase.
    pub of: usize,
    /// Since the process began.
    pub elapsed_ms: u64,
}

#[derive(Debug)]
struct State {
    began: Instant,
    phase: Phase,
    step: String,
    done: usize,
    of: usize,
}

/// The node's progress; cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<State>>);

impl Default for Readiness {
    fn default() -> Self {
        let state = State {
            began: rt::now(),
            phase: Phase::Starting,
            step: "reading the configuration".into(),
            done: 0,
            of: 1,
        };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl Readiness {
    /// Enters a step, with `done` of `of` steps of its phase done. Ignored once the node is stopping.
    pub fn enter(&self, phase: Phase, step: impl Into<String>, done: usize, of: usize) {
        let mut state = self.0.lock();
        if state.phase == Phase::Stopping {
            return;
        }
        (state.phase, state.step, state.done, state.of) = (phase, step.into(), done, of);
        tracing::debug!("{:?}: {}", state.phase, state.step);
    }

    /// The current progress.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.0.lock();
        Report {
            ready: state.phase == Phase::Serving,
            phase: state.phase,
            step: state.step.clone(),
            done: state.done,
            of: state.of,
            elapsed_ms: u64::try_from(rt::now().since(state.began).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Since the process began.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        self.report().elapsed_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_serving_node_is_ready() {
        let readiness = Readiness::default();
        assert!(!readiness.report().ready);
        readiness.enter(Phase::Recovering, "reading the log of /data", 0, 2);
        let json = serde_json::to_value(readiness.report()).unwrap();
        assert_eq!((json["phase"].as_str(), json["ready"].as_bool()), (Some("recovering"), Some(false)));
        readiness.enter(Phase::Serving, "serving", 1, 1);
        assert!(readiness.report().ready);
        readiness.enter(Phase::Stopping, "stopping", 0, 1);
        readiness.enter(Phase::Serving, "serving", 1, 1);
        assert!(!readiness.report().ready, "a step that ends late does not bring it back");
    }
}
