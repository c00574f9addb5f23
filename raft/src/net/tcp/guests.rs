//! Which nodes are connected: one node id belongs to one data directory at a time.
//!
//! May not know: what they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use ottla_protocol::ids::NodeId;
use parking_lot::Mutex;
use uuid::Uuid;

use super::hello::{Hello, Refusal};

/// Nodes that are connected: by id, the directory and how many connections.
#[derive(Default)]
pub(super) struct Guests(Mutex<BTreeMap<NodeId, (Uuid, usize)>>);

/// A node that was let in.
pub(super) struct Guest {
    guests: Arc<Guests>,
    node: NodeId,
}

impl Guests {
    /// Lets a node in, unless another one with its id is here.
    pub(super) fn enter(guests: &Arc<Self>, hello: &Hello) -> Result<Guest, Refusal> {
        let (node, directory) = (hello.identity.node, hello.identity.directory);
        let mut known = guests.0.lock();
        let (first, connections) = known.entry(node).or_insert((directory, 0));
        if *first != directory {
            return Err(Refusal::InUse { node, directory: *first });
        }
        *connections += 1;
        Ok(Guest { guests: guests.clone(), node })
    }
}

impl Guest {
    pub(super) fn node(&self) -> NodeId {
        self.node
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut known = self.guests.0.lock();
        if let Some((_, connections)) = known.get_mut(&self.node) {
            *connections -= 1;
            if *connections == 0 {
                known.remove(&self.node);
            }
        }
    }
}
