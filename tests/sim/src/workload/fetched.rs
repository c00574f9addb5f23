//! What every reader over the wire does with the answer for one partition: judges it, and goes on behind it.
//!
//! May not know: which node is asked, and why.

use kafka_protocol::messages::fetch_response::PartitionData;
use ottla_env::sim::SimNode;

use super::consumer;
use crate::laws::{Violation, i12_range, reads};
use crate::oracle::Learned;
use crate::world::World;

const OUT_OF_RANGE: i16 = 1;

/// What a reader got.
pub(crate) enum Got {
    /// No records, or an error that passes.
    Nothing,
    /// The records up to here are deleted.
    Deleted(i64),
    /// These records by offset, from where it asked on.
    Records(Vec<(i64, u64)>),
}

/// Judges the answer of `node` to a fetch from an offset.
pub(crate) fn judge(world: &World, node: SimNode, from: i64, told: &PartitionData) -> Got {
    let index = told.partition_index;
    if told.error_code == OUT_OF_RANGE {
        let (deleted, end) = {
            let mut oracle = world.oracle();
            let known = oracle.partition(index);
            (known.deleted, known.end())
        };
        if from >= deleted {
            world.judge::<()>(Err(i12_range::refused(index, from, end)));
        }
        return Got::Deleted(deleted);
    }
    let Some(records) = told.records.as_ref().filter(|_| told.error_code == 0) else { return Got::Nothing };
    let values = consumer::values_in(records).map_err(|what| {
        Violation::new("what is read can be read", index, format!("from {from}, node {}: {what}", node.0))
    });
    let Some(values) = world.judge(values) else { return Got::Nothing };
    let Some((first, _)) = values.first().copied() else { return Got::Nothing };
    world.judge(reads::begins_at(index, from, first));
    for (offset, value) in &values {
        let verdict = world.oracle().learn(index, *offset, *value, Learned::Read);
        world.judge(verdict);
    }
    Got::Records(values.into_iter().filter(|(offset, _)| *offset >= from).collect())
}
