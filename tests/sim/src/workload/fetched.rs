//! What readers do with the answer for one partition: they judge it, and go on behind it.
//!
//! May not know: which node is asked, and why.

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::PartitionData;
use ottla_env::sim::SimNode;
use ottla_protocol::batch::split_batches;

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
    let records = told.records.as_ref().filter(|_| told.error_code == 0);
    let values = records.and_then(|records| learn(world, node, (index, from), records));
    values
        .map_or(Got::Nothing, |values| Got::Records(values.into_iter().filter(|(offset, _)| *offset >= from).collect()))
}

/// Judges the batches that `node` gave for an offset of a partition; values by offset, `None` if there are none.
pub(crate) fn learn(
    world: &World,
    node: SimNode,
    (index, from): (i32, i64),
    records: &Bytes,
) -> Option<Vec<(i64, u64)>> {
    let values = consumer::values_in(records).map_err(|what| {
        Violation::new("what is read can be read", index, format!("from {from}, node {}: {what}", node.0))
    });
    let values = world.judge(values)?;
    for view in split_batches(records).filter_map(Result::ok) {
        world.judge(reads::codec(index, world.topic_codec(), view.header.attributes.codec()));
    }
    let first = values.first()?.0;
    world.judge(reads::begins_at(index, from, first));
    for (offset, value) in &values {
        let verdict = world.oracle().learn(index, *offset, *value, Learned::Read);
        world.judge(verdict);
    }
    Some(values)
}
