//! I7: a partition is carried by the one shard that the metadata assigns it to; a deleted one by none.

use super::Violation;

/// A shard carries a partition once every intent has ended; `route` is its shard in the metadata.
pub(crate) fn carried(shard: u64, partition: &str, route: Option<u64>) -> Result<(), Violation> {
    if route == Some(shard) {
        return Ok(());
    }
    let named = route.map_or("none".to_owned(), |shard| format!("shard {shard}"));
    let what = format!("shard {shard} carries {partition}, the metadata names {named}");
    Err(Violation::new("I7 a partition has one owner", None, what))
}
