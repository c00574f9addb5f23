//! Which transitions of a node's liveness are recorded: a pure function of the image, as `decide` is.
//!
//! May not know: sessions (`sessions`), and how heartbeats travel (`heartbeats`).

use ottla_env::mutants::{self, Bug};

use super::command::Command;
use super::image::MetadataImage;
use super::liveness::{FenceReason, LEVEL, LivenessChange};

/// True if all nodes of the cluster understand the record of a transition.
pub(super) fn is_in_force(image: &MetadataImage) -> bool {
    image.level >= LEVEL || mutants::is_on(Bug::FencedBelowLevel)
}

/// The command that records the transition, if it is one:
/// - A node that has announced its stop is unfenced only after it is registered again: a heartbeat that was in flight
///   does not count.
/// - The last node that is not fenced is not fenced either: a response that lists no node helps no client.
pub(super) fn decide(image: &MetadataImage, change: &LivenessChange) -> Option<Command> {
    use FenceReason::{SessionExpired, Starting, Stopped};
    let record = image.nodes.get(&change.node).filter(|record| record.epoch == change.epoch)?;
    let is_last = || image.nodes.values().all(|node| node.id == change.node || node.is_fenced());
    let is_transition = match (record.liveness.fenced, change.to.fenced) {
        (None, None) | (Some(Stopped), _) | (_, Some(Starting)) | (Some(SessionExpired), Some(SessionExpired)) => false,
        (None, Some(SessionExpired | Stopped)) => !is_last(),
        (Some(SessionExpired | Starting), None | Some(Stopped)) | (Some(Starting), Some(SessionExpired)) => true,
    };
    (is_in_force(image) && is_transition).then_some(Command::SetNodeLiveness { node: change.node, liveness: change.to })
}
