//! Offset expiration: at intervals the coordinator goes through its groups, a few at a time, and removes offsets that
//! have expired and those of deleted topics.
//!
//! May not know: when, and by which clock (see `expiration_schedule`).

use std::sync::Arc;

use super::{Event, PartitionCoordinator, wait_for_all};
use crate::coordinator::group::classic::State;
use crate::coordinator::group::expiry;
use crate::replicated::group::guard::Guard;
use crate::replicated::group::records::Record;
use crate::replicated::group::store::StoredGroup;

/// Groups looked at between two requests.
const GROUPS_PER_STEP: usize = 256;

impl PartitionCoordinator {
    /// Checks first which topics are deleted; the round begins with the result.
    pub(super) fn begin_expiration(&mut self) {
        self.expiration.begin_topic_check();
        let topics = self.store.lock().topics().cloned().collect();
        let gone = self.log.deleted_topics(topics);
        self.events.push(Box::pin(async move { Event::TopicsDeleted(gone.await) }));
    }

    /// Checks the next few groups.
    pub(super) fn expire_some(&mut self) {
        let Some(mut running) = self.expiration.step() else { return };
        let mut due: Vec<(Arc<str>, Vec<Record>, i64)> = Vec::new();
        let mut looked_at = 0;
        {
            let store = self.store.lock();
            let cursor = running.cursor.take();
            for (group, stored) in store.groups_after(cursor.as_deref()).take(GROUPS_PER_STEP) {
                looked_at += 1;
                running.cursor = Some(group.clone());
                let state = self.live.get(group).map_or(State::Empty, |live| live.machine.state());
                let records = expiry::tombstones(group, stored, state, &running.terms);
                if !records.is_empty() {
                    let cutoff_ms = newest_due_ms(stored, &records);
                    due.push((group.clone(), records, cutoff_ms));
                }
            }
        }
        for (group, records, cutoff_ms) in due {
            tracing::info!(group = ?group, records = records.len(), "removing what has expired");
            let guard = Guard::Expiry { group: group.to_string(), cutoff_ms };
            let appends = self.append_all(&records, self.now().wall_ms, &guard, None);
            self.events.push(Box::pin(async move {
                if let Err(error) = wait_for_all(appends).await {
                    tracing::info!(group = ?group, %error, "expired offsets stay until the next sweep");
                }
                Event::ExpirationWritten
            }));
        }
        if looked_at == GROUPS_PER_STEP {
            self.expiration.resume(running);
        }
    }
}

/// The round has not seen what was committed after this, so its tombstones must not remove it. Only what is due counts:
/// an offset that stays may be as new as a commit on its way, above all while the partition's clock stands still.
fn newest_due_ms(stored: &StoredGroup, due: &[Record]) -> i64 {
    let committed_ms = |record: &Record| match record {
        Record::Offset { topic, partition, .. } => {
            stored.offsets.get(topic.as_str())?.get(partition).map(|offset| offset.commit_time_ms)
        }
        Record::Group { .. } => None,
    };
    due.iter().filter_map(committed_ms).max().unwrap_or(i64::MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use crate::coordinator::group::expiry::Terms;
    use crate::replicated::group::batch;
    use crate::replicated::group::records::CommittedOffset;
    use crate::replicated::group::store::{GroupChange, GroupStore, refusal};

    const RETENTION_MS: i64 = 1_000;

    fn offset(partition: i32, commit_time_ms: i64) -> Record {
        let value = CommittedOffset {
            offset: 5,
            leader_epoch: -1,
            metadata: "".into(),
            commit_time_ms,
            expire_time_ms: None,
            topic_id: Uuid::nil(),
        };
        Record::Offset { group: "g".into(), topic: "t".into(), partition, value: Some(value) }
    }

    fn bytes(records: &[Record]) -> Bytes {
        batch::build(records, 0, None).remove(0)
    }

    /// The clock of a new leader stands still while its wall clock is behind: everything has the same time.
    #[test]
    fn a_commit_on_its_way_survives_expiry_though_another_offset_is_as_new() {
        let mut store = GroupStore::new();
        store.apply(GroupChange::of(None, &bytes(&[offset(0, 0), offset(1, 5_000)])));
        let stored = store.group("g").cloned().unwrap_or_default();
        let terms = Terms { now_ms: 5_000, retention_ms: Some(RETENTION_MS), ..Terms::default() };
        let due = expiry::tombstones("g", &stored, State::Empty, &terms);
        assert_eq!(due.len(), 1, "partition 0 has expired, partition 1 has not");
        let guard = Guard::Expiry { group: "g".into(), cutoff_ms: newest_due_ms(&stored, &due) };
        assert_eq!(store.judge(&GroupChange::of(Some(&guard), &bytes(&due))), Ok(()));
        // It was not applied yet when the round read the store.
        store.apply(GroupChange::of(None, &bytes(&[offset(0, 5_000)])));
        assert_eq!(store.judge(&GroupChange::of(Some(&guard), &bytes(&due))), Err(refusal::CHANGED_MEANWHILE));
        let by_partition: BTreeMap<_, _> = store.group("g").map(|g| g.offsets["t"].clone()).unwrap_or_default();
        assert_eq!(by_partition[&0].commit_time_ms, 5_000);
    }
}
