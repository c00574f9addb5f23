//! Leader epochs against a model that notes the epoch of every single record.

use std::collections::BTreeMap;

use ottla_model::{Random, lives};
use ottla_protocol::ids::{LeaderEpoch, Offset};

use crate::replicated::epochs::{EpochHistory, EpochStart};

/// The records that are left, each with its epoch, and the newest epoch that ever had one.
#[derive(Default)]
struct Model {
    records: BTreeMap<i64, i32>,
    newest: Option<i32>,
    log_start: i64,
    end: i64,
}

impl Model {
    /// Every epoch that is still known, with its first offset that can be read.
    fn known(&self) -> BTreeMap<i32, i64> {
        let mut known = BTreeMap::new();
        for (offset, epoch) in &self.records {
            known.entry(*epoch).or_insert(*offset);
        }
        // The newest outlives its records.
        if let Some(newest) = self.newest {
            known.entry(newest).or_insert(self.log_start);
        }
        known
    }

    fn epoch_of(&self, offset: i64) -> Option<i32> {
        if offset < self.log_start {
            return None;
        }
        self.records.get(&offset).copied().or(self.newest)
    }

    /// Where `requested` ends, if the leader's epoch is `current`: as KIP-101 and KIP-320 have it.
    fn end_of(&self, requested: i32, current: i32) -> Option<(i32, i64)> {
        let known = self.known();
        let next = known.iter().find(|(epoch, _)| **epoch > requested);
        let last = known.keys().copied().filter(|epoch| *epoch <= requested).max();
        match (requested == current, next, last) {
            (true, _, _) => Some((current, self.end)),
            (false, Some((_, start)), last) => Some((last.unwrap_or(requested), *start)),
            (false, None, Some(last)) if requested < current => Some((last, self.end)),
            (false, None, _) => None,
        }
    }
}

fn check(history: &EpochHistory, model: &Model, current: i32) {
    let known: Vec<_> =
        model.known().into_iter().map(|(e, o)| EpochStart { epoch: LeaderEpoch(e), start: Offset(o) }).collect();
    assert_eq!(history.starts(), known);
    assert!(known.is_sorted_by(|a, b| a.epoch < b.epoch && a.start < b.start), "{known:?}");
    assert_eq!(history.newest().map(|epoch| epoch.0), model.newest);
    for offset in [model.log_start - 1, model.log_start, model.end - 1, model.end] {
        assert_eq!(history.epoch_of(Offset(offset)).map(|e| e.0), model.epoch_of(offset), "offset {offset}");
    }
    for requested in current - 6..=current + 1 {
        let end = history.end_of(LeaderEpoch(requested), LeaderEpoch(current), Offset(model.end));
        let expected = model.end_of(requested, current);
        assert_eq!(end.map(|(e, o)| (e.0, o.0)), expected, "epoch {requested} of {current}");
    }
}

fn step(random: &mut Random, history: &mut EpochHistory, model: &mut Model, current: &mut i32) {
    match random.below(10) {
        0 => *current += i32::try_from(random.between(1, 3)).unwrap(),
        1 | 2 => {
            let to = random.between(model.log_start, model.end);
            let to = if random.once_in(4) { model.end } else { to };
            let before = history.starts().to_vec();
            // As apply does: only a log start that moves prunes.
            if to > model.log_start {
                model.log_start = to;
                model.records = model.records.split_off(&to);
                assert_eq!(history.prune(Offset(to)), history.starts() != before);
            }
        }
        3 => *history = EpochHistory::restored(history.starts().to_vec()),
        _ => {
            let is_new = model.newest != Some(*current);
            assert_eq!(history.note_append(LeaderEpoch(*current), Offset(model.end)), is_new);
            let count = random.between(1, 4);
            model.records.extend((model.end..model.end + count).map(|offset| (offset, *current)));
            model.newest = Some(*current);
            model.end += count;
        }
    }
    let offset = random.between(model.log_start - 2, model.end + 1);
    assert_eq!(history.epoch_of(Offset(offset)).map(|epoch| epoch.0), model.epoch_of(offset), "offset {offset}");
}

#[test]
fn epochs_are_those_of_a_model_that_notes_each_record() {
    lives(20_000, 100, |random, steps| {
        let (mut history, mut model, mut current) = (EpochHistory::default(), Model::default(), 0);
        for _ in 0..steps {
            step(random, &mut history, &mut model, &mut current);
            check(&history, &model, current);
        }
    });
}
