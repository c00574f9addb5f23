//! A history in columns: operations, their sends, their reads. No allocation remains per operation.
//!
//! Pairs invocations with completions and refuses events that cannot be a history (`BadEvent`): a checker that guesses
//! what a recorder meant would find its own guesses.
//!
//! An operation without a completion counts as `info`, and its sends are those of its invocation. A transaction that its client aborted keeps
//! its reads; its sends count as failed.

use thiserror::Error;

use crate::event::{Action, Event, GroupOffset, Micro, Phase, Producer, Record, Sent};

/// Stands for: no offset, no slot, no operation, no completion.
pub(crate) const NONE: u32 = u32::MAX;
pub(crate) const NO_OFFSET: u64 = u64::MAX;

/// Partitions, processes, clients and groups are small numbers: tables are indexed by them.
pub const IDS_MAX: u32 = 1 << 20;
/// Events of one history; the graph packs two bits beside the number of an operation.
pub const EVENTS_MAX: usize = 1 << 29;
/// Micro-operations of one transaction. A real client that transforms what it has polled writes as many records, and commits an offset of
/// each partition.
pub const MICRO_MAX: usize = 64;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadEvent {
    #[error("time falls")]
    TimeFalls,
    #[error("process {0} invokes while its operation is open")]
    Busy(u32),
    #[error("process {0} completes what it did not invoke")]
    NotInvoked(u32),
    #[error("process {0} completes another operation than it invoked")]
    OtherOperation(u32),
    #[error("process {0} completes with other sends than it invoked")]
    OtherSends(u32),
    #[error("a number is {IDS_MAX} or more")]
    IdTooLarge,
    #[error("a transaction has more than {MICRO_MAX} micro-operations")]
    TooManyMicros,
    #[error("an offset is too large")]
    OffsetTooLarge,
    #[error("the history is too long")]
    TooLong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Send,
    Poll,
    Txn,
    Assign {
        from_beginning: bool,
    },
    Subscribe,
    Crash,
    Read,
    /// Marks, offsets and producers: they hold no records.
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    /// A transaction that its client aborted.
    Aborted,
    Fail,
    Info,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) process: u32,
    pub(crate) client: u32,
    pub(crate) invoked: u32,
    pub(crate) completed: u32,
    sends: (u32, u32),
    reads: (u32, u32),
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    pub(crate) uncommitted: bool,
}

impl Op {
    pub(crate) fn ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }
    /// Its sends did not become visible, and never will.
    pub(crate) fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Fail | Outcome::Aborted)
    }
    pub(crate) fn sends(&self) -> std::ops::Range<usize> {
        self.sends.0 as usize..self.sends.1 as usize
    }
    pub(crate) fn reads(&self) -> std::ops::Range<usize> {
        self.reads.0 as usize..self.reads.1 as usize
    }
}

/// A record sent or read: `offset` is `NO_OFFSET` where it is not known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) op: u32,
    pub(crate) partition: u32,
    pub(crate) value: u64,
    pub(crate) offset: u64,
}

/// What only some sends have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extra {
    pub(crate) send: u32,
    pub(crate) key: Option<u64>,
    pub(crate) tombstone: bool,
    pub(crate) amount: Option<i64>,
    pub(crate) producer: Option<Producer>,
}

/// A partition named by an operation: assigned, rebalanced, or read until `offset`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) op: u32,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Offset {
    pub(crate) op: u32,
    pub(crate) of: GroupOffset,
}

/// Columns are ordered by the number of the operation within one process, by completion between processes.
#[derive(Debug, Default)]
pub struct History {
    pub(crate) ops: Vec<Op>,
    pub(crate) sends: Vec<Row>,
    pub(crate) reads: Vec<Row>,
    pub(crate) extras: Vec<Extra>,
    /// Sorted by operation.
    pub(crate) assigned: Vec<Named>,
    pub(crate) rebalanced: Vec<Named>,
    pub(crate) ends: Vec<Named>,
    pub(crate) commits: Vec<Offset>,
    pub(crate) fetches: Vec<Offset>,
    pub(crate) producers: Vec<(u32, u64, u32)>,
    /// Event from which it may hold, partition, offset.
    pub(crate) starts: Vec<(u32, u32, u64)>,
    pub(crate) compacted: Vec<u32>,
    pub(crate) partitions: u32,
    pub(crate) clients: u32,
    pub(crate) processes: u32,
    events: u32,
}

impl History {
    /// Operations, each with its invocation and its completion.
    pub fn operations(&self) -> usize {
        self.ops.len()
    }
    pub fn events(&self) -> usize {
        self.events as usize
    }
    /// The events (numbered from 0) with which an operation began and ended.
    pub fn events_of(&self, operation: u32) -> Option<(u32, Option<u32>)> {
        let op = self.ops.get(operation as usize)?;
        Some((op.invoked, (op.completed != NONE).then_some(op.completed)))
    }
    pub(crate) fn op(&self, op: u32) -> &Op {
        &self.ops[op as usize]
    }
    pub(crate) fn extra(&self, send: usize) -> Option<&Extra> {
        let at = self.extras.binary_search_by_key(&(send as u32), |extra| extra.send).ok()?;
        Some(&self.extras[at])
    }
}

/// Takes events in their order and makes a history of them.
#[derive(Debug, Default)]
pub struct Recorder {
    history: History,
    /// By process: its open operation and the action of its invocation.
    open: Vec<Option<(u32, Action)>>,
    time: u64,
}

impl Recorder {
    pub fn push(&mut self, event: Event) -> Result<(), BadEvent> {
        self.examine(&event)?;
        let Event { time, process, client, phase, action } = event;
        let at = self.history.events;
        let slot = process as usize;
        if phase == Phase::Invoke {
            if self.open[slot].is_some() {
                return Err(BadEvent::Busy(process));
            }
            let op = self.begin(process, client, at, &action);
            self.open[slot] = Some((op, action));
        } else {
            match self.open[slot].take() {
                Some((op, asked)) => {
                    if let Err(reason) = fits(&self.history.ops[op as usize], client, &asked, &action, process) {
                        self.open[slot] = Some((op, asked));
                        return Err(reason);
                    }
                    self.complete(op, at, phase, &asked, action);
                }
                None if is_mark(&action) => {
                    let op = self.begin(process, client, at, &action);
                    self.history.ops[op as usize].completed = at;
                    self.mark(op, phase, &action, 0);
                }
                None => return Err(BadEvent::NotInvoked(process)),
            }
        }
        self.time = time;
        self.history.events += 1;
        Ok(())
    }

    /// What is still open may yet happen.
    pub fn finish(mut self) -> History {
        let mut open: Vec<(u32, Action)> = self.open.iter_mut().filter_map(Option::take).collect();
        open.sort_by_key(|(op, _)| *op);
        for (op, asked) in open {
            self.fill(op, &asked, &asked, Outcome::Info);
        }
        for named in [&mut self.history.assigned, &mut self.history.rebalanced, &mut self.history.ends] {
            named.sort_by_key(|named| named.op);
        }
        self.history
    }

    fn examine(&mut self, event: &Event) -> Result<(), BadEvent> {
        if event.time < self.time {
            return Err(BadEvent::TimeFalls);
        }
        if self.history.events as usize >= EVENTS_MAX || self.history.reads.len() >= EVENTS_MAX {
            return Err(BadEvent::TooLong);
        }
        if event.process >= IDS_MAX || event.client >= IDS_MAX {
            return Err(BadEvent::IdTooLarge);
        }
        let mut partitions = 0;
        each_number(&event.action, &mut |partition, offset| {
            partitions = partitions.max(partition.saturating_add(1));
            if offset.is_some_and(|offset| offset >= NO_OFFSET >> 1) { Err(BadEvent::OffsetTooLarge) } else { Ok(()) }
        })?;
        if partitions > IDS_MAX {
            return Err(BadEvent::IdTooLarge);
        }
        if let Action::Txn(txn) = &event.action
            && txn.micro.len() > MICRO_MAX
        {
            return Err(BadEvent::TooManyMicros);
        }
        let history = &mut self.history;
        history.partitions = history.partitions.max(partitions);
        history.clients = history.clients.max(event.client + 1);
        history.processes = history.processes.max(event.process + 1);
        if self.open.len() <= event.process as usize {
            self.open.resize_with(event.process as usize + 1, || None);
        }
        Ok(())
    }

    fn begin(&mut self, process: u32, client: u32, at: u32, action: &Action) -> u32 {
        let kind = match action {
            Action::Send(_) => Kind::Send,
            Action::Poll(_) => Kind::Poll,
            Action::Txn(_) => Kind::Txn,
            Action::Assign { from_beginning, .. } => Kind::Assign { from_beginning: *from_beginning },
            Action::Subscribe { .. } => Kind::Subscribe,
            Action::Crash => Kind::Crash,
            Action::Read(_) => Kind::Read,
            _ => Kind::Other,
        };
        let op = self.history.ops.len() as u32;
        self.history.ops.push(Op {
            process,
            client,
            invoked: at,
            completed: NONE,
            sends: (0, 0),
            reads: (0, 0),
            kind,
            outcome: Outcome::Info,
            uncommitted: false,
        });
        op
    }

    fn complete(&mut self, op: u32, at: u32, phase: Phase, asked: &Action, told: Action) {
        let outcome = match (phase, &told) {
            (Phase::Ok, Action::Txn(txn)) if txn.abort => Outcome::Aborted,
            (Phase::Ok, _) => Outcome::Ok,
            (Phase::Fail, _) => Outcome::Fail,
            (Phase::Info | Phase::Invoke, _) => Outcome::Info,
        };
        self.history.ops[op as usize].completed = at;
        let invoked = self.history.ops[op as usize].invoked;
        self.fill(op, asked, &told, outcome);
        self.mark(op, phase, &told, invoked + 1);
    }

    /// A mark holds from event `from - 1` on; 0: always.
    fn mark(&mut self, op: u32, phase: Phase, action: &Action, from: u32) {
        let history = &mut self.history;
        match action {
            Action::LogStart { partition, offset } if phase != Phase::Fail => {
                history.starts.push((from, *partition, *offset));
            }
            Action::Compacted { partition } => history.compacted.push(*partition),
            _ => {}
        }
        if is_mark(action) && phase != Phase::Fail {
            history.ops[op as usize].outcome = if phase == Phase::Ok { Outcome::Ok } else { Outcome::Info };
        }
    }

    /// Puts the contents of an operation into the columns.
    fn fill(&mut self, op: u32, asked: &Action, told: &Action, outcome: Outcome) {
        let history = &mut self.history;
        let sends = history.sends.len() as u32;
        let reads = history.reads.len() as u32;
        let named = |partition: &u32| Named { op, partition: *partition, offset: NO_OFFSET };
        let mut uncommitted = false;
        match told {
            Action::Send(list) => {
                let list = match (list.is_empty(), asked) {
                    (true, Action::Send(asked)) => asked,
                    _ => list,
                };
                list.iter().for_each(|sent| history.send(op, sent));
            }
            Action::Txn(txn) => {
                let micro = match (txn.micro.is_empty(), asked) {
                    (true, Action::Txn(asked)) => &asked.micro,
                    _ => &txn.micro,
                };
                for micro in micro {
                    match micro {
                        Micro::Send(sent) => history.send(op, sent),
                        Micro::Poll(records) => records.iter().for_each(|record| history.read(op, record)),
                        Micro::Commit(of) => history.commits.push(Offset { op, of: *of }),
                    }
                }
                uncommitted = txn.uncommitted;
                history.rebalanced.extend(txn.rebalanced.iter().map(named));
            }
            Action::Poll(polled) => {
                polled.records.iter().for_each(|record| history.read(op, record));
                uncommitted = polled.uncommitted;
                history.rebalanced.extend(polled.rebalanced.iter().map(named));
            }
            Action::Read(read) => {
                read.records.iter().for_each(|record| history.read(op, record));
                uncommitted = read.uncommitted;
                history.ends.extend(read.ends.iter().map(|&(partition, offset)| Named { op, partition, offset }));
            }
            Action::Assign { partitions, .. } | Action::Subscribe { partitions } => {
                history.assigned.extend(partitions.iter().map(named));
            }
            Action::Commit(of) => history.commits.push(Offset { op, of: *of }),
            Action::Fetch(of) => history.fetches.push(Offset { op, of: *of }),
            Action::InitProducer { id, epoch } => history.producers.push((op, *id, *epoch)),
            Action::Crash | Action::LogStart { .. } | Action::Compacted { .. } => {}
        }
        let (sends_end, reads_end) = (history.sends.len() as u32, history.reads.len() as u32);
        let filled = &mut history.ops[op as usize];
        filled.sends = (sends, sends_end);
        filled.reads = (reads, reads_end);
        filled.outcome = outcome;
        filled.uncommitted = uncommitted;
    }
}

impl History {
    fn send(&mut self, op: u32, sent: &Sent) {
        let send = self.sends.len() as u32;
        let Sent { partition, value, offset, key, tombstone, amount, producer } = *sent;
        self.sends.push(Row { op, partition, value, offset: offset.unwrap_or(NO_OFFSET) });
        if key.is_some() || amount.is_some() || producer.is_some() {
            self.extras.push(Extra { send, key, tombstone, amount, producer });
        }
    }
    fn read(&mut self, op: u32, record: &Record) {
        let Record { partition, offset, value } = *record;
        self.reads.push(Row { op, partition, value, offset });
    }
}

/// What needs no invocation.
fn is_mark(action: &Action) -> bool {
    matches!(action, Action::LogStart { .. } | Action::Compacted { .. } | Action::Crash)
}

/// A completion must be of the same operation, with the same sends or without them (then no offset is known).
fn fits(op: &Op, client: u32, asked: &Action, told: &Action, process: u32) -> Result<(), BadEvent> {
    if op.client != client || std::mem::discriminant(asked) != std::mem::discriminant(told) {
        return Err(BadEvent::OtherOperation(process));
    }
    let empty = match told {
        Action::Send(list) => list.is_empty(),
        Action::Txn(txn) => txn.micro.is_empty(),
        _ => false,
    };
    if empty || sent(asked).eq(sent(told)) { Ok(()) } else { Err(BadEvent::OtherSends(process)) }
}

fn sent(action: &Action) -> impl Iterator<Item = (u32, u64)> {
    let (plain, micro): (&[Sent], &[Micro]) = match action {
        Action::Send(list) => (list, &[]),
        Action::Txn(txn) => (&[], &txn.micro),
        _ => (&[], &[]),
    };
    let of_txn = micro.iter().filter_map(|micro| match micro {
        Micro::Send(sent) => Some(sent),
        _ => None,
    });
    plain.iter().chain(of_txn).map(|sent| (sent.partition, sent.value))
}

/// Every partition (groups too) and offset of an action.
fn each_number(
    action: &Action,
    see: &mut impl FnMut(u32, Option<u64>) -> Result<(), BadEvent>,
) -> Result<(), BadEvent> {
    match action {
        Action::Send(list) => list.iter().try_for_each(|sent| see(sent.partition, sent.offset)),
        Action::Poll(polled) => {
            polled.rebalanced.iter().try_for_each(|&partition| see(partition, None))?;
            polled.records.iter().try_for_each(|record| see(record.partition, Some(record.offset)))
        }
        Action::Txn(txn) => {
            txn.rebalanced.iter().try_for_each(|&partition| see(partition, None))?;
            txn.micro.iter().try_for_each(|micro| match micro {
                Micro::Send(sent) => see(sent.partition, sent.offset),
                Micro::Poll(records) => {
                    records.iter().try_for_each(|record| see(record.partition, Some(record.offset)))
                }
                Micro::Commit(of) => see(of.partition, of.offset),
            })
        }
        Action::Assign { partitions, .. } | Action::Subscribe { partitions } => {
            partitions.iter().try_for_each(|&partition| see(partition, None))
        }
        Action::Read(read) => {
            read.ends.iter().try_for_each(|&(partition, end)| see(partition, Some(end)))?;
            read.records.iter().try_for_each(|record| see(record.partition, Some(record.offset)))
        }
        Action::Commit(of) | Action::Fetch(of) => see(of.partition, of.offset),
        Action::LogStart { partition, offset } => see(*partition, Some(*offset)),
        Action::Compacted { partition } => see(*partition, None),
        Action::Crash | Action::InitProducer { .. } => Ok(()),
    }
}
