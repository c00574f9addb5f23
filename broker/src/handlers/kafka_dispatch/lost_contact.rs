//! What a node does for clients that look for a leader while it is cut off from the other nodes but not from them: it
//! answers once, and closes the connection when the client asks again.
//!
//! Clients repeat such requests on a connection that works (librdkafka prefers the one that it used last), so that they
//! would hear from the isolated node that there is no leader for as long as the cut lasts, while the others have one. A
//! client whose connection is closed asks another node. May not know: sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::response::Response;
use ottla_protocol::versions::ApiKey;

use crate::handlers::Replied;
use crate::metadata::MetadataHandle;
use crate::server::dispatch::{Answer, CloseReason};

/// A cluster that is in contact has elected a leader of its metadata by then (Kafka's
/// `controller.quorum.fetch.timeout.ms`).
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Checks the answer to a request that looks for leaders.
pub(super) struct ContactCheck {
    metadata: MetadataHandle,
    /// The connection's client was answered that there is no leader.
    told: Arc<AtomicBool>,
}

impl ContactCheck {
    /// The check for a request of this API; `None` for those that do not look for leaders.
    pub(super) fn of(api: ApiKey, metadata: &MetadataHandle, told: &Arc<AtomicBool>) -> Option<Self> {
        let looks = matches!(api, ApiKey::Metadata | ApiKey::DescribeTopicPartitions | ApiKey::FindCoordinator);
        looks.then(|| Self { metadata: metadata.clone(), told: told.clone() })
    }

    /// The answer, or that the connection is closed.
    pub(super) fn check(&self, answer: Answer<Replied>) -> Answer<Replied> {
        let lost_for = self.metadata.out_of_contact_for().filter(|time| *time >= LOST_AFTER);
        match (&answer, lost_for) {
            (Answer::Reply { reply, .. }, Some(time)) if lacks_leader(&reply.body) => {
                if self.told.swap(true, Ordering::Relaxed) {
                    let seconds = time.as_secs();
                    return Answer::Close(CloseReason(format!(
                        "this node has known no leader of the metadata for {seconds} s; the client is to ask another node"
                    )));
                }
            }
            (_, Some(_)) => {}
            (_, None) => self.told.store(false, Ordering::Relaxed),
        }
        answer
    }
}

/// True if the response lacks a leader or a coordinator.
fn lacks_leader(response: &Response) -> bool {
    let is = |code: i16, error: ErrorCode| code == error.code();
    let no_leader = |code| is(code, ErrorCode::LeaderNotAvailable);
    match response {
        Response::Metadata(body) => {
            body.topics.iter().any(|topic| no_leader(topic.error_code))
                || body.topics.iter().flat_map(|topic| &topic.partitions).any(|part| no_leader(part.error_code))
        }
        Response::DescribeTopicPartitions(body) => {
            body.topics.iter().any(|topic| no_leader(topic.error_code))
                || body.topics.iter().flat_map(|topic| &topic.partitions).any(|part| no_leader(part.error_code))
        }
        Response::FindCoordinator(body) => {
            let codes = body.coordinators.iter().map(|found| found.error_code);
            codes.chain([body.error_code]).any(|code| is(code, ErrorCode::CoordinatorNotAvailable))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::find_coordinator_response::Coordinator;
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
    use kafka_protocol::messages::{FindCoordinatorResponse, HeartbeatResponse, MetadataResponse};

    #[test]
    fn a_response_lacks_a_leader_by_its_error_codes() {
        let metadata = |error: ErrorCode| {
            let part = MetadataResponsePartition::default().with_error_code(error.code());
            let topic =
                MetadataResponseTopic::default().with_partitions(vec![MetadataResponsePartition::default(), part]);
            Response::from(MetadataResponse::default().with_topics(vec![topic]))
        };
        assert!(lacks_leader(&metadata(ErrorCode::LeaderNotAvailable)));
        assert!(!lacks_leader(&metadata(ErrorCode::ListenerNotFound)));
        let found = |error: ErrorCode| {
            let coordinator = Coordinator::default().with_error_code(error.code());
            Response::from(FindCoordinatorResponse::default().with_coordinators(vec![coordinator]))
        };
        assert!(lacks_leader(&found(ErrorCode::CoordinatorNotAvailable)));
        assert!(!lacks_leader(&found(ErrorCode::InvalidRequest)));
        let other = HeartbeatResponse::default().with_error_code(ErrorCode::CoordinatorNotAvailable.code());
        assert!(!lacks_leader(&Response::from(other)));
    }
}
