//! Log matching: an entry of a shard is the same on every replica. Two replicas never hold, and no leader ever sends,
//! different entries of one term and index; damaged entries are never sent, and never accepted after a restart.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ottla_storage::entry::Entry;
use ottla_storage::ids::{LogId, ReplicaId};

use super::Violation;

const LAW: &str = "an entry is the same everywhere";
/// Entries of a shard that are kept.
const REMEMBERED: usize = 50_000;

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    (entry.kind as u8, entry.clock_ms).hash(&mut hasher);
    entry.payload.hash(&mut hasher);
    for batch in &entry.batches {
        (batch.partition.topic.as_u128(), batch.partition.index).hash(&mut hasher);
        batch.data.hash(&mut hasher);
    }
    hasher.finish()
}

/// By shard and entry: its digest, and the first replica that sent it.
#[derive(Debug, Default)]
pub(crate) struct Contents(BTreeMap<u64, BTreeMap<LogId, (u64, ReplicaId)>>);

impl Contents {
    /// A leader sends these entries.
    pub(crate) fn sent(&mut self, shard: u64, from: ReplicaId, entries: &[Entry]) -> Result<(), Violation> {
        let known = self.0.entry(shard).or_default();
        for entry in entries {
            let digest = digest(entry);
            let (first, its_replica) = *known.entry(entry.log_id).or_insert((digest, from));
            if first != digest {
                let what = format!(
                    "shard {shard}: replica {from} sends another entry {} than replica {its_replica} did",
                    entry.log_id
                );
                return Err(Violation::new(LAW, None, what));
            }
        }
        while known.len() > REMEMBERED {
            known.pop_first();
        }
        Ok(())
    }

    /// A replica holds this entry after a restart, and does not take it for damaged.
    pub(crate) fn holds(&self, shard: u64, replica: ReplicaId, entry: &Entry) -> Result<(), Violation> {
        match self.0.get(&shard).and_then(|known| known.get(&entry.log_id)) {
            Some((first, its_replica)) if *first != digest(entry) => {
                let what = format!(
                    "shard {shard}: replica {replica} holds another entry {} after a restart than replica {its_replica} sent",
                    entry.log_id
                );
                Err(Violation::new(LAW, None, what))
            }
            _ => Ok(()),
        }
    }
}
