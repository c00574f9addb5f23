//! Requests between nodes about what lies above shards: transactions. Bytes here, which the coordinator reads.
//!
//! May not know: transactions, and what is answered.

use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_raft::Priority;

use super::manager::Shards;
use super::rpc::{NodeRequest, PeerService};

/// What a request between nodes asks about transactions; `None` if it is another one.
pub(crate) fn transactions_request(request: &[u8]) -> Option<Bytes> {
    match NodeRequest::decode(request).ok()? {
        NodeRequest::Transactions(request) => Some(request),
        _ => None,
    }
}

impl Shards {
    /// Serves other nodes' requests about transactions from now on; the first service stays.
    pub(crate) fn serve_transactions(&self, service: PeerService) {
        let _ = self.0.transactions_service.set(service);
    }

    pub(super) async fn answer_transactions(&self, request: Bytes) -> Option<Bytes> {
        (self.0.transactions_service.get()?.clone())(request).await
    }

    /// The response of another node to a request about transactions; `None` if none came in time.
    pub(crate) async fn ask_transactions(&self, node: NodeId, request: Bytes, wait: Duration) -> Option<Bytes> {
        self.ask_node(node, &NodeRequest::Transactions(request), Priority::Normal, wait).await
    }
}
