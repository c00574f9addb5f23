//! The replicas that run on this node, by shard: mostly one, and two while the shard moves from one data directory to another.
//!
//! May not know: how a replica is opened or closed.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_storage::ids::ReplicaId;
use parking_lot::RwLock;

use crate::metadata::ShardId;
use crate::shard::Shard;

/// All of them.
#[derive(Default)]
pub(super) struct ReplicasHere(RwLock<BTreeMap<ShardId, Vec<Arc<Shard>>>>);

impl ReplicasHere {
    pub(super) fn add(&self, shard: Arc<Shard>) {
        let mut all = self.0.write();
        let of_shard = all.entry(shard.creation.shard).or_default();
        assert!(of_shard.iter().all(|known| known.replica != shard.replica), "{shard:?} runs already");
        of_shard.push(shard);
        of_shard.sort_by_key(|shard| shard.replica);
    }

    /// Removes a replica, and returns it if it was here.
    pub(super) fn remove(&self, replica: ReplicaId) -> Option<Arc<Shard>> {
        let found = self.find(replica)?;
        let mut all = self.0.write();
        let of_shard = all.get_mut(&found.creation.shard)?;
        of_shard.retain(|shard| shard.replica != replica);
        if of_shard.is_empty() {
            all.remove(&found.creation.shard);
        }
        Some(found)
    }

    pub(super) fn find(&self, replica: ReplicaId) -> Option<Arc<Shard>> {
        self.0.read().values().flatten().find(|shard| shard.replica == replica).cloned()
    }

    /// True of a replica beside an older one: it takes the place of that in another directory.
    pub(super) fn is_moving_in(&self, replica: ReplicaId) -> bool {
        let all = self.0.read();
        let mut beside = all.values().filter(|of_shard| of_shard.len() > 1);
        beside.any(|of_shard| of_shard.iter().skip(1).any(|shard| shard.replica == replica))
    }

    /// Those of a shard, the oldest first.
    pub(super) fn of(&self, shard: ShardId) -> Vec<Arc<Shard>> {
        self.0.read().get(&shard).cloned().unwrap_or_default()
    }

    /// The one that serves a shard.
    pub(super) fn serving(&self, shard: ShardId) -> Option<Arc<Shard>> {
        serving(self.0.read().get(&shard)?).cloned()
    }

    /// Those that serve.
    pub(super) fn all_serving(&self) -> Vec<Arc<Shard>> {
        self.0.read().values().filter_map(|of_shard| serving(of_shard)).cloned().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Shard>> {
        self.0.read().values().flatten().cloned().collect()
    }
}

/// Of several the one that leads serves, in the newest term if two believe that they do. Else the oldest one that has not stopped: the
/// other one may lack what it has.
fn serving(of_shard: &[Arc<Shard>]) -> Option<&Arc<Shard>> {
    if let [one] = of_shard {
        return Some(one);
    }
    let leader = of_shard.iter().filter(|shard| shard.is_elected()).max_by_key(|shard| shard.role().term);
    leader.or_else(|| of_shard.iter().find(|shard| !shard.role().stopped)).or(of_shard.first())
}

#[cfg(test)]
mod tests {
    use ottla_env::sim;

    use super::*;
    use crate::metadata::ShardKind;
    use crate::shard::fake::{FakeGroup, REPLICA};

    #[test]
    fn only_the_newer_of_two_replicas_moves_here() {
        sim::run(1, || async {
            let (group, shard) = FakeGroup::leading(ShardKind::Pool { factor: 1, pinned: false });
            let newer = ReplicaId(REPLICA.0 + 1);
            let here = ReplicasHere::default();
            let moving = || [REPLICA, newer].map(|replica| here.is_moving_in(replica));
            here.add(group.beside(&shard, newer));
            assert_eq!(moving(), [false, false], "the only one");
            here.add(shard);
            assert_eq!(moving(), [false, true]);
            here.remove(REPLICA);
            assert_eq!(moving(), [false, false], "the other one is gone");
        });
    }
}
