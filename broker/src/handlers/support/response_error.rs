//! The error of a response, for the metrics: the top-level one, else the first of its parts.

use ottla_protocol::error::ErrorCode;
use ottla_protocol::response::Response;

/// The first error of a response.
pub(in crate::handlers) fn error_of(response: &Response) -> ErrorCode {
    match response {
        Response::Produce(body) => {
            let mut parts = body.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error);
            parts.find(|error| error.is_error()).unwrap_or(ErrorCode::None)
        }
        Response::Fetch(body) => {
            let parts = body.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error);
            std::iter::once(body.error).chain(parts).find(|error| error.is_error()).unwrap_or(ErrorCode::None)
        }
        other => ErrorCode::from_code(code_of(other)).unwrap_or(ErrorCode::UnknownServerError),
    }
}

fn code_of(response: &Response) -> i16 {
    match response {
        Response::Produce(_) | Response::Fetch(_) => 0,
        Response::ListOffsets(body) => first(body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code)),
        Response::Metadata(body) => whole_or(body.error_code, body.topics.iter().map(|topic| topic.error_code)),
        Response::OffsetCommit(body) => first(body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code)),
        Response::OffsetFetch(body) => {
            let of_groups = body.groups.iter().map(|group| group.error_code);
            let of_partitions = body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code);
            whole_or(body.error_code, of_groups.chain(of_partitions))
        }
        Response::FindCoordinator(body) => {
            whole_or(body.error_code, body.coordinators.iter().map(|one| one.error_code))
        }
        Response::JoinGroup(body) => body.error_code,
        Response::Heartbeat(body) => body.error_code,
        Response::LeaveGroup(body) => whole_or(body.error_code, body.members.iter().map(|one| one.error_code)),
        Response::SyncGroup(body) => body.error_code,
        Response::DescribeGroups(body) => first(body.groups.iter().map(|group| group.error_code)),
        Response::ListGroups(body) => body.error_code,
        Response::SaslHandshake(body) => body.error_code,
        Response::ApiVersions(body) => body.error_code,
        Response::CreateTopics(body) => first(body.topics.iter().map(|topic| topic.error_code)),
        Response::DeleteTopics(body) => first(body.responses.iter().map(|topic| topic.error_code)),
        Response::DeleteRecords(body) => first(body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code)),
        Response::InitProducerId(body) => body.error_code,
        Response::OffsetForLeaderEpoch(body) => {
            first(body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code))
        }
        Response::AddPartitionsToTxn(_)
        | Response::AddOffsetsToTxn(_)
        | Response::EndTxn(_)
        | Response::WriteTxnMarkers(_)
        | Response::TxnOffsetCommit(_)
        | Response::DescribeTransactions(_)
        | Response::ListTransactions(_) => of_transactions(response),
        Response::DescribeAcls(body) => body.error_code,
        Response::CreateAcls(body) => first(body.results.iter().map(|result| result.error_code)),
        Response::DeleteAcls(body) => first(body.filter_results.iter().map(|result| result.error_code)),
        Response::DescribeConfigs(body) => first(body.results.iter().map(|result| result.error_code)),
        Response::AlterConfigs(body) => first(body.responses.iter().map(|result| result.error_code)),
        Response::AlterReplicaLogDirs(body) => {
            first(body.results.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code))
        }
        Response::DescribeLogDirs(body) => whole_or(body.error_code, body.results.iter().map(|one| one.error_code)),
        Response::CreatePartitions(body) => first(body.results.iter().map(|result| result.error_code)),
        Response::DeleteGroups(body) => first(body.results.iter().map(|result| result.error_code)),
        Response::IncrementalAlterConfigs(body) => first(body.responses.iter().map(|result| result.error_code)),
        Response::OffsetDelete(body) => body.error_code,
        Response::DescribeCluster(body) => body.error_code,
        Response::ElectLeaders(body) => whole_or(
            body.error_code,
            body.replica_election_results.iter().flat_map(|t| &t.partition_result).map(|p| p.error_code),
        ),
        Response::AlterPartitionReassignments(body) => {
            whole_or(body.error_code, body.responses.iter().flat_map(|t| &t.partitions).map(|p| p.error_code))
        }
        Response::ListPartitionReassignments(body) => body.error_code,
        Response::UnregisterBroker(body) => body.error_code,
        Response::UpdateFeatures(body) => body.error_code,
        Response::DescribeQuorum(body) => {
            whole_or(body.error_code, body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code))
        }
        Response::DescribeProducers(body) => {
            first(body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code))
        }
        Response::ListConfigResources(body) => body.error_code,
        Response::DescribeTopicPartitions(body) => first(body.topics.iter().map(|topic| topic.error_code)),
    }
}

fn of_transactions(response: &Response) -> i16 {
    match response {
        Response::AddPartitionsToTxn(body) => {
            let several = body.results_by_transaction.iter().flat_map(|one| &one.topic_results);
            let partitions = several.chain(&body.results_by_topic_v3_and_below).flat_map(|t| &t.results_by_partition);
            whole_or(body.error_code, partitions.map(|p| p.partition_error_code))
        }
        Response::AddOffsetsToTxn(body) => body.error_code,
        Response::EndTxn(body) => body.error_code,
        Response::WriteTxnMarkers(body) => {
            let topics = body.markers.iter().flat_map(|marker| &marker.topics);
            first(topics.flat_map(|t| &t.partitions).map(|p| p.error_code))
        }
        Response::TxnOffsetCommit(body) => first(body.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code)),
        Response::DescribeTransactions(body) => first(body.transaction_states.iter().map(|state| state.error_code)),
        Response::ListTransactions(body) => body.error_code,
        _ => 0,
    }
}

/// The error of the whole answer, else the first of its parts.
fn whole_or(whole: i16, parts: impl Iterator<Item = i16>) -> i16 {
    first(std::iter::once(whole).chain(parts))
}

fn first(mut codes: impl Iterator<Item = i16>) -> i16 {
    codes.find(|code| *code != 0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_counts_and_none_is_none() {
        assert_eq!(first([0, 7, 3].into_iter()), 7);
        assert_eq!(first([0, 0].into_iter()), 0);
    }
}
