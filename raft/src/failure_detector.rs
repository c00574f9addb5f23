//! Failure detector: which replicas are suspected of having failed, because the connection to their process was closed.
//!
//! May not know: what is done about a suspicion.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

type IsDead = Arc<dyn Fn(ReplicaId) -> bool + Send + Sync>;

/// The suspicions of a node. One lasts until it is known whether the process died, and if it did, until other replicas
/// lead what the process led.
#[derive(Default)]
pub(crate) struct FailureDetector(Mutex<(u64, BTreeMap<u64, IsDead>)>);

impl FailureDetector {
    /// Begins a suspicion; returns its number.
    pub(crate) fn begin(&self, is_dead: IsDead) -> u64 {
        let (last, suspicions) = &mut *self.0.lock();
        *last += 1;
        suspicions.insert(*last, is_dead);
        *last
    }

    pub(crate) fn end(&self, number: u64) {
        self.0.lock().1.remove(&number);
    }

    pub(crate) fn is_suspected(&self, replica: ReplicaId) -> bool {
        self.0.lock().1.values().any(|is_dead| is_dead(replica))
    }
}
