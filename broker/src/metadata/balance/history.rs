//! What the balancer did and why, in the memory of the controller, and which shards rest for that reason.
//!
//! May not know: why anything was done, beyond the sentence.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ottla_env::rt::Instant;

use super::action::Action;
use crate::codec::record;
use crate::metadata::image::ShardId;

/// The newest actions that are kept.
const KEPT: usize = 200;
/// How long a shard stays where it has been put.
const REST: Duration = Duration::from_secs(60);

/// An action that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Wall clock of the controller, milliseconds.
    pub at_ms: i64,
    /// What was done.
    pub action: Action,
}

record! {
    Done { at_ms, action }
}

/// The newest actions of this controller.
#[derive(Debug, Default)]
pub(super) struct History {
    done: VecDeque<(Instant, Done)>,
}

impl History {
    pub(super) fn add(&mut self, action: Action, now: Instant, at_ms: i64) {
        if self.done.len() == KEPT {
            self.done.pop_front();
        }
        self.done.push_back((now, Done { at_ms, action }));
    }

    /// Shards that were put elsewhere a short time ago.
    pub(super) fn resting(&self, now: Instant) -> BTreeSet<ShardId> {
        let recent = self.done.iter().rev().take_while(|(at, _)| now.since(*at) < REST);
        recent.map(|(_, done)| done.action.change.shard()).collect()
    }

    /// The newest ones last.
    pub(super) fn all(&self) -> Vec<Done> {
        self.done.iter().map(|(_, done)| done.clone()).collect()
    }
}
