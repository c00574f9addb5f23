//! Raft's election safety: at most one leader per term. A leader with slow followers stays one.

use std::collections::BTreeMap;

use ottla_storage::ids::Term;

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

/// A leader whose followers are slow leads on, and serves what it has.
pub(crate) fn serves(shard: impl std::fmt::Display, began: Term, now: Term, ready: bool) -> Result<(), Violation> {
    if ready && began == now {
        return Ok(());
    }
    let what = format!(
        "shard {shard}: led in term {}, in term {} it is {}",
        began.0,
        now.0,
        if ready { "led anew" } else { "not" }
    );
    Err(Violation::new("a leader serves while the disks of its followers stall", None, what))
}
