//! What the coordinator does with transactional ids of itself: it aborts transactions that their producers have not ended in time, and
//! forgets ids that no client has used for long.
//!
//! The store keeps ids in these orders: what is not due is not looked at.

use std::sync::Arc;

use super::led_partition::{Changed, LedPartition};
use super::transitions::{Transition, aborted_by_coordinator, is_expired};
use crate::replicated::transaction::TransactionValue;

/// Of one partition at once; the others follow in the next round.
const ABORTED_AT_ONCE_MAX: usize = 1_000;
const FORGOTTEN_AT_ONCE_MAX: usize = 1_000;

/// Aborts what has timed out, and goes on with what a panic has left prepared.
pub(super) async fn abort_timed_out(partition: &Arc<LedPartition>) {
    partition.complete_prepared();
    let Ok(clock) = partition.clock() else { return };
    let due = partition.store().lock().timed_out(clock.now_ms, ABORTED_AT_ONCE_MAX);
    for id in due {
        let abort = |current: Option<&TransactionValue>, now_ms: i64| {
            let due = current.filter(|current: &&TransactionValue| {
                current.deadline_ms().is_some_and(|deadline_ms| deadline_ms <= now_ms)
            });
            Ok(due.map_or(Transition::Nothing, |due| Transition::Append(aborted_by_coordinator(due, now_ms))))
        };
        match partition.change(&id, abort).await {
            Ok(Changed::To(_)) => tracing::info!(id = &*id, "the transaction was not ended in time, and is aborted"),
            // It has ended meanwhile.
            Ok(Changed::Nothing(_) | Changed::AbortsFirst | Changed::Removed) => {}
            // The next round tries again, on this node or on the next leader.
            Err(error) => tracing::debug!(id = &*id, "a transaction that has timed out is not aborted yet: {error:?}"),
        }
    }
}

/// Forgets ids at rest that have not changed for so long.
pub(super) async fn forget_unused(partition: &Arc<LedPartition>, expiration_ms: i64) {
    let Some(now_ms) = partition.clock().ok().and_then(|clock| clock.for_expiry_ms) else { return };
    let unused = partition.store().lock().unused_since(now_ms.saturating_sub(expiration_ms), FORGOTTEN_AT_ONCE_MAX);
    for id in unused {
        let forget = |current: Option<&TransactionValue>, _| {
            let unused = current.is_some_and(|current| is_expired(current, expiration_ms, now_ms));
            Ok(if unused { Transition::Remove } else { Transition::Nothing })
        };
        if let Err(error) = partition.change(&id, forget).await {
            tracing::debug!(id = &*id, "an unused transactional id is not forgotten yet: {error:?}");
        }
    }
}
