//! What runs for the partitions of an internal topic that this node leads: one of each, begun by one leadership.
//!
//! May not know: what runs.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use super::topic_log::Leadership;

/// By partition. `T` is a handle, cheap to clone.
#[derive(Debug)]
pub(super) struct ByLeadership<T>(RwLock<Running<T>>);

#[derive(Debug)]
struct Running<T> {
    all: BTreeMap<i32, (Leadership, T)>,
    stopped: bool,
}

impl<T> Default for ByLeadership<T> {
    fn default() -> Self {
        Self(RwLock::new(Running { all: BTreeMap::new(), stopped: false }))
    }
}

impl<T: Clone> ByLeadership<T> {
    /// What runs for a partition by this leadership and is usable, or else what `start` begins; none after [`Self::stop`].
    pub(super) fn get_or_start(
        &self,
        partition: i32,
        by: Leadership,
        is_usable: impl Fn(&T) -> bool,
        start: impl FnOnce() -> Option<T>,
    ) -> Option<T> {
        let usable = |running: &Running<T>| {
            let found = running.all.get(&partition).filter(|(begun_by, one)| *begun_by == by && is_usable(one));
            found.map(|(_, one)| one.clone())
        };
        if let Some(found) = usable(&self.0.read()) {
            return Some(found);
        }
        let mut running = self.0.write();
        if let Some(found) = usable(&running) {
            return Some(found);
        }
        if running.stopped {
            return None;
        }
        let begun = start()?;
        running.all.insert(partition, (by, begun.clone()));
        Some(begun)
    }

    /// All that have begun and were not replaced, whether their leadership lasts or not.
    pub(super) fn all(&self) -> Vec<T> {
        self.0.read().all.values().map(|(_, one)| one.clone()).collect()
    }

    /// Drops the others.
    pub(super) fn retain(&self, keep: impl Fn(&T) -> bool) {
        self.0.write().all.retain(|_, (_, one)| keep(one));
    }

    /// Drops all of them; nothing begins any more.
    pub(super) fn stop(&self) {
        let mut running = self.0.write();
        running.stopped = true;
        running.all.clear();
    }
}
