//! What a controller remembers for the balancer: the load that nodes have reported, what was done, and what an operator asked for.
//!
//! In memory, and of one term of leadership: another controller begins without any. May not know: how an action is carried out.

use std::collections::VecDeque;

use ottla_env::rt::Instant;

use super::action::Action;
use super::history::{Done, History};
use super::load::{ClusterLoad, LoadReport};
use super::on_demand;
use super::plan::{NodeShare, plan, shares};
use crate::codec::record;
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
    /// What this controller did, the newest last.
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
    fn enter(&mut self, term: u64) {
        if self.term != Some(term) {
            *self = Self { term: Some(term), ..Self::default() };
        }
    }

    pub(in crate::metadata) fn report(&mut self, report: LoadReport, term: u64, image: &MetadataImage, now: Instant) {
        self.enter(term);
        self.load.record(report, image, now);
    }

    /// The steps to be taken now, where nothing else is due ([`moves::due`]): those that an operator asked for, or the first of the
    /// plan.
    pub(in crate::metadata) fn due(&mut self, term: u64, image: &MetadataImage, now: Instant) -> Vec<Action> {
        self.enter(term);
        self.applying.retain(|action| moves::balanced(image, action).is_some());
        let actions: Vec<Action> = match self.applying.is_empty() && image.config.replication.balance {
            true => self.plan(image, now),
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

    fn plan(&self, image: &MetadataImage, now: Instant) -> Vec<Action> {
        if !self.load.is_complete(image, now) {
            return Vec::new();
        }
        // What a topic's shards are to be comes first: a merge needs two of them side by side.
        let steps = on_demand::steps(image, &self.load);
        if !steps.is_empty() || !on_demand::are_at_rest(image) || !topic_shards::are_settled(image) {
            return steps;
        }
        plan(image, &self.load, &self.history.recent(now))
    }

    /// A step was taken; `image`: as it was before.
    pub(in crate::metadata) fn done(&mut self, action: Action, image: &MetadataImage, now: Instant, at_ms: i64) {
        self.applying.retain(|other| *other != action);
        self.history.add(action, image, now, at_ms);
    }

    /// Shows the plan and what was done; `apply`: the plan is to be carried out, also where that is disabled.
    pub(in crate::metadata) fn status(
        &mut self,
        term: u64,
        image: &MetadataImage,
        now: Instant,
        apply: bool,
    ) -> BalanceStatus {
        self.enter(term);
        let plan = self.plan(image, now);
        if apply {
            self.applying = plan.iter().cloned().collect();
        }
        BalanceStatus {
            enabled: image.config.replication.balance,
            complete: self.load.is_complete(image, now),
            shares: shares(image, &self.load),
            plan,
            applying: self.applying.iter().cloned().collect(),
            history: self.history.all(),
        }
    }
}
