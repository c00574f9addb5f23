//! Which operation must have come before which: the graph in which a circle is an anomaly.
//!
//! Nodes are operations that were or may have been carried out, then one *bar* per successful completion. Edges:
//!
//! - **wr**: T1 sent what T2 read. Not where the reader is at read_uncommitted and the writer a transaction.
//! - **ww**: T1 sent what stands in the slot right before what T2 sent (adjacent versions only; the others follow). *Sound*
//!   where T1 is one plain send and T2 one plain send or a transaction: then T1 is a point in time. Out of a transaction the
//!   edge says little, since its writes are not isolated, and such cycles are legal.
//! - **process**: the next operation of the same process, after a successful one.
//! - **realtime**: T1 ended before T2 began. Operation -> its bar -> the next bar ..., and each bar -> the operations that
//!   begin before the next bar: a linear number of edges says what n^2 would.
//!
//! Writers of a value with several attempts cannot be distinguished, so such values make no edges.

use crate::facts::Facts;
use crate::history::{Kind, NONE, Outcome};
use crate::tarjan::Graph;

/// Kinds of edges, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edges(u8);

impl Edges {
    pub(crate) const WR: Edges = Edges(1);
    pub(crate) const WW: Edges = Edges(2);
    /// Write-write out of, or into, what is no point in time.
    pub(crate) const WW_LOOSE: Edges = Edges(4);
    pub(crate) const PROCESS: Edges = Edges(8);
    pub(crate) const REALTIME: Edges = Edges(16);
    pub(crate) const fn and(self, other: Edges) -> Edges {
        Edges(self.0 | other.0)
    }
    pub(crate) fn has(self, other: Edges) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Two bits beside the operation's number.
const TYPE_SHIFT: u32 = 30;
const TARGET: u32 = (1 << TYPE_SHIFT) - 1;
const TYPES: [Edges; 3] = [Edges::WR, Edges::WW, Edges::WW_LOOSE];

pub(crate) struct Dependencies {
    ops: u32,
    /// Edges between operations by their origin: `first[op]..first[op + 1]` of `targets`.
    first: Vec<u32>,
    targets: Vec<u32>,
    /// The next operation of the process.
    next: Vec<u32>,
    /// By operation: its bar.
    bar: Vec<u32>,
    /// By bar: how many operations had begun. One more at the end: all.
    begun: Vec<u32>,
}

impl Dependencies {
    pub(crate) fn of(facts: &Facts) -> Self {
        let ops = facts.history.ops.len() as u32;
        let (first, targets) = edges(facts);
        let (bar, begun) = bars(facts);
        Dependencies { ops, first, targets, next: successors(facts), bar, begun }
    }

    pub(crate) fn is_operation(&self, node: u32) -> bool {
        node < self.ops
    }

    /// The next edge: its end, its kind, the cursor behind it.
    pub(crate) fn edge(&self, node: u32, cursor: u32) -> Option<(u32, Edges, u32)> {
        if node >= self.ops {
            return self.edge_of_bar(node - self.ops, cursor);
        }
        let at = node as usize;
        if cursor == 0 && self.bar[at] != NONE {
            return Some((self.ops + self.bar[at], Edges::REALTIME, 1));
        }
        if cursor <= 1 && self.next[at] != NONE {
            return Some((self.next[at], Edges::PROCESS, 2));
        }
        let edge = self.first[at] + cursor.saturating_sub(2);
        if edge >= self.first[at + 1] {
            return None;
        }
        let packed = self.targets[edge as usize];
        Some((packed & TARGET, TYPES[(packed >> TYPE_SHIFT) as usize], cursor.max(2) + 1))
    }

    fn edge_of_bar(&self, bar: u32, cursor: u32) -> Option<(u32, Edges, u32)> {
        let last = bar as usize + 2 == self.begun.len();
        if cursor == 0 && !last {
            return Some((self.ops + bar + 1, Edges::REALTIME, 1));
        }
        let op = self.begun[bar as usize] + cursor.saturating_sub(1);
        (op < self.begun[bar as usize + 1]).then_some((op, Edges::REALTIME, cursor.max(1) + 1))
    }
}

impl Graph for Dependencies {
    fn nodes(&self) -> u32 {
        self.ops + self.begun.len() as u32 - 1
    }
    fn next(&self, node: u32, cursor: u32) -> Option<(u32, u32)> {
        self.edge(node, cursor).map(|(to, _, cursor)| (to, cursor))
    }
}

/// A part of the graph: some nodes (sorted), some kinds of edges. Its nodes are numbered anew.
pub(crate) struct Part<'a> {
    pub(crate) whole: &'a Dependencies,
    pub(crate) members: &'a [u32],
    pub(crate) kinds: Edges,
}

impl Part<'_> {
    pub(crate) fn edge(&self, node: u32, mut cursor: u32) -> Option<(u32, Edges, u32)> {
        loop {
            let (to, kind, behind) = self.whole.edge(self.members[node as usize], cursor)?;
            cursor = behind;
            if self.kinds.has(kind)
                && let Ok(at) = self.members.binary_search(&to)
            {
                return Some((at as u32, kind, cursor));
            }
        }
    }
}

impl Graph for Part<'_> {
    fn nodes(&self) -> u32 {
        self.members.len() as u32
    }
    fn next(&self, node: u32, cursor: u32) -> Option<(u32, u32)> {
        self.edge(node, cursor).map(|(to, _, cursor)| (to, cursor))
    }
}

/// Shows every edge between operations: from, to, index into `TYPES`.
fn each_edge(facts: &Facts, mut see: impl FnMut(u32, u32, u32)) {
    let history = facts.history;
    let sends = history.sends.len();
    let writer_of = |value: u32| {
        let value = &facts.values[value as usize];
        (value.attempts == 1).then_some(value.writer)
    };
    for (number, value) in facts.values.iter().enumerate() {
        let Some(writer) = writer_of(number as u32) else { continue };
        let transactional = history.op(writer).kind == Kind::Txn;
        for &at in &facts.by_value[value.refs.0 as usize..value.refs.1 as usize] {
            let Some(read) = (at as usize).checked_sub(sends) else { continue };
            let reader = history.reads[read].op;
            let op = history.op(reader);
            if op.ok() && reader != writer && !(op.uncommitted && transactional) {
                see(writer, reader, 0);
            }
        }
    }
    for log in &facts.logs {
        for slot in log.start + 1..log.end {
            let before = writer_of(facts.slots[slot as usize - 1].value);
            let after = writer_of(facts.slots[slot as usize].value);
            if let (Some(before), Some(after)) = (before, after)
                && before != after
            {
                let point = |op: u32| history.op(op).kind == Kind::Send && history.op(op).sends().len() == 1;
                let sound = point(before) && (point(after) || history.op(after).kind == Kind::Txn);
                see(before, after, if sound { 1 } else { 2 });
            }
        }
    }
}

/// Counts, then fills.
fn edges(facts: &Facts) -> (Vec<u32>, Vec<u32>) {
    let mut first = vec![0u32; facts.history.ops.len() + 1];
    each_edge(facts, |from, _, _| first[from as usize] += 1);
    let mut sum = 0;
    for count in &mut first {
        (*count, sum) = (sum, sum + *count);
    }
    let mut targets = vec![0u32; sum as usize];
    each_edge(facts, |from, to, kind| {
        targets[first[from as usize] as usize] = to | (kind << TYPE_SHIFT);
        first[from as usize] += 1;
    });
    // Each begin has moved to its end, which is the next one's begin.
    first.rotate_right(1);
    first[0] = 0;
    (first, targets)
}

fn successors(facts: &Facts) -> Vec<u32> {
    let history = facts.history;
    let mut last = vec![NONE; history.processes as usize];
    let mut next = vec![NONE; history.ops.len()];
    // What failed or crashed has no edges; the order goes past it.
    let in_order = history.ops.iter().enumerate().filter(|(_, op)| !op.failed() && op.kind != Kind::Crash);
    for (number, op) in in_order {
        let before = std::mem::replace(&mut last[op.process as usize], number as u32);
        if before != NONE && history.op(before).outcome == Outcome::Ok {
            next[before as usize] = number as u32;
        }
    }
    next
}

fn bars(facts: &Facts) -> (Vec<u32>, Vec<u32>) {
    let history = facts.history;
    let mut ended: Vec<(u32, u32)> = history
        .ops
        .iter()
        .enumerate()
        .filter(|(_, op)| op.ok() && op.completed > op.invoked)
        .map(|(number, op)| (op.completed, number as u32))
        .collect();
    ended.sort_unstable();
    let mut bar = vec![NONE; history.ops.len()];
    let mut begun = Vec::with_capacity(ended.len() + 1);
    let mut count = 0;
    for (number, &(completed, op)) in ended.iter().enumerate() {
        while count < history.ops.len() && history.ops[count].invoked < completed {
            count += 1;
        }
        begun.push(count as u32);
        bar[op as usize] = number as u32;
    }
    begun.push(history.ops.len() as u32);
    (bar, begun)
}
