//! The network of a node that is alone: every group has one member, so nothing is ever sent.

use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_raft::{Message, Network, Undelivered};
use ottla_storage::ids::ReplicaId;

/// Delivers nothing.
pub(super) struct NoPeers;

impl Network for NoPeers {
    fn call(
        &self,
        _from: ReplicaId,
        to: ReplicaId,
        _request: Message,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, Undelivered>> {
        Box::pin(std::future::ready(Err(Undelivered(format!("replica {to} is on no node that is known here")))))
    }
}
