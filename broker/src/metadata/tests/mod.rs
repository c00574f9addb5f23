//! The metadata as other modules see it: pure decisions over images, one node, and groups of three in virtual time.
#![allow(clippy::unwrap_used)]

mod balance;
mod cluster;
mod decide;
mod features;
mod forward_codec;
mod image_model;
mod live;
mod liveness;
mod log_dirs;
mod merges;
mod moves;
mod on_demand;
pub(crate) mod placement;
mod placement_model;
mod reassign;
mod replica_assignment;
mod scenarios;
mod splits;
mod state_machine;
mod topic_shards;
