//! Ways to spoil a sound history, each with the law that must notice.
//!
//! Each takes a number that picks the place, and returns `None` if there is none.

// All have one type, and two of them make a history longer.
#![allow(clippy::ptr_arg)]

use ottla_checker::Law;
use ottla_checker::event::{Action, Event, Micro, Phase, Record, Sent};

use crate::model::COMPACTED;

pub(crate) type Mutate = fn(&mut Vec<Event>, usize) -> Option<()>;

pub(crate) const ALL: &[(&str, Law, Mutate)] = &[
    ("unread", Law::Unseen, unread),
    ("drop from a poll", Law::IntPollSkip, drop_one),
    ("drop a poll's end", Law::PollSkip, drop_between),
    ("duplicate", Law::Duplicate, duplicate),
    ("swap values", Law::InconsistentOffsets, swap_values),
    ("swap records", Law::IntNonmonotonicPoll, swap_records),
    ("shift an acknowledgement", Law::InconsistentOffsets, shift),
    ("fail what was read", Law::G1a, fail),
    ("abort what was read", Law::G1a, abort),
    ("a value from nowhere", Law::PhantomRead, phantom),
    ("read before it was sent", Law::G1cRealtime, early),
    ("a zombie's epoch", Law::ProducerFencing, zombie),
    ("a sequence again", Law::IdempotentDuplicate, sequence),
    ("half a transfer", Law::BankSum, half),
    ("forget a commit", Law::CommittedOffsetForgotten, forget),
    ("invent a commit", Law::CommittedOffsetInvented, invent),
];

fn pick<T>(list: Vec<T>, seed: usize) -> Option<T> {
    let at = seed.checked_rem(list.len())?;
    list.into_iter().nth(at)
}

/// The lists of records that an event returned.
fn polls(event: &mut Event) -> Vec<&mut Vec<Record>> {
    if event.phase == Phase::Invoke {
        return Vec::new();
    }
    match &mut event.action {
        Action::Poll(polled) => vec![&mut polled.records],
        Action::Read(read) => vec![&mut read.records],
        Action::Txn(txn) => txn
            .micro
            .iter_mut()
            .filter_map(|micro| match micro {
                Micro::Poll(records) => Some(records),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn returned(event: &mut Event) -> Vec<Record> {
    polls(event).into_iter().flat_map(|list| list.iter().copied()).collect()
}

fn sends(event: &mut Event) -> Vec<&mut Sent> {
    match &mut event.action {
        Action::Send(list) => list.iter_mut().collect(),
        Action::Txn(txn) => txn
            .micro
            .iter_mut()
            .filter_map(|micro| match micro {
                Micro::Send(sent) => Some(sent),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn committed(event: &Event) -> bool {
    event.phase == Phase::Ok && !matches!(&event.action, Action::Txn(txn) if txn.abort)
}

/// Records of the last full read: committed, not deleted, not superseded.
fn final_records(events: &mut [Event]) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for list in events.last_mut().map(polls).unwrap_or_default() {
        records.extend(list.iter());
    }
    records
}

fn acknowledged(events: &mut [Event]) -> Vec<Sent> {
    events.iter_mut().filter(|event| committed(event)).flat_map(sends).map(|sent| *sent).collect()
}

fn remove_everywhere(events: &mut [Event], (partition, value): (u32, u64)) {
    for list in events.iter_mut().flat_map(polls) {
        list.retain(|record| (record.partition, record.value) != (partition, value));
    }
}

fn unread(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let acknowledged = acknowledged(events);
    let known = |record: &Record| acknowledged.iter().any(|sent| sent.value == record.value);
    let record = pick(final_records(events).into_iter().filter(known).collect(), seed)?;
    remove_everywhere(events, (record.partition, record.value));
    Some(())
}

/// Takes a record that others prove out of the final read.
fn drop_one(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let acknowledged = acknowledged(events);
    let known = |record: &Record| acknowledged.iter().any(|sent| sent.value == record.value);
    let record = pick(final_records(events).into_iter().filter(known).collect(), seed)?;
    for list in polls(events.last_mut()?) {
        list.retain(|other| other != &record);
    }
    Some(())
}

/// Takes a poll's only record of a partition away, where its client goes on behind it.
fn drop_between(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let last = final_records(events);
    let mut places = Vec::new();
    for at in 0..events.len() {
        let (client, polled) =
            (events[at].client, matches!(events[at].action, Action::Poll(_)) && committed(&events[at]));
        for record in if polled { returned(&mut events[at]) } else { Vec::new() } {
            let mine = |event: &&mut Event| event.client == client && matches!(event.action, Action::Poll(_));
            let mut before = events[..at].iter_mut().filter(mine).flat_map(polls).flatten();
            let before = before.any(|other| other.partition == record.partition);
            let mut after = events[at + 1..].iter_mut().filter(mine).flat_map(polls).flatten();
            let after = after.any(|other| other.partition == record.partition);
            let assigned = |event: &Event| event.client == client && matches!(event.action, Action::Assign { .. });
            let moved = events.iter().filter(|event| assigned(event)).count() > 2;
            let alone = returned(&mut events[at]).iter().filter(|r| r.partition == record.partition).count() == 1;
            if before && after && alone && !moved && last.contains(&record) && record.partition != COMPACTED as u32 {
                places.push((at, record));
            }
        }
    }
    let (at, record) = pick(places, seed)?;
    polls(&mut events[at]).into_iter().for_each(|list| list.retain(|other| other != &record));
    Some(())
}

/// The final read ends with a record that it has shown already.
fn duplicate(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let record = pick(final_records(events), seed)?;
    let Action::Read(read) = &mut events.last_mut()?.action else { return None };
    let end = read.ends.iter_mut().find(|end| end.0 == record.partition)?;
    let at = read.records.iter().rposition(|other| other.partition == record.partition)?;
    read.records.insert(at + 1, Record { offset: end.1, ..record });
    end.1 += 1;
    Some(())
}

/// Two neighbours of the final read change their values.
fn swap_values(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let acknowledged = acknowledged(events);
    let known = |record: &Record| acknowledged.iter().any(|sent| sent.value == record.value);
    let mut lists = polls(events.last_mut()?);
    let list = lists.pop()?;
    let fits = |at: &usize| list[*at].partition == list[at + 1].partition && known(&list[*at]) && known(&list[at + 1]);
    let at = pick((0..list.len().saturating_sub(1)).filter(fits).collect(), seed)?;
    let value = list[at].value;
    list[at].value = std::mem::replace(&mut list[at + 1].value, value);
    Some(())
}

/// Two neighbours of the final read change places.
fn swap_records(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let mut lists = polls(events.last_mut()?);
    let list = lists.pop()?;
    let fits = |at: &usize| list[*at].partition == list[at + 1].partition;
    let at = pick((0..list.len().saturating_sub(1)).filter(fits).collect(), seed)?;
    list.swap(at, at + 1);
    Some(())
}

/// An acknowledgement names the next record's offset.
fn shift(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let last = final_records(events);
    let mut places = Vec::new();
    for at in (0..events.len()).filter(|&at| committed(&events[at])) {
        for (which, sent) in sends(&mut events[at].clone()).into_iter().enumerate() {
            let next = |record: &Record| {
                record.partition == sent.partition && Some(record.offset) == sent.offset.map(|o| o + 1)
            };
            if last.iter().any(next) {
                places.push((at, which));
            }
        }
    }
    let (at, which) = pick(places, seed)?;
    let sent = sends(&mut events[at]).into_iter().nth(which)?;
    sent.offset = sent.offset.map(|offset| offset + 1);
    Some(())
}

/// Events that end a write of which the final read shows something.
fn shown(events: &mut Vec<Event>, fits: impl Fn(&Event) -> bool) -> Vec<usize> {
    let last = final_records(events);
    let shown = |event: &Event| {
        let mut event = event.clone();
        sends(&mut event).iter().any(|sent| last.iter().any(|record| record.value == sent.value))
    };
    (0..events.len()).filter(|&at| fits(&events[at]) && shown(&events[at])).collect()
}

fn fail(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let at = pick(shown(events, |event| event.phase == Phase::Ok && committed(event)), seed)?;
    events[at].phase = Phase::Fail;
    Some(())
}

fn abort(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let transaction = |event: &Event| committed(event) && matches!(event.action, Action::Txn(_));
    let at = pick(shown(events, transaction), seed)?;
    let Action::Txn(txn) = &mut events[at].action else { return None };
    txn.abort = true;
    Some(())
}

fn phantom(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let record = pick(final_records(events), seed)?;
    for list in polls(events.last_mut()?) {
        list.iter_mut().filter(|other| **other == record).for_each(|record| record.value = u64::MAX - 1);
    }
    Some(())
}

/// A reader of its own reads something at the very beginning.
fn early(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let record = pick(final_records(events), seed)?;
    let event = |phase, records| Event {
        time: 0,
        process: 20,
        client: 2000,
        phase,
        action: Action::Poll(ottla_checker::event::Polled { records, ..Default::default() }),
    };
    events.splice(0..0, [event(Phase::Invoke, Vec::new()), event(Phase::Ok, vec![record])]);
    Some(())
}

/// A producer sends under epoch 0 after a later one, and succeeds.
fn zombie(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let later = |sent: &Sent| sent.producer.is_some_and(|producer| producer.epoch > 0);
    let sent = pick(acknowledged(events).into_iter().filter(later).collect(), seed)?;
    let producer =
        sent.producer.map(|producer| ottla_checker::event::Producer { epoch: 0, sequence: 9999, ..producer });
    let zombie = Sent { partition: sent.partition, value: 1 << 40, producer, ..Sent::default() };
    let event = |phase| Event { time: u64::MAX, process: 20, client: 2000, phase, action: Action::Send(vec![zombie]) };
    events.extend([event(Phase::Invoke), event(Phase::Ok)]);
    Some(())
}

/// A send bears the sequence of the one before it.
fn sequence(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let all = acknowledged(events);
    let plain = |sent: &&Sent| sent.partition < 2;
    let follows = |sent: &Sent| {
        let before = sent
            .producer
            .and_then(|p| Some(ottla_checker::event::Producer { sequence: p.sequence.checked_sub(1)?, ..p }));
        all.iter()
            .filter(plain)
            .any(|other| other.partition == sent.partition && other.producer == before && before.is_some())
    };
    let chosen = pick(all.iter().filter(plain).copied().filter(follows).collect(), seed)?;
    for sent in events.iter_mut().flat_map(sends).filter(|sent| sent.value == chosen.value) {
        sent.producer.iter_mut().for_each(|producer| producer.sequence -= 1);
    }
    Some(())
}

/// The final read lacks one side of a transfer.
fn half(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let transfers: Vec<u64> = acknowledged(events).iter().filter(|s| s.amount.is_some()).map(|s| s.value).collect();
    let fits = |record: &Record| transfers.contains(&record.value);
    let record = pick(final_records(events).into_iter().filter(fits).collect(), seed)?;
    for list in polls(events.last_mut()?) {
        list.retain(|other| other != &record);
    }
    Some(())
}

fn fetched(events: &[Event]) -> Vec<usize> {
    let fits =
        |event: &Event| event.phase == Phase::Ok && matches!(&event.action, Action::Fetch(of) if of.offset.is_some());
    (0..events.len()).filter(|&at| fits(&events[at])).collect()
}

fn forget(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let at = pick(fetched(events), seed)?;
    let Action::Fetch(of) = &mut events[at].action else { return None };
    of.offset = None;
    Some(())
}

fn invent(events: &mut Vec<Event>, seed: usize) -> Option<()> {
    let at = pick(fetched(events), seed)?;
    let Action::Fetch(of) = &mut events[at].action else { return None };
    of.offset = Some(77_777);
    Some(())
}
