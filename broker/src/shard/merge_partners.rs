//! The replicas of this node as a merge sees them: apply of an Absorb waits until the replica that it takes over is sealed
//! here, and takes its state (design section 8).
//!
//! ```text
//!  not here yet, or behind its Seal    the Absorb waits: every member of the absorbed shard has the Seal in its log
//!  lost                                the survivor's replica beside it is lost as well, and rebuilt from the others
//!  taken over, not yet durable         neither is removed
//! ```
//! May not know: metadata, when shards are merged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use ottla_env::watch;
use ottla_raft::{AbsorbedReplica, GroupHandle, WeakHost};
use ottla_storage::ids::{RaftIndex, ReplicaId};
use parking_lot::Mutex;

use crate::metadata::MergeReplica;
use crate::replicated::shard_state::ShardState;

/// A replica that is taken over: its state, and the group that is cut with it.
pub(super) struct Partner {
    pub(super) state: Arc<Mutex<ShardState>>,
    pub(super) group: Arc<dyn AbsorbedReplica>,
}

#[derive(Default)]
struct Known {
    states: BTreeMap<ReplicaId, Arc<Mutex<ShardState>>>,
    lost: BTreeSet<ReplicaId>,
    /// Taken over in memory alone.
    open: BTreeSet<MergeReplica>,
}

/// All replicas that run on this node.
pub(crate) struct MergePartners {
    host: OnceLock<WeakHost>,
    known: Mutex<Known>,
    changes: watch::Sender<u64>,
}

impl Default for MergePartners {
    fn default() -> Self {
        Self { host: OnceLock::new(), known: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl MergePartners {
    /// Where the groups are found.
    pub(crate) fn set_host(&self, host: WeakHost) {
        let _set_once = self.host.set(host);
    }

    /// A replica runs.
    pub(crate) fn opened(&self, replica: ReplicaId, state: Arc<Mutex<ShardState>>) {
        self.known.lock().states.insert(replica, state);
        self.changes.send_modify(|version| *version += 1);
    }

    /// A replica runs no longer.
    pub(crate) fn closed(&self, replica: ReplicaId) {
        self.known.lock().states.remove(&replica);
    }

    /// A replica never runs again.
    pub(crate) fn lost(&self, replica: ReplicaId) {
        self.known.lock().lost.insert(replica);
        self.changes.send_modify(|version| *version += 1);
    }

    fn group(&self, replica: ReplicaId) -> Option<GroupHandle> {
        self.host.get()?.upgrade()?.group(replica)
    }

    /// Waits until a replica here is sealed for a merge.
    pub(super) async fn sealed(self: Arc<Self>, replica: ReplicaId, intent: RaftIndex) -> Result<(), String> {
        let mut changes = self.changes.subscribe();
        loop {
            drop(changes.borrow_and_update());
            let (state, is_lost) = {
                let known = self.known.lock();
                (known.states.get(&replica).cloned(), known.lost.contains(&replica))
            };
            if is_lost {
                return Err(format!("it takes over replica {replica}, which is lost"));
            }
            let (Some(state), Some(group)) = (state, self.group(replica)) else {
                // The sender is this table's.
                let _changed = changes.changed().await;
                continue;
            };
            let mut applied = group.watch_applied();
            drop(group);
            loop {
                drop(applied.borrow_and_update());
                if state.lock().sealed.is_some_and(|sealed| sealed.intent == intent) {
                    let Some(group) = self.group(replica) else { break };
                    // What it has split off before: its own state must not become durable without that.
                    group.resizes_ended().await;
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    _ = changes.changed() => break,
                    changed = applied.changed() => if changed.is_err() {
                        let _changed = changes.changed().await;
                        break;
                    },
                }
            }
        }
    }

    /// A replica that is taken over from now on, and the merge is not durable.
    pub(super) fn begin(&self, pair: MergeReplica) -> Option<Partner> {
        let group = self.group(pair.absorbed)?.to_absorb();
        let mut known = self.known.lock();
        let state = known.states.get(&pair.absorbed)?.clone();
        known.open.insert(pair);
        group.begin_merge();
        Some(Partner { state, group })
    }

    /// A merge is durable.
    pub(crate) fn end(&self, pair: MergeReplica) {
        self.known.lock().open.remove(&pair);
    }

    /// True if the replica takes over another one, or is taken over, and this is not durable.
    pub(crate) fn involves(&self, replica: ReplicaId) -> bool {
        self.known.lock().open.iter().any(|pair| [pair.survivor, pair.absorbed].contains(&replica))
    }
}
