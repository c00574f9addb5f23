//! Producers against a model that forgets nothing: every batch that was ever accepted, looked at from the newest back.

use std::collections::BTreeMap;

use ottla_model::{Random, lives};
use ottla_protocol::ids::{Offset, ProducerId};

use crate::replicated::producer_state::{Claim, ProducerHistory, ProducerTable, RememberedBatch, SequenceVerdict};

/// A producer's sequences run through 2^31 numbers.
const SEQUENCES: i64 = 1 << 31;

#[derive(Clone)]
struct Accepted {
    claim: Claim,
    first: i64,
    last: i64,
    offset: i64,
    seen_ms: i64,
    order: u64,
}

#[derive(Default)]
struct Known {
    accepted: Vec<Accepted>,
    transaction: Option<Offset>,
}

impl Known {
    fn newest(&self) -> &Accepted {
        self.accepted.last().unwrap()
    }

    /// The last five batches of the current epoch with sequences, oldest first.
    fn remembered(&self) -> Vec<&Accepted> {
        let epoch = self.newest().claim.epoch;
        let of_epoch = self.accepted.iter().rev().take_while(|batch| batch.claim.epoch == epoch);
        let mut newest_first: Vec<_> = of_epoch.filter(|batch| batch.first >= 0).take(5).collect();
        newest_first.reverse();
        newest_first
    }
}

#[derive(Default)]
struct Model {
    producers: BTreeMap<i64, Known>,
}

fn span(claim: &Claim) -> (i64, i64) {
    let first = i64::from(claim.first_sequence);
    (first, (first + i64::from(claim.last_offset_delta)) % SEQUENCES)
}

fn shown(batch: &Accepted) -> RememberedBatch {
    RememberedBatch {
        first_sequence: i32::try_from(batch.first).unwrap(),
        last_sequence: i32::try_from(batch.last).unwrap(),
        base_offset: Offset(batch.offset),
        timestamp_ms: batch.claim.timestamp_ms,
        log_append_time: batch.claim.log_append_time,
    }
}

impl Model {
    fn judge(&self, claim: &Claim) -> SequenceVerdict {
        let Some(known) = self.producers.get(&claim.producer_id.0) else { return SequenceVerdict::Append };
        let newest = known.newest();
        let (first, last) = span(claim);
        if first < 0 && claim.epoch >= newest.claim.epoch {
            return SequenceVerdict::Append;
        }
        if claim.epoch != newest.claim.epoch {
            return match (claim.epoch > newest.claim.epoch, first) {
                (false, _) => SequenceVerdict::Fenced,
                (true, 0) => SequenceVerdict::Append,
                (true, _) => SequenceVerdict::OutOfOrder,
            };
        }
        if let Some(again) = known.remembered().into_iter().find(|batch| (batch.first, batch.last) == (first, last)) {
            return SequenceVerdict::Duplicate(shown(again));
        }
        let expected = known.remembered().last().map_or(0, |last| (last.last + 1) % SEQUENCES);
        if first == expected { SequenceVerdict::Append } else { SequenceVerdict::OutOfOrder }
    }

    fn idle_longest(&self) -> Option<ProducerId> {
        let closed = self.producers.iter().filter(|(_, known)| known.transaction.is_none());
        closed.min_by_key(|(_, known)| known.newest().order).map(|(id, _)| ProducerId(*id))
    }

    fn expired(&self, cutoff_ms: i64) -> Vec<ProducerId> {
        let old = |known: &Known| known.newest().seen_ms < cutoff_ms && known.transaction.is_none();
        self.producers.iter().filter(|(_, known)| old(known)).map(|(id, _)| ProducerId(*id)).collect()
    }

    fn check(&self, table: &ProducerTable) {
        assert_eq!(table.len(), self.producers.len());
        assert_eq!(table.eviction_candidate(), self.idle_longest());
        for ((id, history), (expected_id, known)) in table.iter().zip(&self.producers) {
            let newest = known.newest();
            let expected = ProducerHistory {
                epoch: newest.claim.epoch,
                batches: known.remembered().into_iter().map(shown).collect(),
                timestamp_ms: newest.claim.timestamp_ms,
                seen_ms: newest.seen_ms,
                order: newest.order,
                coordinator_epoch: -1,
                transaction_start: known.transaction,
                last_marker: 0,
            };
            assert_eq!((id, history), (ProducerId(*expected_id), &expected));
        }
    }
}

/// A claim near what the producer has sent: the next batch, an old one, one beside them, under an epoch beside its own.
fn claim(random: &mut Random, model: &Model) -> Claim {
    let producer = random.between(1, 6);
    let sent: &[Accepted] = model.producers.get(&producer).map_or(&[], |known| &known.accepted);
    let newest = sent.last();
    let epoch = newest.map_or(0, |newest| newest.claim.epoch) + [0, 0, 0, 0, 0, 0, 1, -1][random.index(8)];
    let sequenced = sent.iter().rev().find(|batch| batch.first >= 0);
    let next = sequenced.map_or(0, |newest| (newest.last + 1) % SEQUENCES);
    let near_end = random.between(SEQUENCES - 9, SEQUENCES - 1);
    let count = if random.once_in(60) { random.between(1, SEQUENCES - 1) } else { random.between(1, 4) };
    let (first, count) = match random.below(11) {
        0 => (0, count),
        // A coordinator writes for the producer.
        10 => (-1, random.between(1, 4)),
        1 => ((next + 1) % SEQUENCES, count),
        2 => (if newest.is_none() { near_end } else { (next - 1).max(0) }, count),
        3 | 4 if !sent.is_empty() => {
            let back = random.index(sent.len().min(8));
            let old = &sent[sent.len() - 1 - back];
            let count = i64::from(old.claim.last_offset_delta) + 1;
            (old.first, if random.once_in(5) { (count + 1).min(SEQUENCES) } else { count })
        }
        _ => (next, count),
    };
    Claim {
        producer_id: ProducerId(producer),
        epoch,
        first_sequence: i32::try_from(first).unwrap(),
        last_offset_delta: i32::try_from(count - 1).unwrap(),
        timestamp_ms: random.between(0, 1_000),
        log_append_time: random.once_in(4),
    }
}

fn step(random: &mut Random, table: &mut ProducerTable, model: &mut Model, (now_ms, order): (i64, u64)) {
    match random.below(40) {
        0 => {
            let cutoff_ms = now_ms - random.between(0, 60);
            let expired = table.expired(cutoff_ms);
            assert_eq!(expired, model.expired(cutoff_ms));
            for id in expired {
                assert!(table.remove(id).is_some() && model.producers.remove(&id.0).is_some());
            }
        }
        1 => {
            if let Some(id) = table.eviction_candidate() {
                assert!(table.remove(id).is_some() && model.producers.remove(&id.0).is_some());
            }
        }
        2 => {
            // From a checkpoint, in the order of ids.
            let kept: Vec<_> = table.iter().map(|(id, history)| (id, history.clone())).collect();
            *table = ProducerTable::default();
            kept.into_iter().for_each(|(id, history)| table.restore(id, history));
        }
        3 => {
            let ids: Vec<i64> = model.producers.keys().copied().collect();
            if let Some(id) = random.pick(&ids) {
                let known = model.producers.get_mut(id).unwrap();
                known.transaction = known.transaction.xor(Some(Offset(now_ms)));
                let mut history = table.remove(ProducerId(*id)).unwrap();
                history.transaction_start = known.transaction;
                table.restore(ProducerId(*id), history);
            }
        }
        _ => {
            let claim = claim(random, model);
            let verdict = table.judge(&claim);
            assert_eq!(verdict, model.judge(&claim), "{claim:?}");
            if verdict == SequenceVerdict::Append {
                let known = model.producers.entry(claim.producer_id.0).or_default();
                let replaced = known.accepted.last().map(|newest| newest.order);
                let offset = i64::try_from(order).unwrap() * 10;
                assert_eq!(table.record(&claim, Offset(offset), now_ms, order, false).replaced, replaced);
                let (first, last) = span(&claim);
                known.accepted.push(Accepted { claim, first, last, offset, seen_ms: now_ms, order });
            }
        }
    }
}

#[test]
fn producers_are_judged_as_by_a_model_that_remembers_every_batch() {
    lives(30_000, 300, |random, steps| {
        let (mut table, mut model) = (ProducerTable::default(), Model::default());
        let mut now_ms = 0;
        for order in 1..=steps {
            now_ms += random.between(0, 3);
            step(random, &mut table, &mut model, (now_ms, order));
            model.check(&table);
        }
    });
}
