//! The sweep: now and then the owner goes through its groups, a few at a time, and removes what has expired and what
//! belongs to deleted topics.
//!
//! May not know: when, and by which clock (see `sweep`).

use std::sync::Arc;

use super::{Event, Owner, wait_for_all};
use crate::coordinator::group::classic::State;
use crate::coordinator::group::expiry;
use crate::coordinator::group::guard::Guard;
use crate::coordinator::group::records::Record;
use crate::coordinator::group::store::StoredGroup;

/// Groups looked at between two requests.
const GROUPS_PER_STEP: usize = 256;

impl Owner {
    /// Asks first which topics are gone; the sweep begins with the answer.
    pub(super) fn begin_sweep(&mut self) {
        self.sweep.ask();
        let topics = self.store.lock().topics().cloned().collect();
        let gone = self.journal.gone(topics);
        self.events.push(Box::pin(async move { Event::Gone(gone.await) }));
    }

    /// Looks at the next few groups.
    pub(super) fn sweep_some(&mut self) {
        let Some(mut running) = self.sweep.step() else { return };
        let mut due: Vec<(Arc<str>, Vec<Record>, i64)> = Vec::new();
        let mut looked_at = 0;
        {
            let store = self.store.lock();
            let cursor = running.cursor.take();
            for (group, stored) in store.groups_after(cursor.as_deref()).take(GROUPS_PER_STEP) {
                looked_at += 1;
                running.cursor = Some(group.clone());
                let state = self.live.get(group).map_or(State::Empty, |slot| slot.machine.state());
                let records = expiry::tombstones(group, stored, state, &running.terms);
                if !records.is_empty() {
                    due.push((group.clone(), records, newest_commit_ms(stored)));
                }
            }
        }
        for (group, records, cutoff_ms) in due {
            tracing::info!(group = ?group, records = records.len(), "removing what has expired");
            let guard = Guard::Expiry { group: group.to_string(), cutoff_ms };
            let appends = self.append_all(&records, self.now().wall_ms, &guard);
            self.events.push(Box::pin(async move {
                if let Err(error) = wait_for_all(appends).await {
                    tracing::info!(group = ?group, %error, "expired offsets stay until the next sweep");
                }
                Event::Swept
            }));
        }
        if looked_at == GROUPS_PER_STEP {
            self.sweep.go_on(running);
        }
    }
}

/// What was committed after this the sweep has not seen, so its removals must not touch it.
fn newest_commit_ms(stored: &StoredGroup) -> i64 {
    let offsets = stored.offsets.values().flat_map(|partitions| partitions.values());
    offsets.map(|offset| offset.commit_time_ms).max().unwrap_or(i64::MIN)
}
