//! Answers of a leader are current: ListOffsets "latest" is never below what was acknowledged before the request
//! (design section 5: read index, no leases).

use ottla_protocol::compression::Codec;

use super::Violation;

const LAW: &str = "a leader's answers are current";
const UNREADABLE: &str = "what is there can be read";

pub(crate) fn latest(index: i32, acknowledged_before: i64, told: i64) -> Result<(), Violation> {
    if told < acknowledged_before {
        let what = format!("ListOffsets says {told}, {acknowledged_before} was acknowledged before it was asked");
        return Err(Violation::new(LAW, index, what));
    }
    Ok(())
}

/// A fetch from an observed offset returns the batch that contains it.
pub(crate) fn begins_at(index: i32, asked: i64, first: i64) -> Result<(), Violation> {
    if first > asked {
        return Err(Violation::new(LAW, index, format!("a fetch from {asked} begins at {first}: records are skipped")));
    }
    Ok(())
}

/// A storage error from a node whose disk was never corrupted and has not failed.
pub(crate) fn unreadable(index: i32, asked: i64, node: u32) -> Violation {
    Violation::new(UNREADABLE, index, format!("node {node} cannot read {asked}, and its disk is sound"))
}

/// A node whose disk was never corrupted fetched batches from other replicas to repair them.
pub(crate) fn repaired(node: u32, batches: u64) -> Violation {
    Violation::new(UNREADABLE, None, format!("node {node} had {batches} batches repaired, and its disk is sound"))
}

/// A fetch from below the end in the same answer returns records.
pub(crate) fn gives_something(index: i32, asked: i64, end: i64, records: usize) -> Result<(), Violation> {
    if asked < end && records == 0 {
        return Err(Violation::new(
            LAW,
            index,
            format!("a fetch from {asked} gives nothing, and shows {end} as the end"),
        ));
    }
    Ok(())
}

/// A fetch session got no records that its node had shown before the request.
pub(crate) fn withheld(index: i32, node: u32, asked: i64, shown: i64) -> Violation {
    let what = format!("node {node} showed {shown} as the end, and then gave a session that is at {asked} nothing");
    Violation::new("a fetch session is told of all that changed", index, what)
}

/// ListOffsets finds nothing for a timestamp after all records, and a log starts no later than clients requested.
pub(crate) fn listed(index: i32, after_all: bool, told: i64, deleted: i64) -> Result<(), Violation> {
    if after_all && told != -1 {
        return Err(unknown(Some(index), "ListOffsets for a time after all records", told));
    }
    if !after_all && !(0..=deleted).contains(&told) {
        let what = format!("ListOffsets says that the log begins at {told}, and nobody asked for more than {deleted}");
        return Err(Violation::new(LAW, index, what));
    }
    Ok(())
}

/// A leader sends a consumer to a replica in the consumer's rack.
pub(crate) fn nearest(index: i32, leader: u32, node: u32, asked: &str, rack: &str) -> Result<(), Violation> {
    if asked == rack {
        return Ok(());
    }
    let what = format!("node {leader} sends a consumer in {asked} to node {node}, which is in {rack}");
    Err(Violation::new("a consumer reads in its own rack", index, what))
}

/// A batch is stored with the codec of its topic, if the topic has one.
pub(crate) fn codec(index: i32, wanted: Option<Codec>, found: Option<Codec>) -> Result<(), Violation> {
    if wanted.is_none() || wanted == found {
        return Ok(());
    }
    let what = format!("a batch is stored with {found:?}, and compression.type is {wanted:?}");
    Err(Violation::new("a topic's batches have its compression.type", index, what))
}

/// An unknown offset is -1.
pub(crate) fn unknown(index: Option<i32>, of: &str, told: i64) -> Violation {
    Violation::new("an unknown offset is -1", index, format!("{of} is answered with {told}"))
}
