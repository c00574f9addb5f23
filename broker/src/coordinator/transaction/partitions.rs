//! Partitions as requests about transactions name them: grouped by topic, or one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Partitions by topic.
pub type Partitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

/// One partition: the topic's name and the partition's index.
pub type NamedPartition = (Arc<str>, i32);

/// Groups partitions by topic.
#[must_use]
pub fn by_topic(partitions: &[NamedPartition]) -> Partitions {
    let mut grouped = Partitions::new();
    for (topic, index) in partitions {
        grouped.entry(topic.clone()).or_default().insert(*index);
    }
    grouped
}

/// One by one, in order.
#[must_use]
pub fn each(partitions: &Partitions) -> Vec<NamedPartition> {
    let of_topic = |(topic, indexes): (&Arc<str>, &BTreeSet<i32>)| {
        indexes.iter().map(|index| (topic.clone(), *index)).collect::<Vec<_>>()
    };
    partitions.iter().flat_map(of_topic).collect()
}

/// The partitions of a request's topics one by one, in the request's order.
pub fn named<'a>(topics: impl IntoIterator<Item = (&'a str, &'a [i32])>) -> Vec<NamedPartition> {
    let of_topic = |(topic, indexes): (&str, &[i32])| {
        let topic: Arc<str> = Arc::from(topic);
        indexes.iter().map(|index| (topic.clone(), *index)).collect::<Vec<_>>()
    };
    topics.into_iter().flat_map(of_topic).collect()
}
