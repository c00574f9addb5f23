//! Requests about transactions between nodes, as bytes: a coordinator has markers written by the leaders of partitions, and
//! these ask the coordinator before they let a batch open a transaction.
//!
//!  request: | version u8 | 0: write markers | producer | commits u8 | coordinator epoch i32 | transaction.version u8 | partitions |
//!           | version u8 | 1: add | transactional id | producer | partitions | the client's transaction.version i16 |
//!           | version u8 | 2: verify | transactional id | producer | partitions |
//!             producer: | id i64 | epoch i16 |      partitions, list: | topic's name | list: partition i32 |
//!  answer to 0: list, for each partition in order: | outcome u8 |
//!         to 1 and 2: list, for each partition in order: | 1: it belongs to the transaction | or | 0 | error u8 |
//!
//! Decoding never panics. May not know: who leads what, and how a request is carried out.

use bytes::Bytes;

use super::error::TransactionError;
use super::partitions::{NamedPartition, named};
use super::transaction_log::MarkerOutcome;
use super::transitions::Producer;
use crate::codec::{CodecError, Value, decode_version, encode, encode_version, record};
use crate::replicated::transactions::Marker;

const VERSION: u8 = 1;

/// Partitions of one topic, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicIndexes {
    pub(crate) topic: String,
    pub(crate) indexes: Vec<i32>,
}

/// A request from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerRequest {
    /// The receiver leads these partitions.
    WriteMarkers { producer: Producer, marker: Marker, partitions: Vec<TopicIndexes> },
    /// The receiver coordinates the id: the partitions are to belong to the producer's transaction.
    Add { id: String, producer: Producer, partitions: Vec<TopicIndexes>, client_version: i16 },
    /// The receiver coordinates the id: whether they do.
    Verify { id: String, producer: Producer, partitions: Vec<TopicIndexes> },
}

record! {
    enum PeerRequest {
        0 WriteMarkers { producer, marker, partitions },
        1 Add { id, producer, partitions, client_version },
        2 Verify { id, producer, partitions },
    }
    Producer { id, epoch }
    TopicIndexes { topic, indexes }
    enum MarkerOutcome { 0 Done, 1 Retry, 2 CoordinatorFenced, 3 ProducerFenced }
    enum TransactionError {
        0 InvalidProducerIdMapping,
        1 ProducerFenced,
        2 ConcurrentTransactions,
        3 InvalidTransactionState,
        4 NotInTransaction,
        5 InvalidTransactionTimeout,
        6 InvalidRequest,
        7 NotCoordinator,
        8 CoordinatorNotAvailable,
        9 Internal,
    }
}

impl PeerRequest {
    pub(crate) fn encode(&self) -> Bytes {
        encode_version(VERSION, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        decode_version(VERSION, bytes, "request about transactions")
    }
}

/// The answer for each partition in order.
pub(crate) fn encode_answer<T: Value>(outcomes: &Vec<T>) -> Bytes {
    encode(outcomes)
}

/// The counterpart of [`encode_answer`]; `None` if it cannot be read or is not about so many partitions.
pub(crate) fn decode_answer<T: Value>(bytes: &[u8], count: usize) -> Option<Vec<T>> {
    crate::codec::decode(bytes, "answer").ok().filter(|outcomes: &Vec<T>| outcomes.len() == count)
}

/// For a request, in order.
pub(crate) fn listed(partitions: &[NamedPartition]) -> Vec<TopicIndexes> {
    let of_topic = |same: &[NamedPartition]| TopicIndexes {
        topic: same[0].0.to_string(),
        indexes: same.iter().map(|(_, index)| *index).collect(),
    };
    partitions.chunk_by(|one, next| one.0 == next.0).map(of_topic).collect()
}

/// The counterpart of [`listed`].
pub(crate) fn unlisted(topics: &[TopicIndexes]) -> Vec<NamedPartition> {
    named(topics.iter().map(|of| (of.topic.as_str(), of.indexes.as_slice())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ottla_protocol::ids::ProducerId;

    use super::*;

    #[test]
    fn requests_and_answers_come_back_and_cut_bytes_are_refused() {
        let producer = Producer { id: ProducerId(7), epoch: i16::MAX };
        let marker = Marker { commits: true, coordinator_epoch: 9, version: 2 };
        let partitions = vec![
            TopicIndexes { topic: "t".into(), indexes: vec![0, 300] },
            TopicIndexes { topic: "u".into(), indexes: vec![] },
        ];
        let id = || "id".to_owned();
        for request in [
            PeerRequest::WriteMarkers { producer, marker, partitions: partitions.clone() },
            PeerRequest::Add { id: id(), producer, partitions: partitions.clone(), client_version: 2 },
            PeerRequest::Verify { id: id(), producer, partitions },
        ] {
            let bytes = request.encode();
            assert!((0..bytes.len()).all(|cut| PeerRequest::decode(&bytes[..cut]).is_err()));
            assert_eq!(PeerRequest::decode(&bytes), Ok(request));
        }
        let outcomes: Vec<Result<(), TransactionError>> = vec![Ok(()), Err(TransactionError::NotInTransaction)];
        let bytes = encode_answer(&outcomes);
        assert_eq!(decode_answer(&bytes, 2), Some(outcomes));
        assert_eq!(decode_answer::<Result<(), TransactionError>>(&bytes, 1), None);
        assert_eq!(decode_answer::<MarkerOutcome>(&encode_answer(&vec![MarkerOutcome::Retry]), 1).unwrap().len(), 1);
    }
}
