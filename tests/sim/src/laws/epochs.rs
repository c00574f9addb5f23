//! The leader epoch of a batch is the one in which it was appended: the same for every reader at every time, never
//! falling along the offsets, and OffsetForLeaderEpoch agrees.

use std::collections::BTreeMap;

use super::Violation;

const LAW: &str = "leader epochs of batches are true";

/// Epochs by the base offset of their batch, as clients read them.
#[derive(Debug, Default)]
pub(crate) struct Epochs(BTreeMap<i64, i32>);

impl Epochs {
    /// A client read a batch from a leader of epoch `leader`, if the leader said so.
    pub(crate) fn see(&mut self, index: i32, offset: i64, epoch: i32, leader: Option<i32>) -> Result<(), Violation> {
        let broken =
            |what: String| Err(Violation::new(LAW, index, format!("batch at {offset} has epoch {epoch}, {what}")));
        if epoch < 0 || leader.is_some_and(|leader| epoch > leader) {
            return broken(format!("its leader has {leader:?}"));
        }
        if let Some(before) = self.0.get(&offset).filter(|before| **before != epoch) {
            return broken(format!("it had {before} before"));
        }
        if let Some((at, below)) = self.0.range(..offset).next_back().filter(|(_, below)| **below > epoch) {
            return broken(format!("that at {at} has {below}"));
        }
        if let Some((at, above)) = self.0.range(offset + 1..).next().filter(|(_, above)| **above < epoch) {
            return broken(format!("that at {at} has {above}"));
        }
        self.0.insert(offset, epoch);
        Ok(())
    }

    /// Some epoch that was read.
    pub(crate) fn pick(&self, random: u64) -> Option<i32> {
        let at = usize::try_from(random % self.0.len().max(1) as u64).ok()?;
        self.0.values().nth(at).copied()
    }

    /// The last batch of an epoch that was read so far.
    pub(crate) fn last_of(&self, epoch: i32) -> Option<i64> {
        self.0.iter().rfind(|(_, of)| **of == epoch).map(|(offset, _)| *offset)
    }

    /// A leader answered where an epoch ended. `last`: its last batch that was read before the request, since what is
    /// read meanwhile may be newer than the answer; `deleted`: below that offset no answer is required.
    pub(crate) fn ended(
        &self,
        index: i32,
        asked: i32,
        last: Option<i64>,
        told: Option<(i32, i64)>,
        deleted: i64,
    ) -> Result<(), Violation> {
        let Some(last) = last.filter(|last| *last >= deleted) else { return Ok(()) };
        let next = self.0.range(last + 1..).find(|(_, epoch)| **epoch != asked).map(|(offset, _)| *offset);
        let holds =
            told.is_some_and(|(epoch, end)| epoch == asked && end > last && next.is_none_or(|next| end <= next));
        if holds {
            return Ok(());
        }
        let what =
            format!("epoch {asked} has a batch at {last}, the next epoch at {next:?}, and its end is told as {told:?}");
        Err(Violation::new(LAW, index, what))
    }
}
