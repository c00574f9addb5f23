//! The first leader epochs of new partitions: 0, as in Kafka. A partition's epoch is its base plus the term of its shard, so that base is
//! minus the term in which the shard is led.
//!
//! The controller puts the bases into the entry that creates the partitions, so a node that knows of a partition knows its base, and no
//! epoch that a client was told changes. A shard that has another leader by the time begins above 0; none begins below, for terms do
//! not fall. May not know: where terms come from.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::command::{Command, EPOCH_BASES};
use super::image::ShardId;
use crate::levels::FeatureLevel;

/// No shard is led in a term below this one.
const FIRST_TERM: u64 = 1;

type Terms = Box<dyn Fn(ShardId) -> Option<u64> + Send + Sync>;

/// The terms in which shards are led, as far as this node knows: none before its shards are there to ask.
#[derive(Clone, Default)]
pub(super) struct ShardTerms(Arc<OnceLock<Terms>>);

impl ShardTerms {
    /// Sets whom to ask, once.
    pub(super) fn set(&self, terms: Terms) {
        assert!(self.0.set(terms).is_ok(), "the terms of shards are set twice");
    }

    /// The term in which a shard has, or has had, a leader.
    pub(super) fn of(&self, shard: ShardId) -> Option<u64> {
        self.0.get().and_then(|terms| terms(shard))
    }
}

/// What gives the partitions that these commands create their bases.
pub(super) fn bases(
    level: FeatureLevel,
    commands: &[Command],
    term_of: impl Fn(ShardId) -> Option<u64>,
) -> Vec<Command> {
    if level < EPOCH_BASES {
        return Vec::new();
    }
    // Thousands of partitions share a few shards.
    let mut known = BTreeMap::new();
    let mut base_of = |shard: &ShardId| {
        *known.entry(*shard).or_insert_with(|| {
            let term = term_of(*shard).unwrap_or(FIRST_TERM);
            i32::try_from(term).map_or(i32::MIN, |term| -term)
        })
    };
    let mut of = |id, first, shards: &[ShardId]| Command::SetEpochBases {
        id,
        first,
        bases: shards.iter().map(&mut base_of).collect(),
    };
    let created = commands.iter().filter_map(|command| match command {
        Command::CreateTopic { id, shards, .. } => Some(of(*id, 0, shards)),
        Command::AddPartitions { id, count_before, shards } => Some(of(*id, *count_before, shards)),
        _ => None,
    });
    created.collect()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_base_is_minus_the_term_of_the_shard() {
        let id = Uuid::from_u128(7);
        let shards = vec![ShardId(1), ShardId(2), ShardId(1)];
        let create = Command::CreateTopic {
            name: "t".into(),
            id,
            internal: false,
            overrides: BTreeMap::new(),
            shards: shards.clone(),
        };
        let add = Command::AddPartitions { id, count_before: 3, shards };
        let terms = |shard: ShardId| (shard == ShardId(1)).then_some(9);
        let given = |commands: &[Command]| bases(EPOCH_BASES, commands, terms);
        let of = |first| Command::SetEpochBases { id, first, bases: vec![-9, -1, -9] };
        assert_eq!(given(&[create.clone(), add]), [of(0), of(3)]);
        assert_eq!(given(&[Command::DeleteTopic { id }]), []);
        assert_eq!(bases(FeatureLevel(4), &[create], terms), []);
    }
}
