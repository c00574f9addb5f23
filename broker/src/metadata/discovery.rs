//! Cluster discovery: how a node gets its replica of the metadata group from the nodes at the seed addresses, or founds
//! the cluster.
//!
//! A cluster is founded when all seed nodes hold nothing: by the first of them, together with the others. May not know:
//! addresses, and what a node does with its assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;
use ottla_protocol::ids::NodeId;
use ottla_raft::{Priority, RaftHost, WeakHost};
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::bootstrap_service::{BootstrapRequest, BootstrapResponse, ReplicaAssignment, bootstrap_address};
use super::handle::REJECTED_RETRY;
use super::image::ReplicaRecord;
use super::peer_table::PeerTable;
use super::registration::NodeRegistration;

/// The metadata group's replica on the first founder: ids are counted from here.
const FIRST_REPLICA: ReplicaId = ReplicaId(1);
/// Timeout of one bootstrap request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two requests for the members of the metadata group.
pub(super) const MEMBERS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two rounds of discovery.
const DISCOVERY_INTERVAL: Duration = Duration::from_millis(100);

/// The nodes at the seed addresses. The addresses are the same for all nodes, and the nodes at them found the cluster
/// together.
pub trait SeedNodes: Send + Sync + 'static {
    /// The seed nodes that are reached, this node included if it is one; true if these are all.
    fn resolve(&self) -> BoxFuture<'_, (BTreeSet<NodeId>, bool)>;
}

/// Seed nodes that are given by id.
#[cfg(test)]
pub(super) struct FixedSeedNodes(pub(super) BTreeSet<NodeId>);

#[cfg(test)]
impl SeedNodes for FixedSeedNodes {
    fn resolve(&self) -> BoxFuture<'_, (BTreeSet<NodeId>, bool)> {
        Box::pin(std::future::ready((self.0.clone(), true)))
    }
}

/// The nodes to which discovery sends its requests.
#[derive(Clone)]
pub struct Seeds {
    /// `None`: a cluster of one node.
    pub(super) seed_nodes: Option<Arc<dyn SeedNodes>>,
    /// Gets the addresses that discovery learns.
    pub(super) peer_table: Arc<PeerTable>,
    /// False for a node that has left a cluster: it joins a cluster, and founds none.
    pub(super) may_found: bool,
}

impl Seeds {
    /// A cluster of one node.
    #[must_use]
    pub fn single_node(peer_table: Arc<PeerTable>) -> Self {
        Self { seed_nodes: None, peer_table, may_found: true }
    }

    /// These nodes and their addresses, as seen by `node`; a node that is none of them joins the cluster that they
    /// found.
    #[cfg(test)]
    pub(super) fn of(node: NodeId, nodes: &[(NodeId, String)], peer_table: Arc<PeerTable>) -> Self {
        nodes.iter().for_each(|(node, address)| peer_table.set_address(*node, address.clone()));
        let these: BTreeSet<_> = nodes.iter().map(|(node, _)| *node).collect();
        let is_single_node = these == BTreeSet::from([node]);
        match is_single_node {
            true => Self::single_node(peer_table),
            false => Self::resolved_by(Arc::new(FixedSeedNodes(these)), peer_table),
        }
    }

    /// Seed nodes of which only the addresses are known.
    #[must_use]
    pub fn resolved_by(seed_nodes: Arc<dyn SeedNodes>, peer_table: Arc<PeerTable>) -> Self {
        Self { seed_nodes: Some(seed_nodes), peer_table, may_found: true }
    }

    /// The same for a node that has left a cluster: it would found a second cluster beside the one that it left.
    #[must_use]
    pub fn join_only(self) -> Self {
        Self { may_found: false, ..self }
    }
}

pub(super) fn founder(rank: u64, node: NodeId, directory: Uuid) -> ReplicaRecord {
    ReplicaRecord { id: ReplicaId(FIRST_REPLICA.0 + rank), node, directory }
}

/// Sends a request to the bootstrap service of a node.
async fn send(
    host: &RaftHost,
    own: NodeId,
    to: NodeId,
    request: BootstrapRequest,
) -> Option<(NodeId, BootstrapResponse)> {
    let (from, service) = (bootstrap_address(own), bootstrap_address(to));
    let response = host.request(from, service, request.encode(), Priority::Normal, REQUEST_TIMEOUT).await.ok()?;
    Some((to, BootstrapResponse::decode(&response).ok()?))
}

/// Takes the addresses of the metadata group's members from the responses of these nodes.
pub(super) async fn learn_members(host: &RaftHost, own: NodeId, nodes: BTreeSet<NodeId>, peer_table: &PeerTable) {
    let others = nodes.into_iter().filter(|node| *node != own);
    let responses = join_all(others.map(|node| send(host, own, node, BootstrapRequest::Members))).await;
    for (_, response) in responses.into_iter().flatten() {
        if let BootstrapResponse::Members(members) = response
            && !mutants::is_on(Bug::JoinerNotIntroduced)
        {
            peer_table.add_members(&members);
        }
    }
}

/// Learns the members from the seed nodes periodically, for a node that is being registered. Never returns.
pub(super) async fn keep_learning_members(
    host: WeakHost,
    own: NodeId,
    seed_nodes: Arc<dyn SeedNodes>,
    peer_table: Arc<PeerTable>,
) {
    loop {
        let (nodes, _) = seed_nodes.resolve().await;
        let Some(known) = host.upgrade() else { return };
        learn_members(&known, own, nodes, &peer_table).await;
        drop(known);
        rt::sleep(MEMBERS_INTERVAL).await;
    }
}

/// True if another node responds, after a read index, that this replica of the metadata is none of the group's any
/// more. `known`: the nodes of the last image, which are asked, too: a node that began its cluster alone has no seeds.
pub(super) async fn is_removed(
    host: &RaftHost,
    own: &ReplicaRecord,
    seed_nodes: Option<&dyn SeedNodes>,
    known: BTreeSet<NodeId>,
) -> bool {
    let mut nodes = known;
    if let Some(seed_nodes) = seed_nodes {
        nodes.extend(seed_nodes.resolve().await.0);
    }
    let locate = || BootstrapRequest::Locate { node: own.node, directory: own.directory, lost: Vec::new() };
    let others = nodes.into_iter().filter(|node| *node != own.node);
    let responses = join_all(others.map(|node| send(host, own.node, node, locate()))).await;
    responses.into_iter().flatten().any(|(_, response)| match response {
        BootstrapResponse::Located { assignment, .. } => {
            assignment.is_none_or(|assignment| assignment.replica.id != own.id)
        }
        BootstrapResponse::Uninitialized { .. }
        | BootstrapResponse::Registered
        | BootstrapResponse::Retry
        | BootstrapResponse::Rejected(_)
        | BootstrapResponse::Members(_) => false,
    })
}

/// Sends requests to all seed nodes until this node has an assignment, or founds the cluster if it is the first of them
/// and `may_found`. A node that has left a cluster takes no founder's replica either: it has removed its own.
pub(super) async fn discover(
    host: &RaftHost,
    own: NodeId,
    seed_nodes: &dyn SeedNodes,
    directory: Uuid,
    registration: &NodeRegistration,
    may_found: bool,
) -> (Vec<ReplicaRecord>, ReplicaAssignment) {
    let send = |to: NodeId, request: BootstrapRequest| send(host, own, to, request);
    let mut warned = false;
    loop {
        let (nodes, are_all) = seed_nodes.resolve().await;
        let locate = || BootstrapRequest::Locate { node: own, directory, lost: registration.lost.clone() };
        let others = nodes.iter().copied().filter(|node| *node != own);
        let responses: Vec<_> = join_all(others.map(|node| send(node, locate()))).await;
        let responses: Vec<_> = responses.into_iter().flatten().collect();
        let mut directories = BTreeMap::from([(own, directory)]);
        let mut unregistered_at = None;
        for (node, response) in responses {
            match response {
                BootstrapResponse::Located { founders, assignment: Some(assignment) }
                    if may_found || !assignment.is_founder =>
                {
                    return (founders, assignment);
                }
                BootstrapResponse::Located { assignment: None, .. } => unregistered_at = Some(node),
                // A node that has applied nothing yet knows the founders alone. The founder's replica that this node had is
                // removed: under the same id an empty one would vote again (seed 125100).
                BootstrapResponse::Located { assignment: Some(_), .. } => {}
                BootstrapResponse::Uninitialized { directory } => drop(directories.insert(node, directory)),
                BootstrapResponse::Registered
                | BootstrapResponse::Retry
                | BootstrapResponse::Rejected(_)
                | BootstrapResponse::Members(_) => {}
            }
        }
        if let Some(node) = unregistered_at {
            let response = send(node, BootstrapRequest::Register(Box::new(registration.clone()))).await;
            if let Some((_, BootstrapResponse::Rejected(why))) = response {
                tracing::error!("this node is not registered: {why}");
                rt::sleep(REJECTED_RETRY).await;
            }
        } else if !are_all || nodes.iter().any(|node| !directories.contains_key(node)) {
            // One that does not respond may know a cluster.
        } else if !may_found {
            if !std::mem::replace(&mut warned, true) {
                tracing::warn!(
                    "this node has left its cluster, and none of its seeds belongs to one: name nodes of the cluster in ottla.cluster.seeds"
                );
            }
        } else if nodes.first() == Some(&own) && registration.lost.is_empty() {
            let ranked = (0..).zip(&nodes);
            let founders: Vec<_> =
                ranked.filter_map(|(rank, node)| Some(founder(rank, *node, *directories.get(node)?))).collect();
            let own = founders[0];
            return (founders, ReplicaAssignment { replica: own, is_founder: true });
        }
        rt::sleep(DISCOVERY_INTERVAL).await;
    }
}
