//! A dead node is fenced in time, on every node and in clients' metadata; a live one is not, or not for long. And every
//! leader in an answer is among its brokers.

use std::collections::BTreeSet;

use kafka_protocol::messages::MetadataResponse;

use super::Violation;

const LAW: &str = "a dead node is fenced, a live one is not";

/// What one node shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The node that shows it.
    pub(crate) by: u32,
    /// The fenced nodes of its metadata image.
    pub(crate) fenced: BTreeSet<i32>,
    /// The brokers of its Metadata response.
    pub(crate) listed: BTreeSet<i32>,
    /// The nodes with offline replicas in that response.
    pub(crate) offline: BTreeSet<i32>,
}

impl Shown {
    pub(crate) fn of(by: u32, fenced: BTreeSet<i32>, answer: &MetadataResponse) -> Self {
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        Self {
            by,
            fenced,
            listed: answer.brokers.iter().map(|broker| broker.node_id.0).collect(),
            offline: partitions.flat_map(|partition| &partition.offline_replicas).map(|node| node.0).collect(),
        }
    }

    /// True if exactly the dead nodes are fenced and not listed, and no others are offline.
    pub(crate) fn is_true(&self, all: &BTreeSet<i32>, dead: &BTreeSet<i32>) -> bool {
        let live: BTreeSet<_> = all.difference(dead).copied().collect();
        self.fenced == *dead && self.listed == live && self.offline.is_subset(dead)
    }
}

/// The nodes still show something else after so many seconds without faults.
pub(crate) fn untrue(seconds: u64, dead: &BTreeSet<i32>, shown: &[Shown]) -> Violation {
    Violation::new(LAW, None, format!("after {seconds} s without faults, {dead:?} being dead: {shown:?}"))
}

/// A client can reach each leader of an answer.
pub(crate) fn leaders_are_listed(by: u32, answer: &MetadataResponse) -> Result<(), Violation> {
    let listed = |node: i32| answer.brokers.iter().any(|broker| broker.node_id.0 == node);
    for topic in &answer.topics {
        for partition in topic.partitions.iter().filter(|partition| partition.leader_id.0 >= 0) {
            let (leader, index) = (partition.leader_id.0, partition.partition_index);
            if !listed(leader) || partition.offline_replicas.iter().any(|node| node.0 == leader) {
                let what = format!("node {by} names {leader} as leader of {:?} {index}: {answer:?}", topic.name);
                return Err(Violation::new("a leader is among the brokers of its answer", None, what));
            }
        }
    }
    Ok(())
}
