//! The page `/metrics`: the registry, then metrics computed from images at scrape time: partitions and groups under
//! kafka_exporter's names, so that existing dashboards work unchanged; then sizes and disks.
//!
//! A group is exported by its coordinator only: no sample of a group appears on two nodes. May not know: which topics
//! and partitions have their own series (`topics`).

use std::collections::BTreeMap;

use ottla_env::critical::panic_counts;
use ottla_env::rt;
use prometheus::TextEncoder;

use super::families::{Family, label};
use super::groups::Scope;
use super::{disk, group_families, shard_families, topics};
use crate::coordinator::lag::report::{Filter, Report};
use crate::handlers::context::Domain;
use crate::metadata::{FenceReason, MetadataImage, NodeState, ShardRecord};

/// Above this many partitions of groups only sums are on this page; `/metrics/groups` has them all.
const GROUP_SERIES_MAX: usize = 5_000;

/// The whole page; with the groups of the cluster, or of this node.
pub(super) async fn render(domain: &Domain, scope: Scope) -> String {
    let groups = scope.groups(domain, &Filter::default()).await;
    let domain = domain.clone();
    // The text of ten thousand partitions takes milliseconds: it is not made on a thread that serves clients.
    let text = rt::spawn_blocking(move || page(&domain, &groups)).await;
    text.unwrap_or_else(|error| {
        tracing::error!("the metrics page failed: {error}");
        String::new()
    })
}

fn page(domain: &Domain, groups: &Report) -> String {
    let image = domain.metadata.image();
    domain.metrics.keep_topics(&image.config.metrics, |name| image.topic(name).is_some());
    let mut page = String::with_capacity(1 << 16);
    if let Err(error) = TextEncoder::new().encode_utf8(&domain.metrics.registry().gather(), &mut page) {
        tracing::error!("the registry cannot be written as text: {error}");
    }
    brokers(domain, &image, &mut page);
    topics::overview(domain, &image, &mut page);
    group_families::write(groups, GROUP_SERIES_MAX, &mut page);
    shard_families::metrics(domain, &mut page);
    disk::directories(domain, &mut page);
    page
}

fn brokers(domain: &Domain, image: &MetadataImage, page: &mut String) {
    let mut count = Family::gauge("kafka_brokers", "Number of brokers in the cluster");
    let visible = domain.partitions.visible_nodes(image);
    count.add("", visible.len());
    count.finish(page);
    let mut info = Family::gauge("kafka_broker_info", "Information about each broker");
    for node in image.nodes.values().filter(|node| visible.contains(&node.id)) {
        if let Some(listener) = node.endpoint(&domain.config.inter_broker_listener_name) {
            let address = format!("{}:{}", listener.host, listener.port);
            info.add(&format!("{},id=\"{}\"", label("address", &address), node.id.0), 1);
        }
    }
    info.finish(page);
    let help = "The node that leads the metadata, as far as this one knows, -1 if it knows none";
    let mut leader = Family::gauge("ottla_metadata_leader", help);
    leader.add("", domain.metadata.controller_id().map_or(-1, |node| node.0));
    leader.finish(page);
    nodes(image, page);
    shards(image, page);
    let mut groups = Family::gauge("ottla_raft_groups", "Raft groups with a replica on this node");
    let replicas = image.shards.values().flat_map(|shard| &shard.replicas);
    groups.add("", replicas.filter(|replica| replica.node == domain.config.node_id).count());
    groups.finish(page);
    let mut replicas = Family::gauge("ottla_raft_replicas", "Replicas that run on this node, by what they are");
    for (role, count) in domain.partitions.replica_roles() {
        replicas.add(&label("role", role), count);
    }
    replicas.finish(page);
    let help = "Tasks that panicked; a critical one ends its replica, its data directory or the process";
    let mut panics = Family::counter("ottla_task_panics_total", help);
    for (task, count) in panic_counts() {
        panics.add(&label("task", &task), count);
    }
    panics.finish(page);
    let mut build = Family::gauge("ottla_build_info", "The version that runs");
    build.add(&label("version", env!("CARGO_PKG_VERSION")), 1);
    build.finish(page);
    let mut budget = Family::gauge("ottla_memory_answers_bytes", "Memory of answers under way");
    budget.add("", domain.answers.bytes_used());
    budget.finish(page);
}

/// The number of shards, and of those that are being moved, split or merged.
fn shards(image: &MetadataImage, page: &mut String) {
    let counted = |is_so: &dyn Fn(&ShardRecord) -> bool| image.shards.values().filter(|shard| is_so(shard)).count();
    let mut shards = Family::gauge("ottla_shards", "Shards of the cluster");
    shards.add("", image.shards.len());
    shards.finish(page);
    let mut changing =
        Family::gauge("ottla_shards_changing", "Shards that are being moved, split off or merged into others");
    changing.add(&label("change", "move"), counted(&|shard| shard.is_moving()));
    changing.add(&label("change", "split"), counted(&|shard| shard.is_being_split_off()));
    changing.add(&label("change", "merge"), counted(&|shard| shard.merge.is_some()));
    changing.finish(page);
}

/// The number of registered nodes, by state.
fn nodes(image: &MetadataImage, page: &mut String) {
    let states = NodeState::ALL.map(NodeState::name).into_iter().chain(FenceReason::ALL.map(FenceReason::name));
    let mut counts: BTreeMap<&str, usize> = states.map(|state| (state, 0)).collect();
    for node in image.nodes.values() {
        *counts.entry(node.state_name()).or_default() += 1;
    }
    let mut nodes = Family::gauge("ottla_nodes", "Registered nodes, by what they are");
    for (state, count) in counts {
        nodes.add(&label("state", state), count);
    }
    nodes.finish(page);
}
