//! Tests of whole replicas: openraft's suite, one voter, three voters in the simulation.

#![allow(clippy::unwrap_used)]

mod cluster;
mod leadership;
mod ledger;
mod long_links;
mod membership;
mod memory;
mod one_voter;
mod panics;
mod real_log;
mod state_check;
mod suite;
mod three_voters;
