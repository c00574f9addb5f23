//! A replica lies in the data directory that the metadata records, and a node's directories share its replicas.

use std::collections::BTreeMap;

use ottla_broker::metadata::MetadataImage;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use uuid::Uuid;

use super::Violation;

/// So many replicas are more than one directory is to hold while another one of equal size is empty.
const CROWDED: usize = 4;

/// `held`: the replicas in each of the node's directories. `are_moved`: operators move replicas between them.
pub(crate) fn holds(
    image: &MetadataImage,
    node: NodeId,
    held: &BTreeMap<Uuid, Vec<ReplicaId>>,
    are_moved: bool,
) -> Result<(), Violation> {
    let mut recorded: BTreeMap<Uuid, usize> = held.keys().map(|directory| (*directory, 0)).collect();
    for replica in image.shards.values().flat_map(|shard| &shard.replicas).filter(|replica| replica.node == node) {
        *recorded.entry(replica.directory).or_default() += 1;
        let found = held.iter().find(|(_, replicas)| replicas.contains(&replica.id)).map(|(directory, _)| *directory);
        if found.is_some_and(|found| found != replica.directory) {
            let what = format!("node {node}: replica {} lies in {found:?}, not in {}", replica.id, replica.directory);
            return Err(Violation::new("a replica lies where the metadata records it", None, what));
        }
    }
    if !are_moved && recorded.values().any(|count| *count >= CROWDED) && recorded.values().any(|count| *count == 0) {
        let what = format!("node {node}: {recorded:?}");
        return Err(Violation::new("the directories of a node share its replicas", None, what));
    }
    Ok(())
}
