//! Who may have died, as a node has heard of closed connections.
//!
//! May not know: what is done about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

type IsDead = Arc<dyn Fn(ReplicaId) -> bool + Send + Sync>;

/// Who may have died: until that is known, and if so, until others lead what they led.
#[derive(Default)]
pub(crate) struct Suspicions(Mutex<(u64, BTreeMap<u64, IsDead>)>);

impl Suspicions {
    pub(crate) fn begin(&self, is_dead: IsDead) -> u64 {
        let (last, suspicions) = &mut *self.0.lock();
        *last += 1;
        suspicions.insert(*last, is_dead);
        *last
    }

    pub(crate) fn end(&self, number: u64) {
        self.0.lock().1.remove(&number);
    }

    pub(crate) fn cover(&self, replica: ReplicaId) -> bool {
        self.0.lock().1.values().any(|is_dead| is_dead(replica))
    }
}
