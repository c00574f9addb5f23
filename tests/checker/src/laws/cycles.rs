//! **G0, G1c**, with process and realtime edges: cycles of dependencies (Adya; Elle as Jepsen's kafka workload uses it: "we build a
//! dependency graph between pairs of transactions"). The edges are described in `graph`.
//!
//! - **G0**: write-write edges only (G0-process, G0-realtime: with such edges). Always legal: "writes are never isolated". Noted.
//! - **G1c**: at least one write-read edge. A transaction read what could not have been there yet. G1c-process and G1c-realtime need the
//!   process's own order, or the clock.
//! - A circle with a write-read edge that closes only through a write-write edge out of a transaction is legal ("when we include ww edges,
//!   G1c is normal: t0 <ww t1 <wr t0") and noted as G1c-unisolated.
//!
//! Tarjan runs once over all edges; only inside what it finds are the smaller graphs looked at. Each component is reported under the
//! plainest name it has, with one circle as its proof.

use std::collections::VecDeque;

use crate::facts::Facts;
use crate::graph::{Dependencies, Edges, Part};
use crate::history::NONE;
use crate::report::{Finding, Findings, Law};
use crate::tarjan::components;

const WRITES: Edges = Edges::WW.and(Edges::WW_LOOSE);
const SOUND: Edges = Edges::WR.and(Edges::WW);

/// From the plain to the strong. The two families are independent; inside a family a component is reported once.
const G0: &[(Law, Edges)] = &[
    (Law::G0, WRITES),
    (Law::G0Process, WRITES.and(Edges::PROCESS)),
    (Law::G0Realtime, WRITES.and(Edges::PROCESS).and(Edges::REALTIME)),
];
const G1C: &[(Law, Edges)] = &[
    (Law::G1c, SOUND),
    (Law::G1cProcess, SOUND.and(Edges::PROCESS)),
    (Law::G1cRealtime, SOUND.and(Edges::PROCESS).and(Edges::REALTIME)),
    (Law::G1cUnisolated, SOUND.and(WRITES).and(Edges::PROCESS).and(Edges::REALTIME)),
];

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let graph = Dependencies::of(facts);
    for whole in components(&graph) {
        for family in [G0, G1C] {
            let mut reported: Vec<u32> = Vec::new();
            for &(law, kinds) in family {
                let part = Part { whole: &graph, members: &whole, kinds };
                for members in components(&part) {
                    let nodes: Vec<u32> = members.iter().map(|&at| whole[at as usize]).collect();
                    if nodes.iter().any(|node| reported.binary_search(node).is_ok()) {
                        continue;
                    }
                    let part = Part { whole: &graph, members: &nodes, kinds };
                    let Some(circle) = circle(&part, family == G1C) else { continue };
                    findings.add(law, false, || finding(facts, &graph, law, &circle));
                    reported.extend(&nodes);
                    reported.sort_unstable();
                }
            }
        }
    }
}

/// A step of a circle: the node it leaves, and the edge.
type Circle = Vec<(u32, Edges)>;

/// A short circle in a strongly connected part: through its first write-read edge (or write-write edge, where reads do not matter).
fn circle(part: &Part, with_read: bool) -> Option<Circle> {
    let wanted = |kind: Edges| {
        if with_read { kind == Edges::WR } else { kind == Edges::WW || kind == Edges::WW_LOOSE }
    };
    for node in 0..part.members.len() as u32 {
        let mut cursor = 0;
        while let Some((to, kind, behind)) = part.edge(node, cursor) {
            cursor = behind;
            if wanted(kind) {
                return way_back(part, node, kind, to);
            }
        }
    }
    None
}

/// Breadth first from `to` to `from`.
fn way_back(part: &Part, from: u32, first: Edges, to: u32) -> Option<Circle> {
    let mut came = vec![(NONE, first); part.members.len()];
    let mut queue = VecDeque::from([to]);
    came[to as usize] = (to, first);
    while let Some(node) = queue.pop_front() {
        if node == from {
            break;
        }
        let mut cursor = 0;
        while let Some((next, kind, behind)) = part.edge(node, cursor) {
            cursor = behind;
            if came[next as usize].0 == NONE {
                came[next as usize] = (node, kind);
                queue.push_back(next);
            }
        }
    }
    if came[from as usize].0 == NONE {
        return None;
    }
    let mut circle = Vec::new();
    let mut node = from;
    while node != to {
        let (before, kind) = came[node as usize];
        circle.push((part.members[before as usize], kind));
        node = before;
    }
    circle.push((part.members[from as usize], first));
    circle.reverse();
    Some(circle)
}

fn finding(facts: &Facts, graph: &Dependencies, law: Law, circle: &Circle) -> Finding {
    let mut words = Vec::new();
    let mut operations = Vec::new();
    for (at, &(node, kind)) in circle.iter().enumerate() {
        // Bars stand between the end of one operation and the beginning of another; they are no operations.
        if !graph.is_operation(node) {
            continue;
        }
        let after = (1..=circle.len()).map(|step| circle[(at + step) % circle.len()].0);
        let next = after.into_iter().find(|&node| graph.is_operation(node)).unwrap_or(node);
        let word = match kind {
            Edges::WR => "sent what was read by",
            Edges::WW | Edges::WW_LOOSE => "wrote right before",
            Edges::PROCESS => "is the same process before",
            _ => "ended before the beginning of",
        };
        words.push(format!("operation {node} {word} operation {next}"));
        operations.push(facts.neighbour(node));
    }
    let offsets = Vec::new();
    Finding { law, partition: None, offsets, operations, sentence: format!("a circle: {}", words.join(", ")) }
}
