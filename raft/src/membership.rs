//! The membership of a group, and the data that a group is created with, with their encodings.
//!
//!  members   | version u8 = 1 | configs u8 | per config: count u32, replica ids u64... | count u32, learner ids u64... |
//!  creation  | members | opaque bytes of the shard |
//!            | version u8 = 2 | parent u64 | checksum u64 | members | opaque bytes of the shard |: of a child, from feature
//!              level 3 on
//!
//! All numbers are little-endian. Two configs: a joint change is in progress.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ottla_storage::ids::ReplicaId;

/// The members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// The voters; two sets while a joint change is in progress.
    pub voters: Vec<BTreeSet<ReplicaId>>,
    /// Replicas that receive all entries and do not count in a quorum.
    pub learners: BTreeSet<ReplicaId>,
}

const VERSION: u8 = 1;
/// The version of a creation with a seed.
const SEEDED: u8 = 2;

impl Membership {
    /// A group of one config, without learners.
    pub fn of(voters: impl IntoIterator<Item = ReplicaId>) -> Self {
        Membership { voters: vec![voters.into_iter().collect()], learners: BTreeSet::new() }
    }

    /// The number of voters that must have an entry before it is committed, at least.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.iter().map(|config| config.len() / 2 + 1).min().unwrap_or(0)
    }

    /// True if `replica` is a voter.
    #[must_use]
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.iter().any(|config| config.contains(&replica))
    }

    /// True if `replica` is the only voter: it becomes leader without the vote of another.
    #[must_use]
    pub fn is_sole_voter(&self, replica: ReplicaId) -> bool {
        !self.voters.is_empty() && self.voters.iter().all(|config| config.len() == 1 && config.contains(&replica))
    }

    /// True if `replica` is the only member: there is no other voter or learner.
    #[must_use]
    pub fn is_alone(&self, replica: ReplicaId) -> bool {
        self.is_sole_voter(replica) && self.learners.is_empty()
    }

    /// Appends the encoding.
    pub fn encode_into(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u8(u8::try_from(self.voters.len()).unwrap_or(u8::MAX));
        for set in self.voters.iter().chain(std::iter::once(&self.learners)) {
            out.put_u32_le(u32::try_from(set.len()).unwrap_or(u32::MAX));
            for replica in set {
                out.put_u64_le(replica.0);
            }
        }
    }

    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Decodes a membership from the front of `from`; `None` if it is incomplete.
    pub fn decode_from(from: &mut Bytes) -> Option<Self> {
        if from.try_get_u8().ok()? != VERSION {
            return None;
        }
        let configs = from.try_get_u8().ok()?;
        let mut voters = Vec::new();
        for _ in 0..configs {
            voters.push(decode_set(from)?);
        }
        let learners = decode_set(from)?;
        Some(Membership { voters, learners })
    }

    /// Decodes a membership that fills `from`. No bytes at all: no members.
    #[must_use]
    pub fn decode(mut from: Bytes) -> Option<Self> {
        if from.is_empty() {
            return Some(Membership::default());
        }
        let members = Self::decode_from(&mut from)?;
        from.is_empty().then_some(members)
    }
}

fn decode_set(from: &mut Bytes) -> Option<BTreeSet<ReplicaId>> {
    let count = from.try_get_u32_le().ok()? as usize;
    if from.remaining() / 8 < count {
        return None;
    }
    Some((0..count).map(|_| ReplicaId(from.get_u64_le())).collect())
}

/// The state that a group begins with, if another group's state was split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// The replica of the same directory whose state was split.
    pub parent: ReplicaId,
    /// Checksum of the state that was split off.
    pub checksum: u64,
}

/// The data that a replica's group is created with: stored in the log's group-creation frame.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Creation {
    /// The initial members.
    pub members: Membership,
    /// Data that the shard stores about itself.
    pub shard: Bytes,
    /// Where its first state comes from; `None`: it begins empty, or with a snapshot.
    pub seed: Option<Seed>,
}

impl Creation {
    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        if let Some(Seed { parent, checksum }) = self.seed {
            out.put_u8(SEEDED);
            out.put_u64_le(parent.0);
            out.put_u64_le(checksum);
        }
        self.members.encode_into(&mut out);
        out.extend_from_slice(&self.shard);
        out.freeze()
    }

    /// Decodes a creation recovered from the log.
    #[must_use]
    pub fn decode(mut from: Bytes) -> Option<Self> {
        let mut seed = None;
        if from.first() == Some(&SEEDED) {
            from.advance(1);
            let parent = ReplicaId(from.try_get_u64_le().ok()?);
            seed = Some(Seed { parent, checksum: from.try_get_u64_le().ok()? });
        }
        let members = Membership::decode_from(&mut from)?;
        Some(Creation { members, shard: from, seed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = BTreeSet<ReplicaId>> {
        proptest::collection::btree_set(any::<u64>().prop_map(ReplicaId), 0..5)
    }

    proptest! {
        #[test]
        fn a_creation_comes_back(voters in proptest::collection::vec(set(), 0..3), learners in set(), shard: Vec<u8>, seed: Option<(u64, u64)>) {
            let seed = seed.map(|(parent, checksum)| Seed { parent: ReplicaId(parent), checksum });
            let creation = Creation { members: Membership { voters, learners }, shard: shard.into(), seed };
            prop_assert_eq!(Creation::decode(creation.encode()), Some(creation));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Creation::decode(bytes.clone().into());
            let _ = Membership::decode(bytes.into());
        }

        #[test]
        fn cut_off_members_are_refused(voters in proptest::collection::vec(set(), 1..3), cut in 1usize..8) {
            let whole = Membership { voters, learners: BTreeSet::new() }.encode();
            let keep = whole.len() - cut.min(whole.len() - 1);
            prop_assert_eq!(Membership::decode(whole.slice(..keep)), None);
        }
    }
}
