//! The transport between real nodes: a connection per node and class, over which all groups talk.
//!
//! ```text
//!  call -> home of the replica -> link (node, class) -> frames -> inbound of that node -> RaftHost::deliver -> answer
//! ```
//! A node that is slow holds up its own links only. May not know: what the messages mean, beyond what may wait for what.

mod frame;
mod guests;
mod hello;
mod inbound;
mod link;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_protocol::ids::NodeId;
use ottla_storage::env::rt;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use tokio::net::TcpListener;

pub use hello::{Identity, Refusal};
pub use inbound::Listening;
pub use shared::{Confirmation, OnClosed};

use crate::host::RaftHost;
use crate::net::{Message, Network, PeerDirectory, ReplicaLocation, Undelivered};
use hello::Class;
use link::{Link, greet};
use shared::Shared;

/// The network of a node of several; cheap to clone.
#[derive(Clone)]
pub struct TcpNetwork {
    shared: Arc<Shared>,
    links: Arc<Mutex<BTreeMap<(NodeId, Class), Arc<Link>>>>,
}

impl TcpNetwork {
    /// The network as this node uses it; nobody reaches it before [`Self::listen`].
    #[must_use]
    pub fn new(identity: Identity, peers: Arc<dyn PeerDirectory>) -> Self {
        let shared =
            Shared { identity: Mutex::new(identity), peers, guests: Arc::default(), on_closed: Mutex::default() };
        Self { shared: Arc::new(shared), links: Arc::default() }
    }

    /// From now on the node knows its cluster, and talks to nobody of another one.
    pub fn set_cluster(&self, cluster: &str) {
        self.shared.identity.lock().cluster = Some(cluster.to_owned());
    }

    /// From now on `told` learns when another node closes a connection. It should not keep the network alive.
    pub fn on_closed(&self, told: OnClosed) {
        *self.shared.on_closed.lock() = Some(told);
    }

    /// Takes connections of other nodes, as long as what is returned is kept; their messages go to `host`.
    #[must_use]
    pub fn listen(&self, listener: TcpListener, host: RaftHost) -> Listening {
        inbound::listen(listener, host, self.shared.clone())
    }

    /// Who is to be found at an address.
    ///
    /// # Errors
    /// When nobody is there, or whoever is does not want to talk to this node.
    pub async fn who_is_at(&self, address: &str) -> io::Result<Identity> {
        let (_stream, found) = greet(address, &self.shared.identity(), Class::Urgent, None).await?;
        Ok(found)
    }

    fn call_in(
        &self,
        class: impl FnOnce(&ReplicaLocation, &Message) -> Class,
        ends: (ReplicaId, ReplicaId),
        request: Message,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>> {
        let Some(location) = self.shared.peers.locate(ends.1) else {
            return Undelivered::nowhere(ends.1);
        };
        let link = self.link(location.node, class(&location, &request));
        Box::pin(async move {
            let late = |_| Err(Undelivered("no answer in time".to_owned()));
            rt::timeout(timeout, link.call(ends, &request)).await.unwrap_or_else(late)
        })
    }

    fn link(&self, node: NodeId, class: Class) -> Arc<Link> {
        let mut links = self.links.lock();
        let link = links.entry((node, class)).or_insert_with(|| Arc::new(Link::new(&self.shared, node, class)));
        link.clone()
    }
}

/// What may wait for what.
fn class_of(request: &Message, is_urgent: bool) -> Class {
    match request {
        Message::FetchState | Message::FetchBatches { .. } => Class::Bulk,
        Message::AppendEntries { entries, .. } if !entries.is_empty() && !is_urgent => Class::Entries,
        _ => Class::Urgent,
    }
}

impl Network for TcpNetwork {
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>> {
        self.call_in(|location, request| class_of(request, location.is_urgent), (from, to), request, timeout)
    }

    fn call_in_bulk(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>> {
        self.call_in(|_, _| Class::Bulk, (from, to), request, timeout)
    }
}
