//! Tarjan's strongly connected components, without recursion and without stored edges.
//!
//! Components of one node are no cycles here (no graph of ours has an edge from a node to itself).
//!
//! May not know: histories.

/// Edges of a node are enumerated by a cursor, which starts at 0.
pub(crate) trait Graph {
    fn nodes(&self) -> u32;
    /// The next edge's end, and the cursor behind it.
    fn next(&self, node: u32, cursor: u32) -> Option<(u32, u32)>;
}

const UNSEEN: u32 = u32::MAX;
const DONE: u32 = u32::MAX - 1;

/// Components with two nodes or more, each sorted, in the order of their smallest node.
pub(crate) fn components(graph: &impl Graph) -> Vec<Vec<u32>> {
    let nodes = graph.nodes();
    // `low` is the least number reachable while a node is open, `DONE` afterwards.
    let mut low = vec![UNSEEN; nodes as usize];
    let mut number = vec![0u32; nodes as usize];
    let mut open: Vec<u32> = Vec::new();
    let mut path: Vec<(u32, u32)> = Vec::new();
    let mut found = Vec::new();
    let mut count = 0;
    for root in 0..nodes {
        if low[root as usize] != UNSEEN {
            continue;
        }
        path.push((root, 0));
        while let Some((node, cursor)) = path.pop() {
            if cursor == 0 && low[node as usize] == UNSEEN {
                (low[node as usize], number[node as usize]) = (count, count);
                count += 1;
                open.push(node);
            }
            if let Some((next, cursor)) = graph.next(node, cursor) {
                path.push((node, cursor));
                match low[next as usize] {
                    UNSEEN => path.push((next, 0)),
                    DONE => {}
                    _ => low[node as usize] = low[node as usize].min(number[next as usize]),
                }
                continue;
            }
            let reached = low[node as usize];
            if reached == number[node as usize] {
                let at = open.iter().rposition(|&member| member == node).unwrap_or(0);
                let mut members = open.split_off(at);
                members.iter().for_each(|&member| low[member as usize] = DONE);
                if members.len() > 1 {
                    members.sort_unstable();
                    found.push(members);
                }
            }
            if let Some(&(above, _)) = path.last()
                && reached < low[above as usize]
                && low[above as usize] != DONE
            {
                low[above as usize] = reached;
            }
        }
    }
    found.sort_unstable_by_key(|members| members[0]);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Lists(Vec<Vec<u32>>);

    impl Graph for Lists {
        fn nodes(&self) -> u32 {
            self.0.len() as u32
        }
        fn next(&self, node: u32, cursor: u32) -> Option<(u32, u32)> {
            Some((*self.0[node as usize].get(cursor as usize)?, cursor + 1))
        }
    }

    /// By definition: two nodes are together if each reaches the other.
    fn slowly(graph: &Lists) -> Vec<Vec<u32>> {
        let nodes = graph.nodes() as usize;
        let mut reach = vec![vec![false; nodes]; nodes];
        for (from, list) in graph.0.iter().enumerate() {
            list.iter().for_each(|&to| reach[from][to as usize] = true);
        }
        for mid in 0..nodes {
            for from in 0..nodes {
                for to in 0..nodes {
                    reach[from][to] |= reach[from][mid] && reach[mid][to];
                }
            }
        }
        let mut found: Vec<Vec<u32>> = Vec::new();
        (0..nodes).for_each(|node| {
            let same = |&other: &usize| other == node || (reach[node][other] && reach[other][node]);
            let members: Vec<u32> = (0..nodes).filter(same).map(|other| other as u32).collect();
            if members.len() > 1 && members[0] == node as u32 {
                found.push(members);
            }
        });
        found
    }

    #[test]
    fn a_long_chain_needs_no_recursion_and_has_no_cycle() {
        let chain = Lists((0..300_000).map(|node| if node == 299_999 { vec![] } else { vec![node + 1] }).collect());
        assert!(components(&chain).is_empty());
    }

    #[test]
    fn a_long_ring_is_one_component() {
        let ring = Lists((0..300_000).map(|node| vec![(node + 1) % 300_000]).collect());
        assert_eq!(components(&ring).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn components_are_what_the_definition_says(
            edges in proptest::collection::vec((0u32..12, 0u32..12), 0..40)
        ) {
            let mut lists = vec![Vec::new(); 12];
            for (from, to) in edges.into_iter().filter(|(from, to)| from != to) {
                lists[from as usize].push(to);
            }
            let graph = Lists(lists);
            proptest::prop_assert_eq!(components(&graph), slowly(&graph));
        }
    }
}
