//! Replicas compare the checksums of their states while they run; one that differs from a majority stops for good, and is
//! rebuilt like one whose disk is damaged.
//!
//! Each replica asks the others, by itself: a leader that differs is found like a follower, and no message makes a replica
//! stop without the others' word. May not know: what a state is.

use std::sync::Arc;
use std::time::Duration;

use ottla_env::rt;
use ottla_storage::ids::{RaftIndex, ReplicaId};

use crate::checksum_points::{CHECKSUM_FORMAT, StateVerdict, judge};
use crate::group::Group;
use crate::net::Message;
use crate::role::stops_within;

/// The other members may not have applied yet what this one has.
const CATCH_UP: Duration = Duration::from_secs(1);

impl Group {
    /// Compares the state now and then, until the replica stops.
    pub(crate) async fn check_states(self: Arc<Self>) {
        let mut role = self.role_tracker.role();
        let mut checked = None;
        while !stops_within(&mut role, self.options.state_check_interval).await {
            let point = self.applier.newest_checksum();
            let Some((index, own)) = point.filter(|(index, _)| checked != Some(*index)) else { continue };
            rt::sleep(CATCH_UP).await;
            checked = Some(index);
            self.compare_state(index, own).await;
        }
    }

    async fn compare_state(self: &Arc<Self>, index: RaftIndex, own: u64) {
        let members = self.members();
        // While two sets of voters decide, "a majority" has no simple meaning; a change is soon over.
        let [voters] = &members.voters[..] else { return };
        let others: Vec<ReplicaId> = voters.iter().copied().filter(|voter| *voter != self.replica).collect();
        let asked = others.iter().map(|voter| async move {
            let request = Message::CheckState { index, format: CHECKSUM_FORMAT };
            match self.call(*voter, request).await {
                Ok(Message::CheckStateResponse(checksum)) => checksum,
                _ => None,
            }
        });
        let known: Vec<u64> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        match judge(own, &known, voters.len()) {
            StateVerdict::Equal => {}
            StateVerdict::Differ => tracing::error!(
                replica = self.replica.0,
                index = index.0,
                "the states of replicas differ ({own:x}, others {known:x?}), and no majority says which is right"
            ),
            StateVerdict::DiffersFromMajority => self.quarantine(index, own, &known).await,
        }
    }

    /// Stops the replica for good; also after a restart it takes no part.
    async fn quarantine(self: &Arc<Self>, index: RaftIndex, own: u64, others: &[u64]) {
        let why = format!("its state after entry {} is {own:x}, that of a majority {others:x?}: it differs", index.0);
        if let Err(error) = self.log.mark_lost().await {
            tracing::error!(replica = self.replica.0, "not marked as lost: {error}");
        }
        self.damage.set_fatal();
        self.fail(&why);
    }
}
