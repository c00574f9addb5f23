//! Why a node cannot start, in words for the operator who starts it.

use std::time::Duration;

use ottla_storage::data_dir::DataDirError;

use crate::admin::AdminError;
use crate::config::Endpoint;
use crate::metadata;
use crate::server::listener::BindError;

/// How long a node that has a replica of the metadata waits for the cluster's metadata.
pub(super) const CLUSTER_WAIT: Duration = Duration::from_secs(120);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener cannot be opened after it was bound.
    #[error("cannot accept clients: {0}")]
    Open(std::io::Error),
    /// A data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The metadata group.
    #[error(transparent)]
    Metadata(#[from] metadata::StartError),
    /// Hosts outside private networks could reach the port for other nodes, and nodes do not authenticate each other
    /// yet.
    #[error(
        "ottla.cluster.listener: other nodes would reach this one at {0}, which is neither loopback nor a private network, \
         and nodes do not authenticate each other yet; bind it to a private address, or set ottla.insecure=true if nobody \
         else can reach it"
    )]
    Insecure(Endpoint),
    /// The node found no cluster in time.
    #[error("the metadata of the cluster did not come in {} s; is a majority of its first nodes up?", CLUSTER_WAIT.as_secs())]
    NoCluster,
    /// The node's replica of the metadata stopped before the node got the metadata of the cluster.
    #[error("{0}")]
    Stopped(String),
    /// `log.dirs` is empty.
    #[error("log.dirs names no directory")]
    NoDirectory,
}
