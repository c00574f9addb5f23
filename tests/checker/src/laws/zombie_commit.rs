//! **zombie-commit**: a member of an older generation must not commit once a newer generation was served: a commit that succeeded may not have begun
//! after a commit or fetch of a newer generation of its group had succeeded. Clients that are no members have no generation.

use std::collections::BTreeMap;

use crate::facts::Facts;
use crate::laws::served::Served;
use crate::report::{Findings, Law};

pub(super) fn find(facts: &Facts, findings: &mut Findings) {
    let history = facts.history;
    let mut groups: BTreeMap<u32, Served> = BTreeMap::new();
    for known in history.commits.iter().chain(&history.fetches) {
        let op = history.op(known.op);
        if let Some(generation) = known.of.generation.filter(|_| op.ok()) {
            groups.entry(known.of.group).or_default().push(op.completed, generation, known.op);
        }
    }
    groups.values_mut().for_each(Served::order);
    for commit in history.commits.iter().filter(|commit| history.op(commit.op).ok()) {
        let (group, partition) = (commit.of.group, commit.of.partition);
        let Some(generation) = commit.of.generation else { continue };
        let newest = groups.get(&group).and_then(|served| served.before(history.op(commit.op).invoked));
        let Some((newest, by)) = newest.filter(|&(newest, _)| newest > generation) else { continue };
        findings.add(Law::ZombieCommit, false, || {
            let sentence = format!(
                "operation {} committed partition {partition} for generation {generation} of group {group}, though operation {by} had been served in generation {newest}",
                commit.op
            );
            let offsets: Vec<u64> = commit.of.offset.into_iter().collect();
            facts.finding(Law::ZombieCommit, partition, &offsets, &[commit.op, by], sentence)
        });
    }
}
