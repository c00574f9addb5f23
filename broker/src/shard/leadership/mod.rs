//! Leadership of shards: how each node learns which node leads which shard, and how leadership moves to another
//! replica.
//!
//! - `dissemination`: each node sends all others what it leads;
//! - `transfer`: one transfer of leadership to a given or to the preferred replica;
//! - `preferred_balance`: leaders that are not preferred transfer leadership by themselves.
//!
//! May not know: elections, which are Raft's.

pub(super) mod dissemination;
pub(super) mod preferred_balance;
pub(super) mod transfer;
