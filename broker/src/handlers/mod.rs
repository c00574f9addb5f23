//! Handlers of Kafka's APIs, one file per API (a folder for Fetch and Produce); shared helpers are in [`support`].
//!
//! A handler translates: it validates the request, makes one call of the domain, and maps the result to a response, so
//! that no rule of the domain depends on a version of the protocol. Requests come from [`kafka_dispatch`] through the
//! gate of [`authorization`]. May not know: disks, Raft, locks, each other.

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
pub mod authorization;
pub mod context;
mod create_acls;
mod create_partitions;
mod create_topics;
mod delete_acls;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod elect_leaders;
mod end_txn;
pub mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
pub mod kafka_dispatch;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
pub mod produce;
mod sasl_handshake;
mod support;
mod sync_group;
mod txn_offset_commit;
mod unregister_broker;
mod update_features;
mod write_txn_markers;

use std::sync::Arc;

use futures_util::FutureExt;
use ottla_protocol::request::Request;
use ottla_protocol::response::Response;
use ottla_storage::read::ReadStream;

use self::authorization::Authorized;
use self::context::Context;
use self::produce::partition_cache::PartitionCache;
use crate::server::budget::Reservation;
use crate::server::dispatch::{Answer, Started};

/// The response to a request.
#[derive(Debug)]
pub struct Replied {
    /// The response without the streamed records.
    pub body: Response,
    /// Streamed records, in the order of the gaps that the body leaves for them.
    pub streams: Vec<ReadStream>,
}

impl<R: Into<Response>> From<R> for Replied {
    fn from(body: R) -> Self {
        Self { body: body.into(), streams: Vec::new() }
    }
}

/// Starts a request; `finish` maps its answer. Produce enqueues its batches before this returns, so that pipelined
/// requests keep their order.
fn start<R: 'static>(
    ctx: Arc<Context>,
    version: i16,
    request: Authorized,
    partition_cache: &mut PartitionCache,
    finish: impl FnOnce(Answer<Replied>) -> Answer<R> + Send + 'static,
) -> Started<R> {
    match request.into_request() {
        Request::Produce(request) => {
            let (producing, ordered) = produce::start(ctx, version, request, partition_cache);
            Started { answer: Box::pin(producing.map(|outcome| finish(produced(outcome)))), ordered }
        }
        request => {
            let answer = Box::pin(async move { finish(respond(&ctx, version, request).await) });
            Started { answer, ordered: true }
        }
    }
}

async fn respond(ctx: &Arc<Context>, version: i16, request: Request) -> Answer<Replied> {
    let reply: Replied = match request {
        Request::Produce(_) => unreachable!("connection {}: `start` answers Produce", ctx.connection.peer.connection),
        Request::Fetch(request) => {
            let fetch::FetchReply { body, streams, memory } = fetch::handle(ctx, version, request).await;
            return Answer::Reply { reply: Replied { body: body.into(), streams }, memory };
        }
        Request::ListOffsets(request) => list_offsets::handle(ctx, version, request).await.into(),
        Request::Metadata(request) => metadata::handle(ctx, version, request).await.into(),
        Request::FindCoordinator(request) => find_coordinator::handle(ctx, version, request).await.into(),
        Request::ApiVersions(request) => api_versions::handle(ctx, version, &request).into(),
        Request::SaslHandshake(_) => sasl_handshake::handle().into(),
        Request::UpdateFeatures(request) => update_features::handle(ctx, version, request).await.into(),
        Request::OffsetCommit(request) => offset_commit::handle(ctx, version, request).await.into(),
        Request::OffsetFetch(request) => offset_fetch::handle(ctx, version, request).await.into(),
        Request::OffsetDelete(request) => offset_delete::handle(ctx, request).await.into(),
        Request::JoinGroup(request) => join_group::handle(ctx, version, request).await.into(),
        Request::SyncGroup(request) => sync_group::handle(ctx, version, request).await.into(),
        Request::Heartbeat(request) => heartbeat::handle(ctx, request).await.into(),
        Request::LeaveGroup(request) => leave_group::handle(ctx, version, request).await.into(),
        Request::DescribeGroups(request) => describe_groups::handle(ctx, version, request).await.into(),
        Request::ListGroups(request) => list_groups::handle(ctx, version, request).await.into(),
        Request::DeleteGroups(request) => delete_groups::handle(ctx, request).await.into(),
        Request::CreateTopics(request) => create_topics::handle(ctx, version, request).await.into(),
        Request::DeleteTopics(request) => delete_topics::handle(ctx, version, request).await.into(),
        Request::CreatePartitions(request) => create_partitions::handle(ctx, request).await.into(),
        Request::DescribeAcls(_) => describe_acls::handle().into(),
        Request::CreateAcls(request) => create_acls::handle(&request).into(),
        Request::DeleteAcls(request) => delete_acls::handle(&request).into(),
        Request::DescribeConfigs(request) => describe_configs::handle(ctx, version, request).await.into(),
        Request::AlterConfigs(request) => alter_configs::handle(ctx, request).await.into(),
        Request::IncrementalAlterConfigs(request) => incremental_alter_configs::handle(ctx, request).await.into(),
        Request::ListConfigResources(request) => list_config_resources::handle(ctx, version, request).await.into(),
        Request::DeleteRecords(request) => delete_records::handle(ctx, request).await.into(),
        Request::InitProducerId(request) => init_producer_id::handle(ctx, version, &request).await.into(),
        Request::AddPartitionsToTxn(request) => add_partitions_to_txn::handle(ctx, version, request).await.into(),
        Request::AddOffsetsToTxn(request) => add_offsets_to_txn::handle(ctx, version, &request).await.into(),
        Request::EndTxn(request) => end_txn::handle(ctx, version, &request).await.into(),
        Request::WriteTxnMarkers(request) => write_txn_markers::handle(ctx, request).await.into(),
        Request::TxnOffsetCommit(request) => txn_offset_commit::handle(ctx, version, request).await.into(),
        Request::DescribeTransactions(request) => describe_transactions::handle(ctx, request).await.into(),
        Request::ListTransactions(request) => list_transactions::handle(ctx, version, &request).into(),
        Request::OffsetForLeaderEpoch(request) => offset_for_leader_epoch::handle(ctx, request).await.into(),
        Request::DescribeLogDirs(request) => describe_log_dirs::handle(ctx, &request).into(),
        Request::DescribeCluster(request) => describe_cluster::handle(ctx, version, &request).into(),
        Request::ElectLeaders(request) => elect_leaders::handle(ctx, request).await.into(),
        Request::AlterPartitionReassignments(request) => {
            alter_partition_reassignments::handle(ctx, version, request).await.into()
        }
        Request::AlterReplicaLogDirs(request) => alter_replica_log_dirs::handle(ctx, &request).await.into(),
        Request::ListPartitionReassignments(request) => list_partition_reassignments::handle(ctx, request).await.into(),
        Request::UnregisterBroker(request) => unregister_broker::handle(ctx, request).await.into(),
        Request::DescribeQuorum(request) => describe_quorum::handle(ctx, version, &request).await.into(),
        Request::DescribeProducers(request) => describe_producers::handle(ctx, request).await.into(),
        Request::DescribeTopicPartitions(request) => describe_topic_partitions::handle(ctx, request).await.into(),
    };
    Answer::Reply { reply, memory: Reservation::default() }
}

fn produced(outcome: produce::Outcome) -> Answer<Replied> {
    match outcome {
        Ok(Some(response)) => Answer::Reply { reply: response.into(), memory: Reservation::default() },
        Ok(None) => Answer::Nothing,
        Err(reason) => Answer::Close(reason),
    }
}
