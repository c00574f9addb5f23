//! Requests between nodes about what lies above shards: transactions. Bytes here, which the coordinator reads.
//!
//! May not know: transactions, and what is answered.

use std::time::Duration;

use bytes::Bytes;
use ottla_protocol::ids::NodeId;
use ottla_raft::Priority;

use super::manager::Shards;
use super::rpc::{NodeRequest, PeerService};
use crate::metadata::node_rpc_address;

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
        let (own, request) = (node_rpc_address(self.0.node), NodeRequest::Transactions(request).encode());
        self.0.host.request(own, node_rpc_address(node), request, Priority::Normal, wait).await.ok()
    }
}
