//! Consensus: many Raft groups over the logs of a node, implemented by openraft behind our own small interface.
//!
//! It orders entries, applies them through [`StateMachine`] and responds with the reply of apply. The path of a
//! proposal: [`GroupHandle::propose`] -> openraft -> log store (write and sync) -> commit -> `openraft_adapter`:
//! `StateMachine::apply`, verdicts to the batch index, `StateMachine::publish`, reply. May not know: what a command
//! means.

mod append_pipeline;
mod applier;
mod check_quorum;
mod checksum_points;
mod damage;
mod directory;
mod error;
mod failover;
mod failure_detector;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod handle;
mod host;
mod in_sync;
mod leader_liveness;
mod leadership_transfer;
mod log_store;
mod membership;
mod membership_change;
mod merge;
mod net;
mod openraft_adapter;
mod openraft_types;
mod options;
mod proposal;
mod quorum;
mod repair;
mod resize;
mod role;
mod runtime;
mod seeded_child;
mod snapshot_download;
mod snapshot_install;
mod split;
mod state_check;
mod state_machine;
mod state_parts;
#[cfg(test)]
mod tests;
mod transport;
mod unsafe_recovery;

pub use directory::{Directory, EntryLog, SnapshotImport};
pub use error::{Failure, ProposeError, RaftError, ReadIndexError};
pub use handle::{GroupHandle, Pending, Proposed};
pub use host::{RaftHost, Service, WeakHost};
pub use membership::{Creation, Membership, Seed};
pub use membership_change::MembershipStep;
pub use net::congestion_window;
pub use net::sim::{Faults, LostMessages, Observer, Sent, SimNetwork, peer_address};
pub use net::{
    DeathConfirmation, HandshakeRejection, Identity, Interceptor, Listening, LocalDelivery, Message, MessageHandler,
    Network, NoPeers, NoResponse, OnPeerClosed, PeerDirectory, PeerNetwork, Priority, ReplicaLocation, Resume,
    StatePart,
};
pub use options::RaftOptions;
pub use proposal::Proposal;
pub use quorum::{MemberProgress, Quorum};
pub use resize::{Merged, Resize};
pub use role::Role;
pub use seeded_child::SeededChild;
pub use state_machine::{Absorbed, AbsorbedReplica, Applied, Extent, Reply, SplitOff, StateMachine};
pub use unsafe_recovery::{AcceptedLoss, ReplicaSummary, accept_loss};
