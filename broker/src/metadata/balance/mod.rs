//! Load follows nodes by itself (design section 8): replicas and leaderships go to a node that joins, and away from one that is
//! hot or whose disk is nearly full.
//!
//! ```text
//!  each node       ClusterReport: what the shards that it leads take in and send out, and the space of its directories
//!  the controller  ClusterLoad: averages of these, in memory
//!                  on_demand(image, load), plan(image, load) -> actions, each with its reason in one sentence
//!                  the first actions become commands; history: what was done and why
//! ```
//! A controller that begins to lead knows no load; it balances once all nodes have reported. What was done is kept in the metadata,
//! from feature level 6 on. May not know:
//! how a shard is moved.

mod history;
mod load;
mod on_demand;
mod plan;
mod reports;
mod state;

pub(super) use history::recorded;
pub(super) use load::LoadReport;
pub use load::{DirectorySpace, Load};
pub use plan::NodeShare;
pub use reports::{LoadSource, Totals};
pub(super) use state::BalanceState;
pub use state::BalanceStatus;

pub use super::action::{Action, Change, Done};
