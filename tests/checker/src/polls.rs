//! The positions of consumers in their partitions: each record that was read, with its reader's position before.
//!
//! A position belongs to a client. Assign and subscribe keep the positions of partitions that stay and drop the others; a crash drops all;
//! a poll or a transaction moves them only if it succeeded (an aborted transaction's client goes back), and one with an unknown outcome makes
//! them unknown. A full read has positions of its own, from the log start.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::history::{Kind, NONE, Named, Outcome};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The record before it in the same operation.
    Within(u32),
    /// The last record of an earlier operation of the client.
    Across(u32),
    /// The log start: nothing was read yet.
    Beginning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Row(u32),
    /// Nothing more was there below this offset.
    End(u64),
}

/// One move of a reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) op: u32,
    pub(crate) partition: u32,
    pub(crate) from: From,
    pub(crate) to: To,
    /// A rebalance assigned or revoked the partition in between.
    pub(crate) rebalanced: bool,
    pub(crate) subscribed: bool,
}

impl Step {
    /// Inside one operation: between its records, or a full read's beginning and end.
    pub(crate) fn internal(&self, facts: &Facts) -> bool {
        matches!(self.from, From::Within(_)) || facts.history.op(self.op).kind == Kind::Read
    }
    /// Jepsen allows it: subscribed, and rebalanced since.
    pub(crate) fn excused(&self) -> bool {
        self.subscribed && self.rebalanced
    }
    pub(crate) fn origin(&self, facts: &Facts) -> Option<u32> {
        match self.from {
            From::Within(row) | From::Across(row) => Some(facts.history.reads[row as usize].op),
            From::Beginning => None,
        }
    }
    /// The slots between: from the first that comes next to the first not passed over. Retention takes the front away.
    pub(crate) fn between(&self, facts: &Facts) -> (u32, u32) {
        let first = match self.from {
            From::Within(row) | From::Across(row) => facts.read_slot[row as usize] + 1,
            From::Beginning => facts.logs[self.partition as usize].start,
        };
        let start = facts.start_at(self.partition, facts.history.op(self.op).completed);
        let to = match self.to {
            To::Row(row) => facts.read_slot[row as usize],
            To::End(offset) => facts.slot_from(self.partition, offset),
        };
        (if start == 0 { first } else { first.max(facts.slot_from(self.partition, start)) }, to)
    }
}

#[derive(Debug, Clone, Copy)]
struct Position {
    /// `NONE`: at the beginning.
    row: u32,
    shaken: bool,
}

#[derive(Debug, Default)]
struct Client {
    positions: BTreeMap<u32, Position>,
    subscribed: bool,
}

/// Calls `visit` for every step, operation by operation.
pub(crate) fn walk(facts: &Facts, mut visit: impl FnMut(Step)) {
    let history = facts.history;
    let mut clients: Vec<Client> = Vec::new();
    clients.resize_with(history.clients as usize, Client::default);
    let mut within = Within { row: vec![NONE; history.partitions as usize], touched: Vec::new() };
    for (number, op) in history.ops.iter().enumerate() {
        let number = number as u32;
        let client = &mut clients[op.client as usize];
        match op.kind {
            Kind::Assign { .. } | Kind::Subscribe if op.failed() => {}
            Kind::Assign { .. } | Kind::Subscribe => {
                let listed = of(&history.assigned, number);
                client.positions.retain(|partition, _| listed.iter().any(|named| named.partition == *partition));
                client.subscribed = op.kind == Kind::Subscribe;
                if op.kind == (Kind::Assign { from_beginning: true }) {
                    let begun = |named: &Named| (named.partition, Position { row: NONE, shaken: false });
                    client.positions = listed.iter().map(begun).collect();
                }
            }
            Kind::Crash => *client = Client::default(),
            Kind::Poll | Kind::Txn => {
                let rebalanced = of(&history.rebalanced, number);
                for named in rebalanced {
                    if let Some(position) = client.positions.get_mut(&named.partition) {
                        position.shaken = true;
                    }
                }
                for row in op.reads() {
                    let partition = history.reads[row].partition;
                    let now = rebalanced.iter().any(|named| named.partition == partition);
                    let (from, rebalanced) = match (within.row[partition as usize], client.positions.get(&partition)) {
                        (NONE, None) => (None, now),
                        (NONE, Some(Position { row: NONE, shaken })) => (Some(From::Beginning), *shaken),
                        (NONE, Some(Position { row, shaken })) => (Some(From::Across(*row)), *shaken),
                        (row, _) => (Some(From::Within(row)), now),
                    };
                    within.put(partition, row as u32);
                    if let Some(from) = from {
                        let (to, subscribed) = (To::Row(row as u32), client.subscribed);
                        visit(Step { op: number, partition, from, to, rebalanced, subscribed });
                    }
                }
                match op.outcome {
                    Outcome::Ok => within.drain(|partition, row| {
                        client.positions.insert(partition, Position { row, shaken: false });
                    }),
                    Outcome::Info => {
                        within.drain(|_, _| ());
                        client.positions.clear();
                    }
                    Outcome::Fail | Outcome::Aborted => within.drain(|_, _| ()),
                }
            }
            Kind::Read => read_fully(facts, number, &mut within, &mut visit),
            Kind::Send | Kind::Other => {}
        }
    }
}

fn read_fully(facts: &Facts, number: u32, within: &mut Within, visit: &mut impl FnMut(Step)) {
    let history = facts.history;
    let op = history.op(number);
    let step = |partition, row, to| {
        let from = if row == NONE { From::Beginning } else { From::Within(row) };
        Step { op: number, partition, from, to, rebalanced: false, subscribed: false }
    };
    for row in op.reads() {
        let partition = history.reads[row].partition;
        visit(step(partition, within.row[partition as usize], To::Row(row as u32)));
        within.put(partition, row as u32);
    }
    if op.ok() {
        for end in of(&history.ends, number) {
            visit(step(end.partition, within.row[end.partition as usize], To::End(end.offset)));
        }
    }
    within.drain(|_, _| ());
}

/// The last row of each partition within the operation at hand.
struct Within {
    row: Vec<u32>,
    touched: Vec<u32>,
}

impl Within {
    fn put(&mut self, partition: u32, row: u32) {
        let last = &mut self.row[partition as usize];
        if *last == NONE {
            self.touched.push(partition);
        }
        *last = row;
    }
    fn drain(&mut self, mut take: impl FnMut(u32, u32)) {
        for partition in self.touched.drain(..) {
            take(partition, std::mem::replace(&mut self.row[partition as usize], NONE));
        }
    }
}

/// The part of a column that belongs to an operation.
pub(crate) fn of(column: &[Named], op: u32) -> &[Named] {
    let from = column.partition_point(|named| named.op < op);
    let len = column[from..].iter().take_while(|named| named.op == op).count();
    &column[from..from + len]
}
