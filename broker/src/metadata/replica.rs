//! Adapter of the metadata's state machine to the Raft trait: applies entries, publishes images.
//!
//! May not know: which requests led to the entries.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use ottla_env::watch;
use ottla_raft::{Applied, Extent, Membership, Reply, StateMachine};
use ottla_storage::data_dir::RecoveredReplica;
use ottla_storage::entry::Entry;
use ottla_storage::ids::{LogId, RaftIndex};

use super::image::{MetadataImage, ShardRecord};
use super::state_machine::MetadataStateMachine;
use crate::codec::CodecError;
use crate::config::Config;

/// This node's replica of the metadata.
pub(super) struct MetadataReplica {
    machine: MetadataStateMachine,
    images: watch::Sender<Arc<MetadataImage>>,
    /// Shards with replicas on this node's disks, for recovery: the entries that recorded them may be lost.
    on_disk: Vec<ShardRecord>,
}

impl MetadataReplica {
    /// A replica, and the receiver of its images.
    pub(super) fn new(machine: MetadataStateMachine) -> (Self, watch::Receiver<Arc<MetadataImage>>) {
        let (images, receiver) = watch::channel(image_of(&machine));
        (Self { machine, images, on_disk: Vec::new() }, receiver)
    }
}

/// The state machine of a replica that continues without the entries that it lost. `on_disk`: the shards whose only
/// replicas are on its node.
///
/// # Errors
/// When its checkpoint cannot be read.
pub fn recovery_state_machine(
    config: &Config,
    recovered: &RecoveredReplica,
    on_disk: Vec<ShardRecord>,
) -> Result<Box<dyn StateMachine>, CodecError> {
    let applied = recovered.applied.map_or(RaftIndex(0), |applied| applied.index);
    let machine = MetadataStateMachine::restore(Arc::new(config.clone()), applied, &recovered.state)?;
    let (replica, _images) = MetadataReplica::new(machine);
    Ok(Box::new(MetadataReplica { on_disk, ..replica }))
}

fn image_of(machine: &MetadataStateMachine) -> Arc<MetadataImage> {
    Arc::new(MetadataImage { checksum: machine.checksum(), ..machine.image().clone() })
}

impl StateMachine for MetadataReplica {
    fn apply(&mut self, entry: &Entry, _members: &Membership) -> Applied {
        // An entry that cannot be decoded was written by a newer release: this replica must not continue without it.
        let outcomes = match self.machine.apply(entry.log_id.index, &entry.payload) {
            Ok(outcomes) => outcomes,
            Err(error) => panic!("metadata entry {}: {error}; upgrade this node", entry.log_id),
        };
        Applied { verdicts: Vec::new(), reply: Reply::new(outcomes), split_off: None, absorbed: None }
    }

    fn term_started(&mut self, log_id: LogId) {
        self.machine.advance(log_id.index);
    }

    fn entries_lost(&mut self, log_id: LogId) {
        self.machine.entries_lost(log_id.index, &self.on_disk);
    }

    fn membership_changed(&mut self, log_id: LogId) {
        self.machine.advance(log_id.index);
    }

    fn publish(&mut self) {
        self.images.send_replace(image_of(&self.machine));
    }

    fn cut(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        self.machine.cut()
    }

    fn checksum(&self) -> u64 {
        self.machine.checksum()
    }

    fn extents(&self, _state: &[(Bytes, Bytes)]) -> io::Result<Vec<Extent>> {
        Ok(Vec::new())
    }

    fn install(&mut self, applied: LogId, state: &[(Bytes, Bytes)]) -> io::Result<()> {
        let restored = MetadataStateMachine::restore(self.machine.base(), applied.index, state);
        self.machine = restored.map_err(io::Error::other)?;
        self.publish();
        Ok(())
    }
}
