//! I7: a partition is carried by the one shard that the metadata names, and what was deleted is carried by none.

use super::Violation;

/// A shard carries a partition, once every intent has ended; `route` is the shard that the metadata names for it.
pub(crate) fn carried(shard: u64, partition: &str, route: Option<u64>) -> Result<(), Violation> {
    if route == Some(shard) {
        return Ok(());
    }
    let named = route.map_or("none".to_owned(), |shard| format!("shard {shard}"));
    let what = format!("shard {shard} carries {partition}, the metadata names {named}");
    Err(Violation::new("I7 a partition has one owner", None, what))
}
