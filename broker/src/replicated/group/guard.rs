//! The guard of a batch of `__consumer_offsets`: what it assumes of its group; carried in the entry and judged again at
//! apply.
//!
//!     | kind 1 | group | generation | member id |     an offset commit of a member, or without membership (generation -1)
//!     | kind 2 | group | generation |               a group's membership: generations never fall
//!     | kind 3 | group |                            the removal of an empty group
//!     | kind 4 | group | cutoff |                   offsets that expired: none committed after the cutoff
//!     | kind 5 | group | generation |               as kind 2, and the generation awaits its leader's assignment
//!
//! Kind 5 is written from feature level 2 on. Kafka's group record has no field for it, and the record that a tool
//! reads is to be Kafka's, byte for byte. Invariant: what is encoded decodes equal; anything else is refused.

use bytes::{BufMut, Bytes, BytesMut};

use super::schema::{self, Malformed, Reader};

/// An assumption about a group, checked against its records before the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// An offset commit.
    Commit {
        /// The group.
        group: String,
        /// The generation that the member has; below 0 for a consumer without membership.
        generation: i32,
        /// The member; empty for a consumer without membership.
        member_id: String,
    },
    /// A membership record.
    Membership {
        /// The group.
        group: String,
        /// The generation of the record.
        generation: i32,
        /// The record begins this generation: its leader has not assigned yet, and the assignments in it are void.
        awaits_assignment: bool,
    },
    /// The removal of a group that has no members.
    Removal {
        /// The group.
        group: String,
    },
    /// The removal of expired offsets.
    Expiry {
        /// The group.
        group: String,
        /// Nothing that was committed after this may be removed.
        cutoff_ms: i64,
    },
}

impl Guard {
    /// Its bytes in the entry.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(48);
        match self {
            Self::Commit { group, generation, member_id } => {
                out.put_u8(1);
                schema::put_string(&mut out, group);
                out.put_i32(*generation);
                schema::put_string(&mut out, member_id);
            }
            Self::Membership { group, generation, awaits_assignment } => {
                out.put_u8(if *awaits_assignment { 5 } else { 2 });
                schema::put_string(&mut out, group);
                out.put_i32(*generation);
            }
            Self::Removal { group } => {
                out.put_u8(3);
                schema::put_string(&mut out, group);
            }
            Self::Expiry { group, cutoff_ms } => {
                out.put_u8(4);
                schema::put_string(&mut out, group);
                out.put_i64(*cutoff_ms);
            }
        }
        out.freeze()
    }

    /// Reads what [`Guard::encode`] wrote.
    pub fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes.clone());
        let kind = reader.take(1)?;
        let group = reader.string(false)?;
        let guard = match kind.first() {
            Some(1) => Self::Commit { group, generation: reader.i32()?, member_id: reader.string(false)? },
            Some(kind @ (2 | 5)) => {
                Self::Membership { group, generation: reader.i32()?, awaits_assignment: *kind == 5 }
            }
            Some(3) => Self::Removal { group },
            Some(4) => Self::Expiry { group, cutoff_ms: reader.i64()? },
            _ => return Err(Malformed("unknown guard")),
        };
        if reader.remaining() == 0 { Ok(guard) } else { Err(Malformed("guard followed by something")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_reads_back_and_no_part_of_it_does() {
        let group = "g".to_string();
        for guard in [
            Guard::Commit { group: group.clone(), generation: 7, member_id: "m-1".into() },
            Guard::Commit { group: group.clone(), generation: -1, member_id: String::new() },
            Guard::Membership { group: group.clone(), generation: 8, awaits_assignment: false },
            Guard::Membership { group: group.clone(), generation: 9, awaits_assignment: true },
            Guard::Removal { group: group.clone() },
            Guard::Expiry { group, cutoff_ms: 1 << 40 },
        ] {
            let bytes = guard.encode();
            assert_eq!(Guard::decode(&bytes), Ok(guard));
            for end in 0..bytes.len() {
                assert!(Guard::decode(&bytes.slice(..end)).is_err());
            }
        }
    }
}
