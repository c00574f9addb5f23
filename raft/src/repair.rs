//! Repair: fetches batches that are damaged or missing here from other members of the group.
//!
//! May not know: which batches are damaged, and how the fetched ones are used.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};
use ottla_storage::compact::PassDone;
use ottla_storage::data_dir::{Exported, Peers};
use ottla_storage::ids::ReplicaId;

use crate::group::Group;
use crate::net::Message;
use crate::snapshot_install::{RESPONSE_BYTES_MAX, refused};

impl Group {
    /// The other members, the leader last: it has the most load.
    pub(crate) fn repair_sources(&self, leader: Option<ReplicaId>) -> Vec<ReplicaId> {
        let mut others: BTreeSet<ReplicaId> = self.members().voters.into_iter().flatten().collect();
        others.remove(&self.replica);
        let leader = leader.filter(|leader| *leader != self.replica);
        others.retain(|source| Some(*source) != leader);
        others.into_iter().chain(leader).collect()
    }
}

impl Group {
    /// The others have compacted beyond what is damaged here, and this replica cannot follow, since it reads all of it for that: it
    /// stops, and is rebuilt under another id.
    fn lose_behind(self: &Arc<Self>, partition: PartitionId) {
        self.damage.set_fatal();
        self.fail(&format!("partition {partition} is damaged below what the others have compacted"));
    }
}

impl Peers for Group {
    fn fetch(
        self: Arc<Self>,
        partition: PartitionId,
        offsets: Range<Offset>,
    ) -> BoxFuture<'static, io::Result<Exported>> {
        Box::pin(async move {
            let mut outcome = Err(refused("there are no other members"));
            let own = self.directory.pass_done(self.replica, partition);
            let Range { start: from, end: up_to } = offsets;
            let (mut all_answered, mut compacted_further) = (true, false);
            for source in self.repair_sources(self.role_tracker.current().leader) {
                let request = Message::FetchBatches { partition, from, up_to, bytes_max: RESPONSE_BYTES_MAX as u64 };
                match self.call(source, request).await {
                    Ok(Message::FetchBatchesResponse(found))
                        if !found.batches.is_empty() && found.log_start <= from =>
                    {
                        if PassDone::are_alike(own, found.done, from) {
                            return Ok(found);
                        }
                        compacted_further |= PassDone::number_of(found.done) > PassDone::number_of(own);
                        outcome = Err(refused("it has compacted the partition differently far"));
                    }
                    Ok(_) => outcome = Err(refused("it does not have them either")),
                    Err(error) => (all_answered, outcome) = (false, Err(error)),
                }
            }
            if all_answered && compacted_further {
                self.lose_behind(partition);
            }
            outcome
        })
    }
}
