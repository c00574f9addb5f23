//! WriteTxnMarkers (key 27): version 2 has the transaction's version (KIP-1228). The response is that of version 1.

use kafka_protocol::messages::{ProducerId, TopicName, WriteTxnMarkersResponse};

use super::{message, request, structure};

message! {
    WriteTxnMarkers;
    /// Markers to write.
    WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker> = 1..;
    }
}

request! { WriteTxnMarkersRequest of WriteTxnMarkers, answered by WriteTxnMarkersResponse }

structure! {
    /// The end of a producer's transaction.
    WritableTxnMarker {
        producer_id: ProducerId = 1..;
        producer_epoch: i16 = 1..;
        transaction_result: bool = 1..;
        topics: Vec<WritableTxnMarkerTopic> = 1..;
        coordinator_epoch: i32 = 1..;
        transaction_version: i8 = 2..;
    }
}

structure! {
    /// Partitions of a topic in which the transaction ends.
    WritableTxnMarkerTopic {
        name: TopicName = 1..;
        partition_indexes: Vec<i32> = 1..;
    }
}
