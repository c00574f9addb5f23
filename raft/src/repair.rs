//! Repair: fetches batches that are damaged or missing here from other members of the group.
//!
//! May not know: which batches are damaged, and how the fetched ones are used.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use futures_util::future::BoxFuture;
use ottla_protocol::ids::{Offset, PartitionId};
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

impl Peers for Group {
    fn fetch(&self, partition: PartitionId, offsets: Range<Offset>) -> BoxFuture<'_, io::Result<Exported>> {
        Box::pin(async move {
            let mut outcome = Err(refused("there are no other members"));
            for source in self.repair_sources(self.role_tracker.current().leader) {
                let Range { start: from, end: up_to } = offsets;
                let request = Message::FetchBatches { partition, from, up_to, bytes_max: RESPONSE_BYTES_MAX as u64 };
                match self.call(source, request).await {
                    Ok(Message::FetchBatchesResponse(found))
                        if !found.batches.is_empty() && found.log_start <= from =>
                    {
                        return Ok(found);
                    }
                    Ok(_) => outcome = Err(refused("it does not have them either")),
                    Err(error) => outcome = Err(error),
                }
            }
            outcome
        })
    }
}
