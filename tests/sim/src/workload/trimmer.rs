//! Sends DeleteRecords close behind the end of most partitions: records become garbage soon, and only little of a
//! segment is live.

use ottla_env::sim;

use super::{NAME, pause, target};
use crate::registry::PARTITIONS;
use crate::world::World;

/// Trims all partitions until the workload ends, the first one only now and then if `all`, else never.
pub(crate) async fn trimmer(world: World, all: bool) {
    while world.workload_runs() {
        pause(100).await;
        let others =
            1 + i32::try_from(sim::random_below(PARTITIONS.unsigned_abs().into())).unwrap_or(0) % (PARTITIONS - 1);
        let index = if all && sim::random_below(20) == 0 { 0 } else { others };
        let up_to = {
            let mut oracle = world.oracle();
            let known = oracle.partition(index);
            let up_to = known.end() - i64::try_from(sim::random_below(20)).unwrap_or(0);
            known.deleted = known.deleted.max(up_to);
            up_to
        };
        if up_to > 0 {
            let node = target(&world, index);
            let work = move |running: std::sync::Arc<crate::sim_node::RunningNode>| async move {
                running.partitions.find(NAME, index).await?.delete_records(up_to).await
            };
            let _ = world.request(node, work).await;
        }
    }
}
