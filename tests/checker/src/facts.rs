//! Lookup tables for the laws: values with their writers and readers, and the version order of each partition.
//!
//! The version order is Jepsen's: every (offset, value) of a send whose effects are proved to be visible, and of every
//! poll, whatever the outcome of the polling operation. Sorted by offset it is the log; a *slot* is an offset with a
//! known value. All partitions' slots are in one array, so slots of one partition can be compared as numbers.
//!
//! Cost: two sorts of rows; everything after them is linear.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::history::{Extra, History, Kind, NO_OFFSET, NONE, Op, Outcome};
use crate::report::{Finding, Law, Neighbour};

/// A value of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value {
    pub(crate) partition: u32,
    pub(crate) value: u64,
    /// Its first send in `by_value`; sends and reads of a value stand together there.
    pub(crate) refs: (u32, u32),
    /// Attempts that may have been written, a retry under the same producer sequence counted once.
    pub(crate) attempts: u32,
    pub(crate) sent: bool,
    /// Every attempt is known to have failed.
    pub(crate) failed: bool,
    /// Some attempt was acknowledged and committed.
    pub(crate) acknowledged: bool,
    /// Some attempt certainly became visible.
    pub(crate) proved: bool,
    /// Sent in a transaction.
    pub(crate) transactional: bool,
    /// An operation that sent it (the one with the surest outcome), and the first successful one that read it.
    pub(crate) writer: u32,
    pub(crate) reader: u32,
    /// Its slots: first, last, how many.
    pub(crate) first: u32,
    pub(crate) last: u32,
    pub(crate) slots: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) offset: u64,
    pub(crate) value: u32,
    pub(crate) partition: u32,
}

#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) history: &'a History,
    pub(crate) values: Vec<Value>,
    /// Rows by value: below `history.sends.len()` a send, else a read.
    pub(crate) by_value: Vec<u32>,
    pub(crate) send_value: Vec<u32>,
    pub(crate) read_value: Vec<u32>,
    pub(crate) send_slot: Vec<u32>,
    pub(crate) read_slot: Vec<u32>,
    pub(crate) slots: Vec<Slot>,
    /// Further values of a slot; none in a sound history. Sorted.
    pub(crate) conflicts: Vec<(u32, u32)>,
    /// By partition: its slots.
    pub(crate) logs: Vec<Range<u32>>,
    /// By slot: how many slots before it a committed reader must see.
    pub(crate) seen: Vec<u32>,
    /// By operation: its sends certainly became visible.
    pub(crate) proved: Vec<bool>,
    /// By partition.
    pub(crate) compacted: Vec<bool>,
    /// By partition: transactions wrote to it, so markers take offsets.
    pub(crate) transactional: Vec<bool>,
    /// By partition: log starts in their order, as (event from which it holds, greatest so far).
    starts: Vec<Vec<(u32, u64)>>,
}

impl<'a> Facts<'a> {
    pub(crate) fn of(history: &'a History) -> Self {
        let partitions = history.partitions as usize;
        let mut facts = Facts {
            history,
            values: Vec::new(),
            by_value: Vec::new(),
            send_value: vec![NONE; history.sends.len()],
            read_value: vec![NONE; history.reads.len()],
            send_slot: vec![NONE; history.sends.len()],
            read_slot: vec![NONE; history.reads.len()],
            slots: Vec::new(),
            conflicts: Vec::new(),
            logs: vec![0..0; partitions],
            seen: Vec::new(),
            proved: Vec::new(),
            compacted: vec![false; partitions],
            transactional: vec![false; partitions],
            starts: vec![Vec::new(); partitions],
        };
        facts.take_marks();
        facts.group_values();
        facts.prove();
        facts.order_versions();
        facts.place_sends();
        facts.count_seen();
        facts
    }

    fn take_marks(&mut self) {
        for &partition in &self.history.compacted {
            self.compacted[partition as usize] = true;
        }
        for row in &self.history.sends {
            if self.history.op(row.op).kind == Kind::Txn {
                self.transactional[row.partition as usize] = true;
            }
        }
        let mut starts = self.history.starts.clone();
        starts.sort_unstable();
        for (from, partition, offset) in starts {
            let list = &mut self.starts[partition as usize];
            let greatest = list.last().map_or(0, |&(_, offset)| offset).max(offset);
            list.push((from, greatest));
        }
    }

    /// Sorts all rows by value and sums up each value's attempts.
    fn group_values(&mut self) {
        let history = self.history;
        let sends = history.sends.len();
        let rows = history.sends.iter().chain(&history.reads).enumerate();
        let mut refs: Vec<(u32, u32, u64)> = rows.map(|(at, row)| (row.partition, at as u32, row.value)).collect();
        refs.sort_unstable_by_key(|&(partition, at, value)| (partition, value, at));
        self.by_value = refs.iter().map(|&(_, at, _)| at).collect();
        let mut begin = 0;
        while begin < refs.len() {
            let (partition, _, value) = refs[begin];
            let same = refs[begin..].iter().take_while(|&&(p, _, v)| (p, v) == (partition, value)).count();
            let id = self.values.len() as u32;
            for &(_, at, _) in &refs[begin..begin + same] {
                match (at as usize).checked_sub(sends) {
                    Some(read) => self.read_value[read] = id,
                    None => self.send_value[at as usize] = id,
                }
            }
            let range = (begin as u32, (begin + same) as u32);
            let summed = self.sum_up(partition, value, range);
            self.values.push(summed);
            begin += same;
        }
    }

    fn sum_up(&self, partition: u32, value: u64, refs: (u32, u32)) -> Value {
        let history = self.history;
        let mut summed = Value {
            partition,
            value,
            refs,
            attempts: 0,
            sent: false,
            failed: true,
            acknowledged: false,
            proved: false,
            transactional: false,
            writer: NONE,
            reader: NONE,
            first: NONE,
            last: NONE,
            slots: 0,
        };
        let mut named = Vec::new();
        for &at in &self.by_value[refs.0 as usize..refs.1 as usize] {
            let at = at as usize;
            if let Some(read) = at.checked_sub(history.sends.len()) {
                let reader = history.reads[read].op;
                if history.op(reader).ok() {
                    summed.reader = summed.reader.min(reader);
                }
                continue;
            }
            let number = history.sends[at].op;
            let op = history.op(number);
            summed.sent = true;
            summed.transactional |= op.kind == Kind::Txn;
            if summed.writer == NONE || rank(op) < rank(history.op(summed.writer)) {
                summed.writer = number;
            }
            if op.failed() {
                continue;
            }
            summed.failed = false;
            summed.acknowledged |= op.ok();
            match history.extra(at).and_then(|extra| extra.producer) {
                Some(producer) if named.contains(&producer) => {}
                Some(producer) => {
                    named.push(producer);
                    summed.attempts += 1;
                }
                None => summed.attempts += 1,
            }
        }
        summed.failed &= summed.sent;
        summed
    }

    /// Jepsen's must-have-committed: ok, or info while one of its values was read.
    fn prove(&mut self) {
        let history = self.history;
        let mut proved: Vec<bool> = history.ops.iter().map(Op::ok).collect();
        for (read, row) in history.reads.iter().enumerate() {
            let value = &self.values[self.read_value[read] as usize];
            let reader = history.op(row.op);
            if value.attempts != 1 || !reader.ok() || (reader.uncommitted && value.transactional) {
                continue;
            }
            if history.op(value.writer).outcome == Outcome::Info {
                proved[value.writer as usize] = true;
            }
        }
        self.proved = proved;
        for (send, row) in history.sends.iter().enumerate() {
            if self.proved[row.op as usize] {
                self.values[self.send_value[send] as usize].proved = true;
            }
        }
    }

    /// Sorts by offset what is known to stand in the logs, and numbers the slots.
    fn order_versions(&mut self) {
        let history = self.history;
        let sends = history.sends.len() as u32;
        let mut refs: Vec<(u64, u32, u32, u32)> = Vec::with_capacity(history.reads.len() + history.sends.len());
        for (send, row) in history.sends.iter().enumerate() {
            if row.offset != NO_OFFSET && self.proved[row.op as usize] {
                refs.push((row.offset, row.partition, self.send_value[send], send as u32));
            }
        }
        for (read, row) in history.reads.iter().enumerate() {
            refs.push((row.offset, row.partition, self.read_value[read], sends + read as u32));
        }
        refs.sort_unstable_by_key(|&(offset, partition, value, _)| (partition, offset, value));
        let mut last = None;
        for (offset, partition, value, at) in refs {
            let fresh = last != Some((partition, offset, value));
            let new_slot = last.is_none_or(|(p, o, _)| (p, o) != (partition, offset));
            last = Some((partition, offset, value));
            if new_slot {
                let slot = self.slots.len() as u32;
                self.slots.push(Slot { offset, value, partition });
                let log = &mut self.logs[partition as usize];
                *log = if log.start == log.end { slot..slot + 1 } else { log.start..slot + 1 };
            }
            let slot = self.slots.len() as u32 - 1;
            if fresh {
                if !new_slot {
                    self.conflicts.push((slot, value));
                }
                let value = &mut self.values[value as usize];
                value.first = value.first.min(slot);
                value.last = slot;
                value.slots += 1;
            }
            match at.checked_sub(sends) {
                Some(read) => self.read_slot[read as usize] = slot,
                None => self.send_slot[at as usize] = slot,
            }
        }
    }

    /// A send without an answered offset gets the slot at which its value was read, if that is one slot and one
    /// attempt.
    fn place_sends(&mut self) {
        for (send, row) in self.history.sends.iter().enumerate() {
            let value = &self.values[self.send_value[send] as usize];
            let open = self.send_slot[send] == NONE && !self.history.op(row.op).failed();
            if open && value.slots == 1 && value.attempts == 1 {
                self.send_slot[send] = value.first;
            }
        }
    }

    /// Sums of the slots that a reader at read_committed may not pass over.
    fn count_seen(&mut self) {
        let history = self.history;
        let mut seen = vec![0u32; self.slots.len() + 1];
        for (send, &slot) in self.send_slot.iter().enumerate() {
            if slot != NONE && self.values[self.send_value[send] as usize].proved {
                seen[slot as usize] = 1;
            }
        }
        for (read, &slot) in self.read_slot.iter().enumerate() {
            let value = &self.values[self.read_value[read] as usize];
            let trusted = !history.op(history.reads[read].op).uncommitted || !value.transactional;
            if trusted && !value.failed {
                seen[slot as usize] = 1;
            }
        }
        for slot in self.superseded() {
            seen[slot as usize] = 0;
        }
        let mut sum = 0;
        for count in &mut seen {
            (*count, sum) = (sum, sum + *count);
        }
        self.seen = seen;
    }

    /// Slots of compacted partitions that may be gone: superseded by a later committed record of the key, or tombstones.
    fn superseded(&self) -> Vec<u32> {
        let mut gone = Vec::new();
        for (log, _) in self.logs.iter().zip(&self.compacted).filter(|(_, compacted)| **compacted) {
            let mut newer: BTreeSet<u64> = BTreeSet::new();
            for slot in log.clone().rev() {
                let Some(extra) = self.extra_of(self.slots[slot as usize].value) else { continue };
                let Some(key) = extra.key else { continue };
                if newer.contains(&key) || extra.tombstone {
                    gone.push(slot);
                }
                if self.value_at(slot).proved {
                    newer.insert(key);
                }
            }
        }
        gone
    }

    /// No other attempt to send the value ended before.
    pub(crate) fn first_attempt(&self, send: usize) -> bool {
        let value = &self.values[self.send_value[send] as usize];
        self.by_value[value.refs.0 as usize] as usize == send
    }

    /// What a value was sent with.
    pub(crate) fn extra_of(&self, value: u32) -> Option<&'a Extra> {
        let (from, to) = self.values[value as usize].refs;
        let rows = &self.by_value[from as usize..to as usize];
        let send = rows.iter().find(|&&at| (at as usize) < self.history.sends.len())?;
        self.history.extra(*send as usize)
    }

    /// Where the log may begin for an operation that ended at this event.
    pub(crate) fn start_at(&self, partition: u32, event: u32) -> u64 {
        let list = &self.starts[partition as usize];
        let until = list.partition_point(|&(from, _)| from <= event);
        list[..until].last().map_or(0, |&(_, offset)| offset)
    }

    pub(crate) fn start_at_end(&self, partition: u32) -> u64 {
        self.starts[partition as usize].last().map_or(0, |&(_, offset)| offset)
    }

    /// The first slot at or after an offset; the end of the log where there is none.
    pub(crate) fn slot_from(&self, partition: u32, offset: u64) -> u32 {
        let log = self.logs[partition as usize].clone();
        let slots = &self.slots[log.start as usize..log.end as usize];
        log.start + slots.partition_point(|slot| slot.offset < offset) as u32
    }

    /// Slots in `from..to` that a reader may not pass over.
    pub(crate) fn must_see(&self, from: u32, to: u32) -> u32 {
        if from < to { self.seen[to as usize] - self.seen[from as usize] } else { 0 }
    }

    /// A committed value that no reader needs to have seen: deleted by retention or superseded under compaction.
    pub(crate) fn excused(&self, value: &Value) -> bool {
        let start = self.start_at_end(value.partition);
        if value.slots == 0 {
            return start > 0 || self.compacted[value.partition as usize];
        }
        let last = value.last;
        self.slots[last as usize].offset < start
            || (self.compacted[value.partition as usize] && self.seen[last as usize] == self.seen[last as usize + 1])
    }

    pub(crate) fn value_at(&self, slot: u32) -> &Value {
        &self.values[self.slots[slot as usize].value as usize]
    }

    pub(crate) fn offset(&self, slot: u32) -> u64 {
        self.slots[slot as usize].offset
    }

    pub(crate) fn neighbour(&self, operation: u32) -> Neighbour {
        let op = self.history.op(operation);
        Neighbour { operation, invoked: op.invoked, completed: (op.completed != NONE).then_some(op.completed) }
    }

    /// A finding at slots of a partition: the operations named, then the writers and readers of these slots and their
    /// neighbours.
    pub(crate) fn finding(
        &self,
        law: Law,
        partition: u32,
        offsets: &[u64],
        operations: &[u32],
        sentence: String,
    ) -> Finding {
        let mut all: Vec<u32> = Vec::new();
        let mut add = |op: u32| {
            if op != NONE && !all.contains(&op) {
                all.push(op);
            }
        };
        operations.iter().for_each(|&op| add(op));
        for &offset in offsets.iter().take(4) {
            let log = self.logs[partition as usize].clone();
            let at = self.slot_from(partition, offset);
            for slot in at.saturating_sub(1).max(log.start)..(at + 2).min(log.end) {
                add(self.value_at(slot).writer);
                add(self.value_at(slot).reader);
            }
        }
        let operations = all.into_iter().map(|op| self.neighbour(op)).collect();
        Finding { law, partition: Some(partition), offsets: offsets.to_vec(), operations, sentence }
    }
}

/// The writer to report of several writers of one value: the one with the surest outcome.
fn rank(op: &Op) -> u8 {
    match op.outcome {
        Outcome::Ok => 0,
        Outcome::Info => 1,
        Outcome::Aborted => 2,
        Outcome::Fail => 3,
    }
}
