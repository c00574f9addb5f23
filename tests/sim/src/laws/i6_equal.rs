//! I6: replicas that applied the same entry have equal replicated state, by its rolling checksum.

use std::collections::BTreeMap;

use super::Violation;

const LAW: &str = "I6 equal state at equal index";
/// Entries whose checksums are kept.
const REMEMBERED: usize = 4_096;

/// By shard and index: the term and the checksum that the first replica showed.
#[derive(Debug, Default)]
pub(crate) struct Sums(BTreeMap<u64, BTreeMap<u64, (u64, u64, u64)>>);

impl Sums {
    pub(crate) fn see(
        &mut self,
        shard: u64,
        replica: u64,
        index: u64,
        term: u64,
        checksum: u64,
    ) -> Result<(), Violation> {
        let sums = self.0.entry(shard).or_default();
        let (first, its_term, its_sum) = *sums.entry(index).or_insert((replica, term, checksum));
        if (its_term, its_sum) != (term, checksum) {
            let what = format!(
                "shard {shard}, index {index}: replica {first} has term {its_term} and checksum {its_sum:x}, \
                 replica {replica} term {term} and {checksum:x}"
            );
            return Err(Violation::new(LAW, None, what));
        }
        while sums.len() > REMEMBERED {
            sums.pop_first();
        }
        Ok(())
    }
}
