//! Nodes as an administrator changes them.
//!
//! May not know: what lies on them.

use kafka_protocol::messages::{BrokerId, UnregisterBrokerRequest};

use super::cluster::Cluster;
use super::error::ClientError;

impl Cluster {
    /// Has a broker forgotten; an Ottla cluster empties it first.
    ///
    /// # Errors
    /// When it is not known, when the others could not take what it holds, or nobody answers.
    pub async fn unregister(&mut self, node: i32) -> Result<(), ClientError> {
        let make = |_| UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
        let answer = self.brokers.send_any(0..=0, make).await?;
        ClientError::check(answer.error_code, answer.error_message.as_deref(), || format!("node {node}"))
    }
}
