//! A cluster that was never told another level is at the newest one that all its nodes understand, whenever its nodes came.

use ottla_broker::metadata::MetadataImage;

use super::Violation;

/// The level in force once all nodes have joined.
pub(crate) fn newest_of_all(image: &MetadataImage) -> Result<(), Violation> {
    let newest = image.nodes.values().map(|node| node.levels.newest).min();
    if newest.is_none_or(|newest| newest == image.level) {
        return Ok(());
    }
    let what = format!("it is at {:?}, and all nodes understand {newest:?}", image.level);
    Err(Violation::new("a cluster begins at the newest level of all its nodes", None, what))
}

/// A level is not raised while a registered node does not understand it.
pub(crate) fn raised_above(node: u32) -> Violation {
    let what = format!("node {node} runs the older release");
    Violation::new("a level that a node does not understand is not raised", None, what)
}

/// No node is given what only a later release understands.
pub(crate) fn newer_format(node: u32, why: &str) -> Violation {
    Violation::new("a node understands what the others write", None, format!("node {node}: {why}"))
}
