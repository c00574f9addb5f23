//! DescribeCluster (key 60, v0-v2): cluster id, controller and brokers (KIP-700).
//!
//! v1: endpoint type (KIP-919); brokers only, MISMATCHED_ENDPOINT_TYPE for controllers. v2: fenced brokers too, if
//! requested (KIP-1073).

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::produce::NodeEndpoint;

use super::support::{authorized_operations, endpoints, text};
use crate::handlers::context::Context;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn handle(ctx: &Context, version: i16, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return failed(ErrorCode::MismatchedEndpointType, "this is an endpoint of brokers, not of controllers");
        }
        other => {
            return failed(ErrorCode::UnsupportedEndpointType, &format!("unknown endpoint type {other}"));
        }
    }
    let image = ctx.metadata.image();
    let visible = ctx.partitions.visible_nodes(&image);
    let with_fenced = version >= 2 && request.include_fenced_brokers;
    let listed = image.nodes.keys().filter(|node| with_fenced || visible.contains(node));
    let broker = |node: NodeEndpoint| {
        DescribeClusterBroker::default()
            .with_broker_id(BrokerId(node.node.0))
            .with_host(node.host)
            .with_port(node.port)
            .with_rack(node.rack)
            .with_is_fenced(with_fenced && !visible.contains(&node.node))
    };
    let brokers = listed.filter_map(|node| endpoints::endpoint(ctx, &image, *node)).map(broker).collect();
    let response = DescribeClusterResponse::default()
        .with_cluster_id(text(&image.cluster_id))
        .with_controller_id(BrokerId(endpoints::controller(ctx).0))
        .with_cluster_authorized_operations(authorized_operations::if_requested(
            request.include_cluster_authorized_operations,
            authorized_operations::CLUSTER,
        ))
        .with_brokers(brokers);
    if version >= 1 { response.with_endpoint_type(BROKERS) } else { response }
}

fn failed(error: ErrorCode, message: &str) -> DescribeClusterResponse {
    DescribeClusterResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text(message)))
        .with_controller_id(BrokerId(-1))
        .with_cluster_authorized_operations(authorized_operations::NOT_REQUESTED)
}
