//! The leader epoch of a batch is the one in which it was appended: the same for every reader at every time, never
//! falling along the offsets, of one leader, and OffsetForLeaderEpoch agrees.

use std::collections::BTreeMap;

use ottla_env::sim::SimNode;

use super::Violation;

const LAW: &str = "leader epochs of batches are true";

#[derive(Debug, Default)]
pub(crate) struct Epochs {
    /// By the base offset of their batch, as clients read them.
    batches: BTreeMap<i64, i32>,
    /// The nodes that led, as far as clients have met them.
    leaders: BTreeMap<i32, SimNode>,
}

impl Epochs {
    /// A client read a batch from a node, the leader of epoch `leader` if it said so.
    pub(crate) fn see(
        &mut self,
        index: i32,
        offset: i64,
        epoch: i32,
        (node, leader): (SimNode, Option<i32>),
    ) -> Result<(), Violation> {
        let broken =
            |what: String| Err(Violation::new(LAW, index, format!("batch at {offset} has epoch {epoch}, {what}")));
        if epoch < 0 || leader.is_some_and(|leader| epoch > leader) {
            return broken(format!("its leader has {leader:?}"));
        }
        if let Some(before) = self.batches.get(&offset).filter(|before| **before != epoch) {
            return broken(format!("it had {before} before"));
        }
        if let Some((at, below)) = self.batches.range(..offset).next_back().filter(|(_, below)| **below > epoch) {
            return broken(format!("that at {at} has {below}"));
        }
        if let Some((at, above)) = self.batches.range(offset + 1..).next().filter(|(_, above)| **above < epoch) {
            return broken(format!("that at {at} has {above}"));
        }
        self.batches.insert(offset, epoch);
        let known = leader.map(|leader| *self.leaders.entry(leader).or_insert(node));
        match known {
            Some(known) if known != node => broken(format!("nodes {} and {} both lead in {leader:?}", known.0, node.0)),
            _ => Ok(()),
        }
    }

    fn is_led_by_another(&self, epoch: i32, node: SimNode) -> bool {
        self.leaders.get(&epoch).is_some_and(|leader| *leader != node)
    }

    /// Some epoch that was read.
    pub(crate) fn pick(&self, random: u64) -> Option<i32> {
        let at = usize::try_from(random % self.batches.len().max(1) as u64).ok()?;
        self.batches.values().nth(at).copied()
    }

    /// The last batch of an epoch that was read so far.
    pub(crate) fn last_of(&self, epoch: i32) -> Option<i64> {
        self.batches.iter().rfind(|(_, of)| **of == epoch).map(|(offset, _)| *offset)
    }

    /// A node answered where an epoch ended: after its last batch, and before anything that another node is known to have appended
    /// since. What the node has appended itself may be among it, as a leader that splits and merges gives its batches new epochs.
    /// `last`: the epoch's last batch that was read before the request, since what is read meanwhile may be newer than the answer;
    /// `deleted`: below that offset no answer is required.
    pub(crate) fn ended(
        &self,
        index: i32,
        (asked, node): (i32, SimNode),
        last: Option<i64>,
        told: Option<(i32, i64)>,
        deleted: i64,
    ) -> Result<(), Violation> {
        let Some(last) = last.filter(|last| *last >= deleted) else { return Ok(()) };
        let is_after = |epoch: i32| epoch != asked && self.is_led_by_another(epoch, node);
        let next = self.batches.range(last + 1..).find(|(_, epoch)| is_after(**epoch)).map(|(offset, _)| *offset);
        let holds =
            told.is_some_and(|(epoch, end)| epoch == asked && end > last && next.is_none_or(|next| end <= next));
        if holds {
            return Ok(());
        }
        let what = format!(
            "epoch {asked} has a batch at {last}, one of another leader than node {} is at {next:?}, and its end is told as {told:?}",
            node.0
        );
        Err(Violation::new(LAW, index, what))
    }
}
