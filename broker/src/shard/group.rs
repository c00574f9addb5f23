//! The Raft group as its shard uses it: a trait, so that the appender and the manager are tested without one.
//!
//! May not know: openraft. The real one is [`GroupHandle`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::critical::Owner;
use ottla_env::watch;
use ottla_raft::{GroupHandle, Membership, MembershipStep, Proposal, ProposeError, RaftError, ReadIndexError, Role};
use ottla_storage::ids::{RaftIndex, ReplicaId};

use super::proposal_window::Applied;

/// One replica of a Raft group.
pub trait Group: Send + Sync + 'static {
    /// The owner of the replica's tasks: a panic of one of them stops the replica.
    fn owner(&self) -> Owner;
    /// Proposes an entry. When the outer future is ready, its place among the entries of this replica is fixed; when the inner one
    /// is, it is applied here.
    fn submit(&self, proposal: Proposal) -> BoxFuture<'static, Result<Applied, ProposeError>>;
    /// Confirms leadership with a majority and waits until everything committed before is applied here.
    fn read_index(&self) -> BoxFuture<'static, Result<RaftIndex, ReadIndexError>>;
    /// The role, and its changes.
    fn role(&self) -> watch::Receiver<Role>;
    /// The members as last seen.
    fn members(&self) -> Membership;
    /// The voters that are in sync, this one included; empty where this replica does not lead.
    fn in_sync(&self) -> Arc<[ReplicaId]>;
    /// The number of voters in sync.
    fn in_sync_count(&self) -> usize;
    /// Waits until so many voters have synced everything up to `index`; false if this replica leads no longer.
    fn synced_by(&self, index: RaftIndex, voters: usize) -> BoxFuture<'static, bool>;
    /// For how long there has been no leader, as far as this replica knows; `None` while there is one.
    fn leaderless_for(&self) -> Option<Duration>;
    /// True if this replica follows a leader from which it has heard within this time.
    fn has_heard_within(&self, time: Duration) -> bool;
    /// True if this replica leads and the other one could take over at once.
    fn could_lead(&self, replica: ReplicaId) -> bool;
    /// Transfers leadership to another voter; the role changes when it is done.
    fn transfer_leadership(&self, to: ReplicaId) -> BoxFuture<'static, Result<(), RaftError>>;
    /// True if the log here begins behind an entry; if not, it is purged up to there soon.
    fn begins_behind(&self, index: RaftIndex) -> bool;
    /// Makes one membership change towards exactly these voters.
    fn advance_membership(&self, voters: BTreeSet<ReplicaId>) -> BoxFuture<'static, Result<MembershipStep, RaftError>>;
}

impl Group for GroupHandle {
    fn owner(&self) -> Owner {
        GroupHandle::owner(self)
    }

    fn submit(&self, proposal: Proposal) -> BoxFuture<'static, Result<Applied, ProposeError>> {
        let handle = self.clone();
        async move { Ok(handle.submit(proposal).await?.applied().boxed()) }.boxed()
    }

    fn read_index(&self) -> BoxFuture<'static, Result<RaftIndex, ReadIndexError>> {
        let handle = self.clone();
        async move { handle.read_index().await }.boxed()
    }

    fn role(&self) -> watch::Receiver<Role> {
        GroupHandle::role(self)
    }

    fn members(&self) -> Membership {
        self.membership()
    }

    fn in_sync(&self) -> Arc<[ReplicaId]> {
        GroupHandle::in_sync(self)
    }

    fn in_sync_count(&self) -> usize {
        GroupHandle::in_sync_count(self)
    }

    fn synced_by(&self, index: RaftIndex, voters: usize) -> BoxFuture<'static, bool> {
        let handle = self.clone();
        async move { GroupHandle::synced_by(&handle, index, voters).await }.boxed()
    }

    fn leaderless_for(&self) -> Option<Duration> {
        GroupHandle::leaderless_for(self)
    }

    fn has_heard_within(&self, time: Duration) -> bool {
        GroupHandle::has_leader_contact_within(self, time)
    }

    fn could_lead(&self, replica: ReplicaId) -> bool {
        GroupHandle::could_lead(self, replica)
    }

    fn transfer_leadership(&self, to: ReplicaId) -> BoxFuture<'static, Result<(), RaftError>> {
        let handle = self.clone();
        async move { GroupHandle::transfer_leadership(&handle, to).await }.boxed()
    }

    fn begins_behind(&self, index: RaftIndex) -> bool {
        GroupHandle::begins_behind(self, index)
    }

    fn advance_membership(&self, voters: BTreeSet<ReplicaId>) -> BoxFuture<'static, Result<MembershipStep, RaftError>> {
        let handle = self.clone();
        async move { GroupHandle::advance_membership(&handle, &voters, &BTreeSet::new()).await }.boxed()
    }
}
