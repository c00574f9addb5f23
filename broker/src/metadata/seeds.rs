//! Whom a node without a place asks for one: the nodes at the seeds. When all of them hold nothing the first founds the
//! cluster with the others.
//!
//! May not know: addresses, and what a node does with its assignment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use ottla_protocol::ids::NodeId;
use ottla_raft::{RaftHost, WeakHost};
use ottla_storage::env::mutants::{self, Bug};
use ottla_storage::env::rt;
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::controller::REFUSED_PAUSE;
use super::bootstrap_service::{self, BootstrapResponse, BootstrapRequest, ReplicaAssignment};
use super::image::ReplicaRecord;
use super::joining::Join;
use super::places::Places;

/// The metadata group's replica on a node that founds a cluster alone.
const FIRST_REPLICA: ReplicaId = ReplicaId(1);
/// How long a desk has to answer.
const DESK_WAIT: Duration = Duration::from_secs(2);
/// Before the members of the metadata group are asked for once more.
const INTRODUCTION_PAUSE: Duration = Duration::from_secs(1);
/// Between two rounds of questions.
const SEEK_PAUSE: Duration = Duration::from_millis(100);

/// Who else may know the cluster: the nodes at the seeds, which are the same for all nodes and found it together.
pub trait Neighbours: Send + Sync + 'static {
    /// The nodes at the seeds, this one if it is one of them, as far as they answer; true if these are all.
    fn at_seeds(&self) -> BoxFuture<'_, (BTreeSet<NodeId>, bool)>;
}

/// These nodes, which are known without looking.
struct These(BTreeSet<NodeId>);

impl Neighbours for These {
    fn at_seeds(&self) -> BoxFuture<'_, (BTreeSet<NodeId>, bool)> {
        Box::pin(std::future::ready((self.0.clone(), true)))
    }
}

/// The nodes that are asked for the cluster.
#[derive(Clone)]
pub struct Seeds {
    /// `None`: the node is alone.
    pub(super) neighbours: Option<Arc<dyn Neighbours>>,
    /// Takes down what is learned of where others are.
    pub(super) places: Arc<Places>,
    /// False for a node that has left a cluster: it joins one, and founds none.
    pub(super) may_found: bool,
}

impl Seeds {
    /// One node alone.
    #[must_use]
    pub fn alone(places: Arc<Places>) -> Self {
        Self { neighbours: None, places, may_found: true }
    }

    /// These nodes and their addresses, as `node` sees them; a node that is none of them joins what they found.
    #[must_use]
    pub fn of(node: NodeId, nodes: &[(NodeId, String)], places: Arc<Places>) -> Self {
        nodes.iter().for_each(|(node, address)| places.found(*node, address.clone()));
        let these: BTreeSet<_> = nodes.iter().map(|(node, _)| *node).collect();
        let is_alone = these == BTreeSet::from([node]);
        match is_alone {
            true => Self::alone(places),
            false => Self::found_by(Arc::new(These(these)), places),
        }
    }

    /// Nodes of which only the addresses are known.
    #[must_use]
    pub fn found_by(neighbours: Arc<dyn Neighbours>, places: Arc<Places>) -> Self {
        Self { neighbours: Some(neighbours), places, may_found: true }
    }

    /// The same for a node that has left a cluster: what it founded would be another one beside that.
    #[must_use]
    pub fn to_join_only(self) -> Self {
        Self { may_found: false, ..self }
    }
}

pub(super) fn founder(rank: u64, node: NodeId, directory: Uuid) -> ReplicaRecord {
    ReplicaRecord { id: ReplicaId(FIRST_REPLICA.0 + rank), node, directory }
}

/// Asks at the desk of a node.
async fn ask(host: &RaftHost, own: NodeId, to: NodeId, question: BootstrapRequest) -> Option<(NodeId, BootstrapResponse)> {
    let answer = host.ask(bootstrap_service::bootstrap_address(own), bootstrap_service::bootstrap_address(to), question.encode(), DESK_WAIT).await.ok()?;
    Some((to, BootstrapResponse::decode(&answer).ok()?))
}

/// Has this node told where the metadata group's replicas are, again and again: whoever leads may be none that it knows, and
/// have a snapshot for it. Never returns.
pub(super) async fn introduce(host: WeakHost, own: NodeId, neighbours: Arc<dyn Neighbours>, places: Arc<Places>) {
    loop {
        let (nodes, _) = neighbours.at_seeds().await;
        let Some(known) = host.upgrade() else { return };
        let others = nodes.into_iter().filter(|node| *node != own);
        let answers = join_all(others.map(|node| ask(&known, own, node, BootstrapRequest::Members))).await;
        for (_, answer) in answers.into_iter().flatten() {
            if let BootstrapResponse::Members(members) = answer
                && !mutants::is_on(Bug::JoinerNotIntroduced)
            {
                places.introduce(&members);
            }
        }
        drop(known);
        rt::sleep(INTRODUCTION_PAUSE).await;
    }
}

/// True if somebody knows, as of now, that this replica of the metadata is none that its node is to have.
pub(super) async fn is_unknown(host: &RaftHost, own: &ReplicaRecord, neighbours: &dyn Neighbours) -> bool {
    let (nodes, _) = neighbours.at_seeds().await;
    let locate = || BootstrapRequest::Locate { node: own.node, directory: own.directory, lost: Vec::new() };
    let others = nodes.into_iter().filter(|node| *node != own.node);
    let answers = join_all(others.map(|node| ask(host, own.node, node, locate()))).await;
    answers.into_iter().flatten().any(|(_, answer)| match answer {
        BootstrapResponse::Located { assignment, .. } => assignment.is_none_or(|assignment| assignment.replica.id != own.id),
        BootstrapResponse::Uninitialized { .. }
        | BootstrapResponse::Registered
        | BootstrapResponse::Retry
        | BootstrapResponse::Rejected(_)
        | BootstrapResponse::Members(_) => false,
    })
}

/// Asks everybody until this node has its assignment, or founds the cluster if it is the first and `may_found`.
pub(super) async fn seek(
    host: &RaftHost,
    own: NodeId,
    neighbours: &dyn Neighbours,
    directory: Uuid,
    join: &Join,
    may_found: bool,
) -> (Vec<ReplicaRecord>, ReplicaAssignment) {
    let ask = |to: NodeId, question: BootstrapRequest| ask(host, own, to, question);
    loop {
        let (nodes, are_all) = neighbours.at_seeds().await;
        let locate = || BootstrapRequest::Locate { node: own, directory, lost: join.lost.clone() };
        let others = nodes.iter().copied().filter(|node| *node != own);
        let answers: Vec<_> = join_all(others.map(|node| ask(node, locate()))).await;
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        let mut directories = BTreeMap::from([(own, directory)]);
        let mut stranger_to = None;
        for (node, answer) in answers {
            match answer {
                BootstrapResponse::Located { founders, assignment: Some(assignment) } => return (founders, assignment),
                BootstrapResponse::Located { assignment: None, .. } => stranger_to = Some(node),
                BootstrapResponse::Uninitialized { directory } => drop(directories.insert(node, directory)),
                BootstrapResponse::Registered | BootstrapResponse::Retry | BootstrapResponse::Rejected(_) | BootstrapResponse::Members(_) => {}
            }
        }
        if let Some(node) = stranger_to {
            let answer = ask(node, BootstrapRequest::Register(Box::new(join.clone()))).await;
            if let Some((_, BootstrapResponse::Rejected(why))) = answer {
                tracing::error!("this node is not registered: {why}");
                rt::sleep(REFUSED_PAUSE).await;
            }
        } else if may_found
            && are_all
            && nodes.first() == Some(&own)
            && join.lost.is_empty()
            && nodes.iter().all(|node| directories.contains_key(node))
        {
            let ranked = (0..).zip(&nodes);
            let founders: Vec<_> =
                ranked.filter_map(|(rank, node)| Some(founder(rank, *node, *directories.get(node)?))).collect();
            let own = founders[0];
            return (founders, ReplicaAssignment { replica: own, is_founder: true });
        }
        rt::sleep(SEEK_PAUSE).await;
    }
}
