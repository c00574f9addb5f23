//! Raft's election safety: at most one leader per term.

use std::collections::BTreeMap;

use super::Violation;

/// The leader of each shard and term.
#[derive(Debug, Default)]
pub(crate) struct Leaders(BTreeMap<(u64, u64), u64>);

impl Leaders {
    pub(crate) fn see(&mut self, shard: u64, term: u64, leader: u64) -> Result<(), Violation> {
        let first = *self.0.entry((shard, term)).or_insert(leader);
        if first != leader {
            let what = format!("shard {shard}: replicas {first} and {leader} both lead in term {term}");
            return Err(Violation::new("one leader a term", None, what));
        }
        Ok(())
    }
}
