//! What a controller remembers for the balancer: the load that nodes have reported, what was done, and what an operator asked for.
//!
//! In memory, and of one term of leadership: another controller begins with what the metadata has kept of what was done. May not know:
//! how an action is carried out.

use std::collections::VecDeque;

use super::history::History;
use super::load::{ClusterLoad, LoadReport};
use super::on_demand;
use super::plan::{NodeShare, plan, shares};
use crate::codec::record;
use crate::metadata::action::{Action, Done};
use crate::metadata::clock::Clock;
use crate::metadata::command::Command;
use crate::metadata::image::MetadataImage;
use crate::metadata::{moves, topic_shards};

/// What operators are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceStatus {
    /// `ottla.balance.enable`: the plan is carried out by itself.
    pub enabled: bool,
    /// Every node has reported its load, so that there can be a plan.
    pub complete: bool,
    /// What each node has of the whole.
    pub shares: Vec<NodeShare>,
    /// What is to be done, in this order.
    pub plan: Vec<Action>,
    /// What an operator asked for and has not been done yet.
    pub applying: Vec<Action>,
    /// What was done, the newest last.
    pub history: Vec<Done>,
}

record! {
    BalanceStatus { enabled, complete, shares, plan, applying, history }
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(in crate::metadata) struct BalanceState {
    term: Option<u64>,
    load: ClusterLoad,
    history: History,
    applying: VecDeque<Action>,
}

impl BalanceState {
    /// Forgets what belongs to another term of leadership.
    fn enter(&mut self, term: u64, image: &MetadataImage, clock: &Clock) {
        if self.term != Some(term) {
            *self = Self { term: Some(term), history: History::kept(image, clock), ..Self::default() };
        }
    }

    pub(in crate::metadata) fn report(&mut self, report: LoadReport, term: u64, image: &MetadataImage, clock: &Clock) {
        self.enter(term, image, clock);
        self.load.record(report, image, clock.now);
    }

    /// The steps to be taken now, where nothing else is due ([`moves::due`]): those that an operator asked for, or the first of the
    /// plan.
    pub(in crate::metadata) fn due(&mut self, term: u64, image: &MetadataImage, clock: &Clock) -> Vec<Action> {
        self.enter(term, image, clock);
        self.applying.retain(|action| moves::balanced(image, action).is_some());
        let actions: Vec<Action> = match self.applying.is_empty() && image.config.replication.balance {
            true => self.plan(image, clock),
            false => self.applying.iter().cloned().collect(),
        };
        let (mut moves, mut resizes) = (moves::room(image), topic_shards::room(image));
        let mut has_room = |action: &Action| {
            // A shard that is to be merged may have to be moved first.
            let is_move = matches!(moves::balanced(image, action), Some(Command::SetReplicas { .. }));
            let room = if is_move { &mut moves } else { &mut resizes };
            let is_one = *room > 0;
            *room -= usize::from(is_one);
            is_one
        };
        actions.into_iter().filter(&mut has_room).collect()
    }

    #[cfg(test)]
    pub(in crate::metadata) fn recent(&self, now: ottla_env::rt::Instant) -> super::history::Recent {
        self.history.recent(now)
    }

    fn plan(&self, image: &MetadataImage, clock: &Clock) -> Vec<Action> {
        if !self.load.is_complete(image, clock.now) {
            return Vec::new();
        }
        // What a topic's shards are to be comes first: a merge needs two of them side by side.
        let steps = on_demand::steps(image, &self.load);
        if !steps.is_empty() || !on_demand::are_at_rest(image) || !topic_shards::are_settled(image) {
            return steps;
        }
        plan(image, &self.load, &self.history.recent(clock.now))
    }

    /// A step was taken; `image`: as it was before.
    pub(in crate::metadata) fn done(&mut self, action: &Action, image: &MetadataImage, clock: &Clock) {
        self.applying.retain(|other| other != action);
        self.history.add(action, image, clock);
    }

    /// Shows the plan and what was done; `apply`: the plan is to be carried out, also where that is disabled.
    pub(in crate::metadata) fn status(
        &mut self,
        term: u64,
        image: &MetadataImage,
        clock: &Clock,
        apply: bool,
    ) -> BalanceStatus {
        self.enter(term, image, clock);
        let plan = self.plan(image, clock);
        if apply {
            self.applying = plan.iter().cloned().collect();
        }
        BalanceStatus {
            enabled: image.config.replication.balance,
            complete: self.load.is_complete(image, clock.now),
            shares: shares(image, &self.load),
            plan,
            applying: self.applying.iter().cloned().collect(),
            history: self.history.all(),
        }
    }
}
