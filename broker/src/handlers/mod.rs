//! Handlers: one API, one file. They translate: validate, one call of the domain, map the answer.
//!
//! May not know: disks, Raft, locks, each other.

#[cfg(any())]
mod api_versions;
#[cfg(any())]
mod brokers;
#[cfg(any())]
mod delete_records;
#[cfg(any())]
mod describe_cluster;
#[cfg(any())]
mod describe_log_dirs;
#[cfg(any())]
mod describe_producers;
#[cfg(any())]
mod describe_topic_partitions;
#[cfg(any())]
mod fetch;
pub mod fetch_session;
#[cfg(any())]
mod find_coordinator;
#[cfg(any())]
mod init_producer_id;
#[cfg(any())]
mod list_offsets;
#[cfg(any())]
mod metadata;
#[cfg(any())]
mod offset_for_leader_epoch;
pub(crate) mod operations;
pub(crate) mod outcome;
#[cfg(any())]
mod partition_view;
#[cfg(any())]
mod produce;

#[cfg(any())]
use std::sync::Arc;

#[cfg(any())]
use ottla_protocol::request::Request;
#[cfg(any())]
use ottla_protocol::response::Response;

#[cfg(any())]
use crate::server::Context;
#[cfg(any())]
use crate::server::budget::Reservation;
#[cfg(any())]
use crate::server::dispatch::{Answer, Started};

#[cfg(any())]
/// Starts a request. Produce enqueues its batches before this returns, so that pipelined requests keep their order.
pub(crate) fn start(ctx: Arc<Context>, version: i16, request: Request) -> Started<Response> {
    match request {
        Request::Produce(request) => {
            let started = produce::start(&ctx, version, request);
            let answer = Box::pin(async move { produced(started.outcome.await) });
            Started { answer, ordered: started.enqueued }
        }
        request => {
            let answer = Box::pin(async move { respond(&ctx, version, request).await });
            Started { answer, ordered: true }
        }
    }
}

#[cfg(any())]
async fn respond(ctx: &Arc<Context>, version: i16, request: Request) -> Answer<Response> {
    let reply: Response = match request {
        Request::Produce(request) => return produced(produce::start(ctx, version, request).outcome.await),
        Request::Fetch(request) => {
            let (response, memory) = fetch::handle(ctx, version, request).await;
            return Answer::Reply { reply: response.into(), memory };
        }
        Request::ListOffsets(request) => list_offsets::handle(ctx, version, request).await.into(),
        Request::Metadata(request) => metadata::handle(ctx, version, request).await.into(),
        Request::FindCoordinator(request) => find_coordinator::handle(ctx, version, request).await.into(),
        Request::ApiVersions(request) => api_versions::handle(ctx, version, &request).into(),
        Request::DeleteRecords(request) => delete_records::handle(ctx, request).await.into(),
        Request::InitProducerId(request) => init_producer_id::handle(ctx, &request).await.into(),
        Request::OffsetForLeaderEpoch(request) => offset_for_leader_epoch::handle(ctx, request).await.into(),
        Request::DescribeLogDirs(request) => describe_log_dirs::handle(ctx, version, &request).into(),
        Request::DescribeCluster(request) => describe_cluster::handle(ctx, version, &request).into(),
        Request::DescribeProducers(request) => describe_producers::handle(ctx, request).await.into(),
        Request::DescribeTopicPartitions(request) => describe_topic_partitions::handle(ctx, request).await.into(),
    };
    Answer::Reply { reply, memory: Reservation::default() }
}

#[cfg(any())]
fn produced(outcome: produce::Outcome) -> Answer<Response> {
    match outcome {
        Ok(Some(response)) => Answer::Reply { reply: response.into(), memory: Reservation::default() },
        Ok(None) => Answer::Nothing,
        Err(reason) => Answer::Close(reason),
    }
}
