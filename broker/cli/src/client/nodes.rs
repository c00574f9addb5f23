//! Requests of an administrator about nodes.
//!
//! May not know: the replicas on a node.

use kafka_protocol::messages::{BrokerId, UnregisterBrokerRequest};

use super::cluster::Cluster;
use super::error::ClientError;

impl Cluster {
    /// Unregisters a broker; an Ottla cluster moves its replicas to other nodes first.
    ///
    /// # Errors
    /// When it is not registered, when the other nodes cannot take its replicas, or no broker responds.
    pub async fn unregister(&mut self, node: i32) -> Result<(), ClientError> {
        let make = |_| UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
        let answer = self.brokers.send_any(0..=0, make).await?;
        ClientError::check(answer.error_code, answer.error_message.as_deref(), || format!("node {node}"))
    }
}
