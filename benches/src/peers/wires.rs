//! A connection to each node of a peer, for whoever looks for coordinators and leaders itself.
//!
//! May not know: what is asked over them.

use std::thread;
use std::time::{Duration, Instant};

use super::Peer;
use super::node::Node;
use crate::wire::{Topic, Wire};

/// How long a node may refuse while nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(1);

/// A connection to each node that answers.
pub(crate) struct Wires {
    /// By the node's index.
    pub(crate) to: Vec<Option<Wire>>,
    ids: Vec<i32>,
}

impl Wires {
    pub(crate) fn of(peer: &Peer) -> Self {
        Self {
            to: peer.nodes.iter().map(Node::try_wire).collect(),
            ids: peer.nodes.iter().map(|node| node.id).collect(),
        }
    }

    /// The index of the node that coordinates a transactional id.
    pub(crate) fn coordinator(&mut self, id: &str) -> usize {
        retried(|| self.try_coordinator(id))
    }

    pub(crate) fn try_coordinator(&mut self, id: &str) -> Option<usize> {
        let named = self.to.iter_mut().flatten().find_map(|wire| wire.try_coordinator(id))?;
        self.ids.iter().position(|node| *node == named.0)
    }
}

/// The index of the node that leads each partition.
pub(crate) fn leaders(peer: &Peer, topic: &Topic) -> Vec<usize> {
    let index = |id| peer.nodes.iter().position(|node| node.id == id).expect("one of the nodes");
    peer.layout(topic).partitions.iter().map(|p| index(p.leader)).collect()
}

/// Attempts something until it succeeds.
///
/// # Panics
///
/// If it does not for two minutes.
pub(crate) fn retried<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(began.elapsed() < PATIENCE, "it is refused for {PATIENCE:?}");
        thread::sleep(RETRY);
    }
}
