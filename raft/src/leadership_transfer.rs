//! Leadership transfer: the leader of a group makes another voter the leader. It does so before its node stops, when
//! its own disk hangs, when it is to be removed from the group, and on request.
//!
//! A transfer bypasses the lease of the old leader, so reads never rest on the lease. May not know: why a caller wants
//! another leader.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ottla_env::rt;
use ottla_storage::ids::ReplicaId;

use crate::error::RaftError;
use crate::failover::SUSPICION_INTERVAL;
use crate::group::Group;
use crate::handle::GroupHandle;
use crate::host::RaftHost;

/// How long the role names no leader after a transfer was requested, unless another replica leads before.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);
/// A leader transfers leadership when its disk has synced nothing for so long although entries wait.
const WRITE_MAX: Duration = Duration::from_secs(2);

impl Group {
    /// True if nothing was synced for [`WRITE_MAX`] although entries wait to be.
    fn is_disk_stuck(&self) -> bool {
        let (last, synced, now) = (self.log.last_log_id(), self.log.last_synced(), rt::now());
        let mut unsynced = self.unsynced.lock();
        if last <= synced {
            *unsynced = None;
            return false;
        }
        let since = unsynced.filter(|(at, _)| *at == synced).map_or(now, |(_, since)| since);
        *unsynced = Some((synced, since));
        now.since(since) >= WRITE_MAX
    }

    /// Transfers leadership if this replica's disk hangs: other replicas may have a majority that syncs.
    pub(crate) fn transfer_if_disk_stuck(self: &Arc<Self>) {
        let leads = self.role().leader == Some(self.replica);
        if self.is_disk_stuck() && leads && self.begin_suspicion(SUSPICION_INTERVAL) {
            tracing::warn!(replica = self.replica.0, "the disk syncs nothing: leadership is transferred");
            let group = GroupHandle(self.clone());
            let transfer = async move { group.transfer_to_any(TRANSFER_TIMEOUT).await };
            rt::spawn_critical("raft-leadership-transfer", self.owner(), transfer);
        }
    }
}

impl GroupHandle {
    /// Transfers leadership to `to`, another voter; a change of the role shows that it is done. Until then the role
    /// names no leader, so that clients are not sent here: requests that come now are refused, and a client that is
    /// told once more that this replica leads retries much later.
    pub async fn transfer_leadership(&self, to: ReplicaId) -> Result<(), RaftError> {
        let group = &self.0;
        // openraft would wait for ever for a leader that transfers to itself.
        if to == group.replica || !self.membership().is_voter(to) {
            return Err(RaftError::Refused(format!("replica {to} is not another voter of this group")));
        }
        group.touch();
        let term = group.role().term;
        group.role_tracker.hide_leader(term);
        let requested = group.raft.trigger().transfer_leader(to.0).await;
        let role_tracker = group.role_tracker.clone();
        rt::spawn_critical("raft-transfer", group.owner(), async move {
            rt::sleep(TRANSFER_TIMEOUT).await;
            role_tracker.show_leader(term);
        });
        requested.map_err(|e| group.stopped(&e.to_string()))
    }

    /// Transfers leadership to another voter, if this replica leads and some voter is caught up; returns when another
    /// replica leads, when none can be asked to, or after `timeout`.
    async fn transfer_to_any(&self, timeout: Duration) {
        let group = &self.0;
        if group.role().leader != Some(group.replica) {
            return;
        }
        let voters = group.members().voters.into_iter().flatten();
        let mut targets: Vec<_> =
            voters.filter(|voter| *voter != group.replica && group.is_caught_up(*voter)).collect();
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            return;
        }
        let first = usize::try_from(group.role().term.0 % targets.len() as u64).unwrap_or(0);
        targets.rotate_left(first);
        let mut role = self.role();
        for target in &targets {
            let mut failed = group.role_tracker.begin_transfer();
            if self.transfer_leadership(*target).await.is_err() {
                return;
            }
            let replaced =
                role.wait_for(|role| role.stopped || role.leader.is_some_and(|leader| leader != group.replica));
            let is_replaced = async {
                tokio::select! {
                    biased;
                    _ = replaced => true,
                    // The last node of a cluster that stops would wait in vain for those that have stopped before it.
                    _ = failed.wait_for(|failed| *failed == Some(*target)) => false,
                }
            };
            let wait = timeout / u32::try_from(targets.len()).unwrap_or(1);
            if matches!(rt::timeout(wait, is_replaced).await, Ok(true)) {
                return;
            }
        }
    }
}

impl RaftHost {
    /// Transfers leadership of every group that this node leads to a caught-up voter, before the node stops.
    pub async fn transfer_leaderships(&self, timeout: Duration) {
        let groups = self.groups();
        join_all(groups.iter().map(|group| group.transfer_to_any(timeout))).await;
    }
}
