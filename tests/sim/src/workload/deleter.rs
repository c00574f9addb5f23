//! Sends DeleteRecords for two partitions, now and then.

use ottla_env::sim;

use super::{NAME, pause, target};
use crate::registry::PARTITIONS;
use crate::world::World;

/// Deletes records until the workload ends.
pub(crate) async fn deleter(world: World) {
    while world.workload_runs() {
        pause(3_000).await;
        let index = PARTITIONS - 1 - i32::try_from(sim::random_below(2)).unwrap_or(0);
        let up_to = {
            let mut oracle = world.oracle();
            let known = oracle.partition(index);
            let end = known.end().unsigned_abs();
            let up_to = i64::try_from(sim::random_below(end + 1)).unwrap_or(0);
            known.deleted = known.deleted.max(up_to);
            up_to
        };
        let node = target(&world, index);
        let answer = world
            .request(node, move |running| async move {
                running.partitions.find(NAME, index).await?.delete_records(up_to).await
            })
            .await;
        if let Some(Ok(log_start)) = answer {
            world.trace(Some(index), format!("node {} deleted up to {up_to}: begins at {log_start}", node.0));
        }
    }
}
